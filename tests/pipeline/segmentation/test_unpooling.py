"""The decoder that mirrors its encoder: sizes, the four ways, remembered places, statistics of batch normalisation."""

import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.segmentation.layout import UNPOOL, WAYS, Layout
from pipeline.segmentation.pooled_encoder import PooledEncoder
from pipeline.segmentation.unpooling import ImageNorm, NormalisedConvolution, Unpooling

POOLED = ("tiny", "squeezenet1_0", "alexnet", "vgg16")


def meta_backbone(name):
    with torch.device("meta"):
        return make_backbone(name)


class TestEncoder:
    def test_vgg16_is_segnets(self):
        """13 convolutions in five stages, each with its pooling; the decoder has 26 - 13 of its own."""
        encoder = PooledEncoder(meta_backbone("vgg16"))
        assert [(stage.convolutions, stage.channels) for stage in encoder.stages] == [
            (2, 64), (2, 128), (3, 256), (3, 512), (3, 512)
        ]
        assert (encoder.last, encoder.border, encoder.stride) == (0, 0, 32)
        with torch.device("meta"):
            decoder = Unpooling(meta_backbone("vgg16"), Layout("vgg16", 11, "unpooling", UNPOOL))
        sizes = [[(conv[0].in_channels, conv[0].out_channels) for conv in stage] for stage in decoder.decoders]
        assert sizes == [
            [(512, 512)] * 3, [(512, 512)] * 2 + [(512, 256)], [(256, 256)] * 2 + [(256, 128)], [(128, 128), (128, 64)],
            [(64, 64)],
        ]
        assert (decoder.scores.in_channels, decoder.scores.out_channels) == (64, 11)

    def test_sizes_of_camvid(self):
        """360 x 480: maps of 180 x 240, 90 x 120, 45 x 60, 23 x 30, 12 x 15; unpooling is told the odd ones."""
        backbone = meta_backbone("vgg16")
        encoded = PooledEncoder(backbone).encode(backbone, torch.zeros(1, 3, 360, 480, device="meta"), True)
        assert encoded.sizes == ((360, 480), (180, 240), (90, 120), (45, 60), (23, 30))
        assert tuple(encoded.deepest.shape[2:]) == (12, 15)

    def test_tiny_by_hand(self):
        """The first convolution has stride 2, and has only the image before it."""
        encoder = PooledEncoder(make_backbone("tiny"))
        assert [(stage.convolutions, stage.channels) for stage in encoder.stages] == [(1, 16), (1, 32), (1, 64)]
        assert (encoder.last, encoder.channels, encoder.stride, encoder.finest.stride) == (2, 128, 16, 2)

    def test_fire_modules_have_the_channels_of_both_branches(self):
        encoder = PooledEncoder(meta_backbone("squeezenet1_0"))
        assert [stage.channels for stage in encoder.stages] == [96, 256, 512]
        assert encoder.channels == 512

    def test_strided_blocks_count_as_poolings(self):
        encoder = PooledEncoder(meta_backbone("efficientnet_lite0"))
        assert [(stage.channels, stage.pooling.stride) for stage in encoder.stages] == [(16, 2), (24, 2), (40, 2)]


class TestSizes:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("name", [*POOLED, "efficientnet_lite0"])
    def test_scores_are_as_large_as_images(self, name, way):
        if (name, way) == ("efficientnet_lite0", UNPOOL):
            with pytest.raises(PipelineError, match="no max pooling"):
                Layout(name, 3, "unpooling", way)
            return
        with torch.device("meta"):
            backbone = make_backbone(name)
            decoder = Unpooling(backbone, Layout(name, 3, "unpooling", way)).eval()
            for size in (1, 1), (17, 40), (61, 33):
                assert decoder.decode(decoder.encode(backbone, torch.zeros(1, 3, *size), False), size).shape == (1, 3, *size)

    def test_all_ways_have_the_same_convolutions(self):
        backbone = make_backbone("tiny")
        shapes = {
            way: [part.weight.shape for part in Unpooling(backbone, Layout("tiny", 3, "unpooling", way)).modules()
                  if isinstance(part, nn.Conv2d)] for way in WAYS
        }
        assert all(each == shapes[UNPOOL] for each in shapes.values())


