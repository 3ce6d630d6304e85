"""Networks of all kinds: scores of every pixel in images of any size, weights that are saved and begun from."""

import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.segmentation.layout import KINDS, SKIPS, WAYS, Layout
from pipeline.segmentation.network import SegmentationNetwork, restore_network

pytestmark = pytest.mark.usefixtures("one_thread")


def network(kind, backbone="tiny", seed=0, **settings):
    torch.manual_seed(seed)
    return SegmentationNetwork(make_backbone(backbone), Layout(backbone, 3, kind, **settings))


def randomised(model, seed=1):
    """With random scores, which are zero at the start."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "scores" in name:
            torch.nn.init.normal_(parameter)
    return model.eval()


class TestSizes:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_images_of_any_size(self, kind):
        model = randomised(network(kind))
        with torch.no_grad():
            for size in (1, 1), (1, 50), (33, 17), (40, 64):
                scores = model(torch.randn(1, 3, *size))
                assert scores.shape == (1, 3, *size)
                assert scores.dtype == torch.float32
                assert scores.isfinite().all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_image_and_a_batch(self, kind):
        model, images = randomised(network(kind)), torch.randn(2, 3, 40, 48)
        with torch.no_grad():
            torch.testing.assert_close(model(images), torch.cat([model(images[:1]), model(images[1:])]), atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_scores_are_float32_in_mixed_precision(self, kind):
        """And differ finely: not rounded to bfloat16 on the way."""
        model = randomised(network(kind))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            scores = model(torch.randn(1, 3, 48, 48))
        assert scores.dtype == torch.float32
        assert not torch.equal(scores, scores.bfloat16().float())


class TestLayout:
    @pytest.mark.parametrize(("settings", "message"), [
        ({"backbone": "resnet9"}, "'resnet9' is none of alexnet"), ({"kind": "fcn4s"}, "'fcn4s' is none of patches"),
        ({"upsampling": "bicubic"}, "'bicubic' is none of nearest"),
        ({"upsampling": "nearest"}, "is for the kind unpooling alone"), ({"num_classes": 256}, "256 classes"),
        ({"kind": "unpooling", "upsampling": "unpool", "backbone": "efficientnet_lite0"}, "has no max pooling"),
    ])
    def test_wrong_ones_are_named(self, settings, message):
        with pytest.raises(PipelineError, match=message):
            Layout(**{"backbone": "tiny", "num_classes": 3, "kind": "fcn32s", **settings})


class TestWeights:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_saved_network_is_restored(self, kind):
        model = randomised(network(kind))
        restored = restore_network(model.state_dict(), model.layout, "the file").eval()
        image = torch.randn(1, 3, 30, 40)
        with torch.no_grad():
            assert torch.equal(model(image), restored(image))

    def test_another_networks_are_refused(self):
        with pytest.raises(PipelineError, match=r"the file: not the weights of fcn16s on tiny: method\.layers.* is missing"):
            restore_network(network("fcn32s").state_dict(), network("fcn16s").layout, "the file")

    @pytest.mark.parametrize("way", WAYS)
    def test_tensors_are_held_once(self, way):
        names = network("unpooling", upsampling=way).state_dict()
        assert sum("trunk.0.weight" in name for name in names) == 1


class TestStages:
    """FCN-16s begins from 32s, 8s from 16s: before training each gives the scores of the one before, since skips add 0."""

    @pytest.mark.parametrize(("before", "after"), [("fcn32s", "fcn16s"), ("fcn16s", "fcn8s"), ("fcn32s", "fcn8s")])
    def test_a_stage_begins_as_the_one_before(self, before, after):
        first, second = randomised(network(before)), network(after, seed=7)
        known = second.begin_from(first.state_dict(), "the file")
        assert known == {str(stride) for stride in SKIPS[before]}
        image = torch.randn(1, 3, 90, 70)
        with torch.no_grad():
            expected, scores = first(image), second.eval()(image)
        # Interpolating twice is not the same as once, but where the scores are clear the classes are.
        assert (expected.argmax(1) == scores.argmax(1)).float().mean() > 0.9

    def test_maps_that_the_stage_before_knew_keep_their_standard(self):
        first, second = network("fcn32s", "squeezenet1_0"), network("fcn16s", "squeezenet1_0", seed=7)
        first.calibrate([torch.randn(1, 3, 64, 64)])
        second.calibrate([torch.randn(1, 3, 80, 80) * 3], second.begin_from(first.state_dict(), "the file"))
        standards = [model.method.layers.standards for model in (first, second)]
        assert torch.equal(standards[0]["32"].scale, standards[1]["32"].scale)
        assert (standards[1]["16"].scale != 1).all()

    def test_learned_upsampling_of_a_shared_step_is_kept(self):
        first, second = network("fcn16s", learned=True), network("fcn8s", seed=7, learned=True)
        first.method.layers.upsamplings["32-16"].weight.data.fill_(0.25)
        second.begin_from(first.state_dict(), "the file")
        assert (second.method.layers.upsamplings["32-16"].weight == 0.25).all()
        assert second.method.layers.upsamplings["8-1"].weight.std() > 0

    def test_other_networks_are_refused(self):
        of_more_classes = SegmentationNetwork(make_backbone("tiny"), Layout("tiny", 4, "fcn32s"))
        with pytest.raises(PipelineError, match=r"the file: not the weights of the stage before fcn16s on tiny: .*has shape"):
            network("fcn16s").begin_from(of_more_classes.state_dict(), "the file")


class TestPatches:
    def test_a_score_is_that_of_the_window_around_its_pixel(self):
        """At the windows' centres, the scores are those of a crop alone; windows reach beyond the image, into zeros."""
        model = randomised(network("patches"))
        method, image = model.method, torch.randn(1, 3, 41, 70)
        padded = torch.nn.functional.pad(image, (200, 200, 200, 200))
        with torch.no_grad():
            scores = model(image)
            for y, x in (4, 4), (20, 36), (36, 68):
                top, left = 200 + y - 32, 200 + x - 32
                crop = padded[:, :, top : top + 64, left : left + 64]
                alone = method.score(method.features(model.backbone, crop))
                torch.testing.assert_close(scores[:, :, y, x], alone, atol=1e-4, rtol=1e-4)

    def test_grid_by_hand(self):
        """Stride 8, centres at 4, 12, 20, ...: as many as lie within the image, one at least."""
        method = network("patches").method
        assert [method.grid((side, side))[0] for side in (1, 4, 5, 12, 13, 20, 21)] == [1, 1, 1, 1, 2, 2, 3]


class TestFullResolution:
    def test_no_layer_has_a_stride(self):
        modules = network("full-resolution").method.modules()
        assert {module.stride for module in modules if isinstance(module, torch.nn.Conv2d)} == {(1, 1)}
