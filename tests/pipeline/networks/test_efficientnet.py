"""EfficientNet-Lite0 against a slow version from the file's own tensors, with batch normalisation and padding spelt out."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks import region_head
from pipeline.networks.backbones import make_backbone
from pipeline.networks.efficientnet import SameConv2d, block_shapes
from pipeline.networks.weights import load_weights, save_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = "efficientnet_lite0-imagenet.pth"
# kernel, stride, channels after, for each block; the published table, written out
BLOCKS = [
    (3, 1, 16), (3, 2, 24), (3, 1, 24), (5, 2, 40), (5, 1, 40), (3, 2, 80), (3, 1, 80), (3, 1, 80), (5, 1, 112), (5, 1, 112),
    (5, 1, 112), (5, 2, 192), (5, 1, 192), (5, 1, 192), (5, 1, 192), (3, 1, 320),
]


def random_file(seed=0):
    """A state dict in the file's names with random values; variances and factors keep the values' size."""
    generator, tensors = torch.Generator().manual_seed(seed), {}

    def add(convolution, norm, outputs, inputs, kernel):
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        tensors[f"{convolution}.weight"] = weight * (2 / weight[0].numel()) ** 0.5
        for part, low in (("weight", 0.8), ("bias", -0.2), ("running_mean", -0.2), ("running_var", 0.8)):
            tensors[f"{norm}.{part}"] = low + 0.4 * torch.rand(outputs, generator=generator)
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3)
    channels = 32
    for number, (kernel, _, outputs) in enumerate(BLOCKS):
        wide, name = channels * (6 if number else 1), f"_blocks.{number}"
        if number:
            add(f"{name}._expand_conv", f"{name}._bn0", wide, channels, 1)
        add(f"{name}._depthwise_conv", f"{name}._bn1", wide, 1, kernel)
        add(f"{name}._project_conv", f"{name}._bn2", outputs, wide, 1)
        channels = outputs
    add("_conv_head", "_bn1", 1280, 320, 1)
    return tensors | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def slow_layer(tensors, values, convolution, norm, stride=1, activated=True):
    weight = tensors[f"{convolution}.weight"]
    kernel, groups = weight.shape[-1], values.shape[1] if weight.shape[1] == 1 else 1
    padded = []
    for side in values.shape[2:]:
        cells = -(-side // stride)
        total = max((cells - 1) * stride + kernel - side, 0)
        padded.append((total // 2, total - total // 2))
    values = nn.functional.pad(values, (*padded[1], *padded[0]))
    values = nn.functional.conv2d(values, weight, stride=stride, groups=groups)
    mean, variance = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
    values = (values - mean[:, None, None]) / (variance[:, None, None] + 1e-3) ** 0.5
    values = values * tensors[f"{norm}.weight"][:, None, None] + tensors[f"{norm}.bias"][:, None, None]
    return values.clamp(0, 6) if activated else values


def slow_block(tensors, values, number):
    kernel, stride, outputs = BLOCKS[number]
    name, wide = f"_blocks.{number}", values
    if number:
        wide = slow_layer(tensors, wide, f"{name}._expand_conv", f"{name}._bn0")
    assert tensors[f"{name}._depthwise_conv.weight"].shape[-1] == kernel
    wide = slow_layer(tensors, wide, f"{name}._depthwise_conv", f"{name}._bn1", stride)
    result = slow_layer(tensors, wide, f"{name}._project_conv", f"{name}._bn2", activated=False)
    return result + values if stride == 1 and values.shape[1] == outputs else result


def slow_map(tensors, images):
    values = slow_layer(tensors, images, "_conv_stem", "_bn0", 2)
    for number in range(11):
        values = slow_block(tensors, values, number)
    return values


def slow_head(tensors, maps):
    for number in range(11, 16):
        maps = slow_block(tensors, maps, number)
    return slow_layer(tensors, maps, "_conv_head", "_bn1").mean((2, 3))


@pytest.fixture(scope="module")
def tensors():
    return random_file()


@pytest.fixture(scope="module")
def weights_file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def backbone(weights_file):
    backbone = make_backbone("efficientnet_lite0").eval()
    load_weights(backbone, weights_file)
    return backbone


class TestNetwork:
    @pytest.mark.parametrize("size", [(64, 96), (65, 47)])  # SAME padding of even sides, and of odd ones
    def test_trunk_is_the_slow_version(self, backbone, tensors, size):
        images = torch.randn(2, 3, *size)
        with torch.inference_mode():
            torch.testing.assert_close(backbone.trunk(images), slow_map(tensors, images), rtol=1e-4, atol=1e-4)

    def test_head_is_the_slow_version(self, backbone, tensors):
        maps = torch.randn(3, 112, 7, 7)
        with torch.inference_mode():
            outputs, expected = backbone.head(maps.flatten(1), "head"), slow_head(tensors, maps)
        assert outputs.shape == (3, 1280)
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)

    def test_pool5_is_the_mean_of_two_by_two_cells(self, backbone):
        crops = torch.randn(1, 3, 224, 224)
        with torch.inference_mode():
            maps = backbone.trunk(crops)
            assert maps.shape == (1, 112, 14, 14)
            torch.testing.assert_close(backbone(crops, "pool5"), nn.functional.avg_pool2d(maps, 2).flatten(1))

    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_head_takes_many_regions_in_parts(self, backbone, monkeypatch, count):
        monkeypatch.setattr(region_head, "REGIONS_AT_A_TIME", 2)
        pool5 = torch.randn(count, 112 * 49)
        at_once = backbone.head(pool5, "head")
        with torch.inference_mode():
            torch.testing.assert_close(backbone.head(pool5, "head"), at_once)
        assert at_once.shape == (count, 1280)

    def test_blocks_are_the_published_ones(self):
        assert [(shape.kernel, shape.stride, shape.outputs) for shape in block_shapes()] == BLOCKS

    def test_batch_normalisation_is_a_scale_and_an_offset_that_no_training_changes(self, backbone):
        assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
        kinds = Counter(name.rpartition(".")[2] for name in backbone.state_dict())
        assert set(kinds.values()) == {1 + 2 + 15 * 3 + 1}  # one of each per convolution
        assert {name.rpartition(".")[2] for name, _ in backbone.named_parameters()} == {"weight"}

    def test_trained_weights_are_those_of_the_file(self, backbone, tensors):
        """A step of training is then the same as with frozen batch normalisation: the scales are not in the weights."""
        torch.testing.assert_close(backbone.trunk[0][0].weight, tensors["_conv_stem.weight"], rtol=0, atol=0)

    def test_random_weights_keep_the_size_of_values(self):
        torch.manual_seed(0)
        scratch = make_backbone("efficientnet_lite0").eval()
        with torch.inference_mode():
            features = scratch(torch.randn(2, 3, 224, 224), "head")
        assert 0.05 < features.std() < 3


class TestSamePadding:
    @pytest.mark.parametrize(("side", "kernel", "stride", "first"), [
        (8, 3, 2, 0), (9, 3, 2, 1), (8, 5, 2, 1), (9, 5, 2, 2), (7, 5, 2, 2), (8, 3, 1, 1), (8, 5, 1, 2), (2, 5, 2, 1),
    ])
    def test_by_hand(self, side, kernel, stride, first):
        """With weights 1, 2, 4, ... a single 1 in the first pixel says where the first cell's window begins."""
        layer = SameConv2d(1, 1, kernel, stride)
        with torch.inference_mode():
            layer.weight.zero_()
            layer.weight[0, 0, first, first] = 1
            image = torch.zeros(1, 1, side, side)
            image[..., 0, 0] = 1
            cells = layer(image)
        assert cells.shape[2:] == (-(-side // stride),) * 2
        assert cells[0, 0, 0, 0] == 1
        assert cells.sum() == 1


class TestFiles:
    def refusal(self, tensors, tmp_path):
        torch.save(tensors, tmp_path / "weights.pth")
        with torch.device("meta"):
            backbone = make_backbone("efficientnet_lite0")
        with pytest.raises(PipelineError) as caught:
            load_weights(backbone, tmp_path / "weights.pth")
        return str(caught.value).removeprefix(f"{tmp_path / 'weights.pth'}: ")

    def test_faults_are_told_in_the_files_names(self, tensors, tmp_path, monkeypatch):
        wrong = {**tensors, "_blocks.16._bn0.weight": torch.zeros(3), "_bn1.bias": torch.zeros(7)}
        del wrong["_blocks.3._bn1.running_var"]
        real = torch.load
        monkeypatch.setattr(torch, "load", lambda *given, **options: {
            name: value.to("meta") for name, value in real(*given, **options).items()
        })
        assert self.refusal(wrong, tmp_path) == (
            "not the weights of efficientnet_lite0: _blocks.3._bn1.running_var is missing; _blocks.16._bn0.weight is unknown; "
            "_bn1.bias has shape (7,), expected (1280,)"
        )

    def test_the_classifier_may_be_missing_and_names_may_be_wrapped(self, tensors, backbone, tmp_path):
        others = {f"module.{name}": value for name, value in tensors.items() if not name.startswith("_fc")}
        torch.save({"state_dict": others}, tmp_path / "weights.pth")
        loaded = make_backbone("efficientnet_lite0")
        load_weights(loaded, tmp_path / "weights.pth")
        save_tensors(loaded, tmp_path / "loaded.safetensors")
        save_tensors(backbone, tmp_path / "expected.safetensors")
        assert (tmp_path / "loaded.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


class TestImageNet:
    @pytest.fixture(scope="class")
    def published(self, request):
        path = Path(__file__).resolve().parents[4] / "shared" / "weights" / WEIGHTS
        if not path.is_file():
            pytest.skip(f"weights absent: {WEIGHTS}")
        return path, torch.load(path, weights_only=True)

    @staticmethod
    def central(picture):
        """The middle square, reduced to 224 x 224, as the weights expect it."""
        side = min(picture.shape[:2])
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        square = torch.from_numpy(picture[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None].float()
        return (nn.functional.interpolate(square, (224, 224), mode="bilinear", antialias=True) - 127) / 128

    @pytest.mark.parametrize(("name", "number"), [("chelsea", 285), ("coffee", 967)])  # Egyptian cat, espresso
    def test_first_guess_of_a_photograph(self, published, name, number):
        from skimage import data

        path, tensors = published
        backbone = make_backbone("efficientnet_lite0").eval()
        load_weights(backbone, path)
        crop = self.central(getattr(data, name)())
        with torch.inference_mode():
            maps, expected = backbone.trunk(crop), slow_map(tensors, crop)
            assert (maps - expected).norm() < 1e-4 * expected.norm()
            # The network as it was trained, on 14 x 14 cells; then on the 7 x 7 that regions are pooled to.
            for features in (slow_head(tensors, maps), backbone(crop, "head")):
                scores = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
                assert int(scores.argmax()) == number
        np.testing.assert_equal(features.shape, (1, 1280))
