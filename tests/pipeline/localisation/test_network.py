"""The network with two heads: its features, its losses, and its boxes."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.localisation.network import (
    BOX_HEADS,
    PLACES,
    Layout,
    Localiser,
    heads_loss,
    restore_localiser,
    slide,
)
from pipeline.networks.backbones import make_backbone

pytestmark = pytest.mark.usefixtures("one_thread")


def make_localiser(backbone="tiny", side=96, box_head="agnostic", after="conv", classes=3):
    torch.manual_seed(0)
    return Localiser(make_backbone(backbone), Layout(backbone, classes, side, box_head, after)).eval()


def images(count, side, seed=1):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class TestShapes:
    @pytest.mark.parametrize("after", PLACES)
    @pytest.mark.parametrize("box_head", BOX_HEADS)
    def test_tiny(self, box_head, after):
        scores, boxes = make_localiser(box_head=box_head, after=after)(images(2, 96))
        assert (tuple(scores.shape), tuple(boxes.shape)) == ((2, 3), (2, 3, 4))

    @pytest.mark.exhaustive
    @pytest.mark.parametrize(
        ("backbone", "side"),
        [("squeezenet1_0", 227), ("alexnet", 227), ("alexnet", 259), ("efficientnet_lite0", 224), ("vgg16", 224),
         ("mobilenet_v3_large", 224), ("resnet18", 224), ("resnet50+stride1", 96)],
    )
    def test_other_backbones(self, backbone, side):
        for after in PLACES:
            with torch.device("meta"):  # shapes without values
                scores, boxes = make_localiser(backbone, side, "specific", after)(images(1, side))
            assert (tuple(scores.shape), tuple(boxes.shape)) == ((1, 3), (1, 3, 4))

    @pytest.mark.parametrize("side", [8, 48])
    def test_a_side_that_is_too_small_is_told(self, side):
        with pytest.raises(PipelineError, match=f"--localise-side {side}: .* give at least 64"):
            make_localiser(side=side)


class TestSlide:
    def test_equals_the_layers_on_each_window(self):
        """fc6 on every window of 4 x 4 cells."""
        backbone = make_backbone("tiny").eval()
        maps = torch.rand(2, 128, 6, 5)
        outputs = slide(backbone, maps)
        assert outputs.shape == (2, 256, 3, 2)
        for y, x in np.ndindex(3, 2):
            window = backbone.head(maps[:, :, y : y + 4, x : x + 4].flatten(1), "fc6")
            assert torch.allclose(outputs[:, :, y, x], window, atol=1e-5)

    @pytest.mark.exhaustive
    def test_at_its_own_size_a_backbone_is_as_it_was(self):
        backbone = make_backbone("alexnet").eval()
        crops = images(1, 227)
        with torch.no_grad():
            outputs = slide(backbone, backbone.pool(backbone.trunk(crops)))
            assert torch.allclose(outputs[..., 0, 0], backbone(crops, "fc7"), atol=1e-4)

    def test_dropout_leaves_out_a_feature_everywhere(self):
        backbone = make_backbone("tiny")
        maps = torch.rand(1, 128, 12, 12)
        whole, dropped = slide(backbone, maps), slide(backbone, maps, training=True)
        kept = (dropped > 0).any(dim=3).any(dim=2)
        assert torch.allclose(dropped[kept], 2 * whole[kept], rtol=1e-4)
        assert 0.3 < kept.float().mean() < 0.7


class TestScores:
    def test_classes_and_positions_make_one_softmax(self):
        """A class has the sum of its probabilities at all positions, each a position of the fully connected layers."""
        model, seen = make_localiser(side=128), images(2, 128)
        with torch.no_grad():
            features = slide(model.backbone, model.last_map(seen)).flatten(2)
            logits = torch.stack([model.scores(features[:, :, place]) for place in range(features.shape[2])], dim=1)
            joint = logits.flatten(1).softmax(dim=1).unflatten(1, logits.shape[1:])
            assert logits.shape == (2, 25, 3)
            assert torch.allclose(model(seen)[0].softmax(dim=1), joint.sum(dim=1), atol=1e-6)


class TestCalibration:
    def test_map_and_features_get_small_norms_and_boxes_deviation_one(self):
        model, seen = make_localiser(), images(8, 96)
        boxes = np.random.default_rng(0).random((40, 4)).astype(np.float32)
        model.calibrate(seen, boxes)
        with torch.no_grad():
            standard = (model.last_map(seen) - model.map_shift[:, None, None]) * model.map_scale[:, None, None]
        window = standard[:, :, 1:5, 1:5].flatten(1)
        assert 8 < window.norm(dim=1).mean() < 20
        assert standard.mean((0, 2, 3)).abs().max() < 1e-4
        assert model.box_deviation.numpy() == pytest.approx(boxes.std(axis=0), rel=1e-4)
        distances = model.distances_to_nearest(torch.from_numpy(boxes)) - model.box_mean
        assert distances.mean(0).numpy() == pytest.approx(np.zeros(4), abs=1e-5)

    def test_equal_boxes_are_finite_targets(self):
        model = make_localiser()
        boxes = np.tile(np.array([0.1, 0.2, 0.5, 0.6], np.float32), (5, 1))
        model.calibrate(images(2, 96), boxes)
        assert model.box_deviation.min() == pytest.approx(0.01)


class TestBoxes:
    def test_centres_of_positions(self):
        """4 x 4 cells of a map of 6 x 6: centres at 2, 3 and 4 sixths, row by row."""
        sixths = (make_localiser(side=96).centres * 6).tolist()
        assert sixths[0] == pytest.approx([2, 2, 2, 2])
        assert sixths[1] == pytest.approx([3, 2, 3, 2])
        assert sixths[-1] == pytest.approx([4, 4, 4, 4])
        assert len(sixths) == 9

    def test_of_one_position_the_centre_is_the_middle(self):
        assert make_localiser(side=64).centres.tolist() == [[0.5] * 4]

    def test_the_nearest_position(self):
        """The middle of the first box is at 2.2 and 3.9 sixths, that of the second beyond the last position."""
        boxes = torch.tensor([[1.2, 2.9, 3.2, 4.9], [5, 5, 6, 6]]) / 6
        distances = make_localiser(side=96).distances_to_nearest(boxes) * 6
        assert distances.numpy() == pytest.approx(np.array([[-0.8, -1.1, 1.2, 0.9], [1, 1, 2, 2]]), abs=1e-5)

    @pytest.mark.parametrize("box_head", BOX_HEADS)
    def test_a_class_has_the_mean_over_positions_by_its_shares(self, box_head):
        model, seen = make_localiser(box_head=box_head, after="fc"), images(1, 96)
        model.box_deviation.fill_(0.1)
        model.box_mean.copy_(torch.tensor([-0.1, -0.2, 0.1, 0.2]))
        with torch.no_grad():
            nn.init.normal_(model.scores.weight)
            features = slide(model.backbone, model.last_map(seen)).flatten(2)[0].T
            mean_boxes = model(seen)[1][0]
            weight, bias = model.boxes[0].weight.flatten(1), model.boxes[0].bias
            for label in range(3):
                shares = model.scores(features)[:, label].softmax(dim=0)
                numbers = (features @ weight.T + bias).unflatten(1, (-1, 4))[:, label if box_head == "specific" else 0]
                boxes = model.centres + torch.tensor([-0.1, -0.2, 0.1, 0.2]) + 0.1 * numbers
                assert torch.allclose(mean_boxes[label], (shares[:, None] * boxes).sum(dim=0), atol=1e-5)

    def test_the_box_loss_says_which_positions_are_on_the_object(self):
        """A step down the loss of a box at the left raises the shares of the positions at the left."""
        model, seen = make_localiser(), images(1, 96)

        def share_at_left():
            features = slide(model.backbone, model.last_map(seen)).flatten(2)[0].T
            return model.scores(features)[:, 0].softmax(dim=0)[model.centres[:, 0] < 0.4].sum()

        before = share_at_left()
        heads_loss(*model(seen), torch.tensor([0]), torch.tensor([[0.0, 0.4, 0.2, 0.6]]))[1].backward()
        with torch.no_grad():
            model.scores.weight -= 0.1 * model.scores.weight.grad
            assert share_at_left() > before


class TestLoss:
    def test_hand_worked(self):
        """Two classes with equal scores; the true class's box is off by (1, 2, 0, 0), the other's does not count."""
        boxes = torch.tensor([[[9.0, 9, 9, 9], [1, 2, 0, 0]]])
        losses = heads_loss(torch.zeros(1, 2), boxes, torch.tensor([1]), torch.zeros(1, 4))
        assert losses.tolist() == pytest.approx([np.log(2), 2.5])

    def test_independent_values(self, shared):
        path = shared / "oracles2" / "localisation.npz"
        if not path.is_file():
            pytest.skip("oracle absent: localisation.npz")
        with np.load(path, allow_pickle=False) as data:
            values = {name: torch.from_numpy(data[name]) for name in data.files if name.startswith(("head", "loss", "grad"))}
        labels, count = values["head_labels"], len(values["head_labels"])
        specific = values["head_boxes_specific"].requires_grad_()
        for boxes, kind in (values["head_boxes_agnostic"][:, None], "agnostic"), (specific, "specific"):
            losses = heads_loss(values["head_logits"], boxes, labels, values["head_targets"]) / count
            expected = [values["loss_softmax"].item(), values[f"loss_l2_{kind}"].item()]
            assert losses.tolist() == pytest.approx(expected, rel=1e-6)
        losses[1].backward()
        assert torch.allclose(specific.grad, values["grad_specific"], atol=1e-6)


class TestRestore:
    def test_gives_the_same_network(self):
        model = make_localiser(box_head="specific")
        model.calibrate(images(4, 96), np.random.default_rng(0).random((9, 4)))
        again = restore_localiser(model.state_dict(), model.layout, "file").eval()
        for output, restored in zip(model(images(2, 96)), again(images(2, 96))):
            assert torch.equal(output, restored)

    @pytest.mark.parametrize("change", [{"classes": 4}, {"after": "fc"}, {"side": 112}])
    def test_another_layout_is_told(self, change):
        tensors, layout = make_localiser().state_dict(), make_localiser(**change).layout
        with pytest.raises(PipelineError, match="file: not the weights of"):
            restore_localiser(tensors, layout, "file")


def test_the_choices_are_those_of_the_stages():
    from tasks.localisation import training

    assert (BOX_HEADS, PLACES) == (training.BOX_HEADS, training.PLACES)


def test_the_first_layer_is_reached_by_both_losses():
    for head in 0, 1:
        model = make_localiser()
        for layer in (model.scores, model.boxes[0], model.boxes[3]):
            nn.init.normal_(layer.weight)
        heads_loss(*model(images(2, 96)), torch.tensor([0, 1]), torch.ones(2, 4))[head].backward()
        assert model.backbone.trunk[0].weight.grad.abs().max() > 0
