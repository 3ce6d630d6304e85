"""Label maps of single images: any size, and tiles that say what the whole image says."""

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.segmentation.layout import BACKBONES, KINDS, Layout
from pipeline.segmentation.network import SegmentationNetwork
from pipeline.segmentation.segment import MEGAPIXELS, ImageSegmenter
from pipeline.segmentation.unpooling import NormalisedConvolution

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def make_segmenter(kind, backbone="tiny", megapixels=MEGAPIXELS, precision="float32", normalises=True, **settings):
    """A network with random scores, whose label maps differ from place to place; unpooling `normalises` or does not."""
    torch.manual_seed(0)
    model = SegmentationNetwork(make_backbone(backbone), Layout(backbone, 4, kind, **settings))
    for part in list(model.modules()):
        if isinstance(part, NormalisedConvolution) and not normalises:
            part[1] = torch.nn.Identity()
    model.calibrate([torch.randn(1, 3, 90, 90)])
    for name, parameter in model.named_parameters():
        if "scores" in name:
            torch.nn.init.normal_(parameter)
    segmenter = ImageSegmenter(model, CPU, precision, megapixels)
    last = [parameter for name, parameter in model.named_parameters() if "scores" in name and name.endswith("bias")][-1]
    with torch.no_grad():  # no class is the best everywhere
        last -= segmenter.scores(noise(90, 90)).clone().mean((1, 2))
    return segmenter


def noise(height, width):
    """Coarse and fine, so that labels change often."""
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3)).repeat(16, 0).repeat(16, 1)[:height, :width]
    return (coarse // 2 + rng.integers(0, 128, (height, width, 3))).astype(np.uint8)


class TestSizes:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_of_any_size(self, kind, precision):
        segmenter = make_segmenter(kind, precision=precision)
        for size in (1, 1), (1, 30), (37, 2), (45, 61):
            labels = segmenter.segment(noise(*size))
            assert labels.shape == size
            assert labels.dtype == np.uint8
            assert labels.max() < 4

    def test_a_label_is_the_class_of_the_largest_score(self):
        segmenter, image = make_segmenter("fcn8s"), noise(60, 80)
        assert np.array_equal(segmenter.segment(image), segmenter.scores(image).numpy().argmax(0))

    def test_dropout_is_off(self):
        segmenter, image = make_segmenter("fcn8s"), noise(60, 80)
        assert np.array_equal(segmenter.segment(image), segmenter.segment(image))


class TestTiles:
    """Labels of tiles are those of the whole image, up to rounding where two scores are as good as equal.

    Without the normalisation of unpooling: a tile has other statistics than its image.
    """

    @pytest.mark.parametrize(("kind", "backbone", "size", "settings"), [
        ("fcn8s", "tiny", (301, 523), {}), ("fcn8s", "tiny", (700, 90), {"learned": True}), ("fcn32s", "tiny", (97, 611), {}),
        ("patches", "tiny", (60, 251), {}), ("full-resolution", "tiny", (90, 121), {}),
        *(("unpooling", "tiny", (211, 433), {"upsampling": way}) for way in ("unpool", "nearest", "bed-of-nails", "transposed")),
        *(pytest.param(*values, marks=pytest.mark.exhaustive) for values in (
            ("fcn16s", "squeezenet1_0", (97, 801), {}), ("unpooling", "squeezenet1_0", (65, 811), {"upsampling": "unpool"}),
            ("fcn8s", "efficientnet_lite0", (50, 2000), {}),
        )),
    ])
    def test_they_say_what_the_whole_image_says(self, kind, backbone, size, settings):
        image, segmenter = noise(*size), make_segmenter(kind, backbone, normalises=False, **settings)
        whole = segmenter.segment(image)
        least = min(size[0], segmenter.stride + 2 * segmenter.margin) * min(size[1], segmenter.stride + 2 * segmenter.margin)
        segmenter.megapixels = max(1.05 * least, 0.4 * size[0] * size[1]) / 1e6
        tiles = list(segmenter.tiles(*size))
        assert len(tiles) > 1
        assert len(np.unique(whole)) > 1
        assert (segmenter.segment(image) != whole).mean() < 1e-4

    @pytest.mark.parametrize("size", [(900, 400), (400, 900), (3000, 100), (1000, 1000)])
    def test_they_cover_the_image_once_within_the_limit(self, size):
        segmenter = make_segmenter("fcn8s", megapixels=0.2)
        counts = np.zeros(size, int)
        for rows, columns in segmenter.tiles(*size):
            counts[slice(*rows), slice(*columns)] += 1
            margin = segmenter.margin
            seen = [min(side, ends[1] + margin) - max(0, ends[0] - margin) for ends, side in zip((rows, columns), size)]
            assert seen[0] * seen[1] <= segmenter.megapixels * 1e6
            assert rows[0] % segmenter.stride == columns[0] % segmenter.stride == 0
        assert (counts == 1).all()

    def test_a_small_image_is_one(self):
        assert list(make_segmenter("fcn8s").tiles(300, 400)) == [((0, 300), (0, 400))]

    @pytest.mark.parametrize("kind", ["fcn8s", "unpooling", "patches"])
    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_the_default_limit_suits_every_network(self, backbone, kind):
        """A photograph of 24 megapixels is cut into tiles, whatever the network."""
        with torch.device("meta"):
            model = SegmentationNetwork(make_backbone(backbone), Layout(backbone, 21, kind))
        assert len(list(ImageSegmenter(model, torch.device("meta"), "float32").tiles(4000, 6000))) > 5

    def test_too_small_a_limit_is_told_with_the_figure(self):
        segmenter = make_segmenter("fcn32s", megapixels=0.01)
        side = segmenter.stride + 2 * segmenter.margin
        message = rf"600 x 700 pixels: fcn32s on tiny needs at least {side**2 / 1e6:.3g} megapixels .* the limit is 0\.01"
        with pytest.raises(PipelineError, match=message):
            segmenter.segment(np.zeros((700, 600, 3), np.uint8))