def passing(decoder):
    """Makes all convolutions of a decoder pass their first channels on, and leaves out its normalisation."""
    for convolution in (part for part in decoder.modules() if isinstance(part, NormalisedConvolution)):
        nn.init.dirac_(convolution[0].weight)
        convolution[1] = nn.Identity()
    nn.init.dirac_(decoder.scores.weight)
    return decoder.eval()


class TestPlaces:
    def decoded(self, backbone, way, image):
        decoder = passing(Unpooling(backbone, Layout("vgg16", 3, "unpooling", way)))
        return decoder.decode(decoder.encode(backbone, image, False), tuple(image.shape[2:]))[0]

    @pytest.fixture
    def backbone(self):
        """VGG-16's geometry with convolutions that pass the image on, so that its last map has the image's maxima."""
        with torch.device("meta"):
            backbone = make_backbone("vgg16")
        backbone.trunk = nn.Sequential(*(
            nn.Conv2d(3 if number == 0 else 8, 8, 3, padding=1) if isinstance(module, nn.Conv2d) else module
            for number, module in enumerate(backbone.trunk)
        ))
        for module in backbone.trunk:
            if isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight)
                nn.init.zeros_(module.bias)
        return backbone

    def test_unpooling_puts_a_maximum_back_to_its_pixel(self, backbone):
        """A bright pixel in an image of odd sides comes back where it was, and nothing else does."""
        for place in (0, 0), (20, 44), (36, 50), (17, 3):
            image = torch.zeros(1, 3, 37, 51)
            image[0, 1, *place] = 7
            scores = self.decoded(backbone, UNPOOL, image)
            expected = torch.zeros(37, 51)
            expected[place] = 7
            assert torch.equal(scores[1], expected)

    def test_bed_of_nails_puts_it_at_the_corner_of_its_block(self, backbone):
        image = torch.zeros(1, 3, 64, 64)
        image[0, 1, 45, 20] = 7
        scores = self.decoded(backbone, "bed-of-nails", image)
        assert scores[1].nonzero().tolist() == [[32, 0]]

    def test_nearest_fills_its_block(self, backbone):
        image = torch.zeros(1, 3, 64, 64)
        image[0, 1, 45, 20] = 7
        scores = self.decoded(backbone, "nearest", image)
        expected = torch.zeros(64, 64)
        expected[32:, :32] = 7
        assert torch.equal(scores[1], expected)

    def test_transposed_is_brightest_around_the_middle_of_the_block(self, backbone):
        image = torch.zeros(1, 3, 96, 96)
        image[0, 1, 45, 40] = 7
        scores = self.decoded(backbone, "transposed", image)[1].detach()
        torch.testing.assert_close(scores, scores.flip(0, 1))
        assert scores[47, 47] == scores.max() > 3 > scores[20, 20]


class TestNormalisation:
    @pytest.mark.parametrize("training", [True, False])
    def test_each_channel_of_each_image_has_mean_0_and_deviation_1(self, training):
        """By hand: 1, 3, 5, 7 have mean 4 and variance 5."""
        norm = ImageNorm(2).train(training)
        values = torch.tensor([[1.0, 3, 5, 7], [10, 10, 30, 30]]).reshape(2, 1, 2, 2).repeat(1, 2, 1, 1)
        expected = torch.tensor([[-3, -1, 1, 3], [-(5**0.5), -(5**0.5), 5**0.5, 5**0.5]]).reshape(2, 1, 2, 2) / 5**0.5
        torch.testing.assert_close(norm(values), expected.repeat(1, 2, 1, 1), atol=1e-4, rtol=0)

    def test_a_single_cell_keeps_its_values(self):
        values = torch.randn(1, 2, 1, 1)
        torch.testing.assert_close(ImageNorm(2)(values), values)

    def test_a_convolution_stands_between_the_last_upsampling_and_the_scores(self):
        for name in "tiny", "vgg16", "squeezenet1_0":
            with torch.device("meta"):
                decoder = Unpooling(make_backbone(name), Layout(name, 3, "unpooling", UNPOOL))
            assert len(decoder.decoders[-1]) == 1, "SegNet with VGG-16 has one, too"
