"""Whole images: scaling by hand, the network's input against a slow version, and where the cells of each backbone's map look."""

import functools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torchvision.ops import SqueezeExcitation

from pipeline.networks.backbones import IMAGENET, MapView, make_backbone
from pipeline.networks.compute import for_inference
from pipeline.networks.variants import NAMES
from pipeline.networks.whole_images import Scaling, conv_map, image_tensor, mirror_boxes, rois_of
from tests.tiers import examples

pytestmark = pytest.mark.usefixtures("one_thread")
CPU, META = torch.device("cpu"), torch.device("meta")
SMALLEST = 16  # the side that is framed at least


def random_pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_it_is(height, width):
    return Scaling((height, width), (1.0, 1.0))


def slow_input(pixels, size, border, mirror):
    """Pixel centres lie on halves; what lies outside the outermost centres has their value."""
    shares = []
    for before, after in zip(pixels.shape, size):
        share = np.zeros((after, before))
        for i in range(after):
            place = min(max((i + 0.5) * before / after - 0.5, 0), before - 1)
            share[i, math.floor(place)] += 1 - place % 1
            share[i, math.ceil(place)] += place % 1
        shares.append(share)
    values = (np.einsum("yi,xj,ijc->yxc", *shares, pixels.astype(float)) - IMAGENET.mean) / IMAGENET.std
    framed = np.zeros((*(max(SMALLEST, side + 2 * border) for side in size), 3))
    framed[border : border + size[0], border : border + size[1]] = values[:, ::-1] if mirror else values
    return framed.transpose(2, 0, 1)[None]


class TestScaling:
    @pytest.mark.parametrize(
        ("height", "width", "shorter", "longest", "size"),
        [
            (300, 400, 600, 1000, (600, 800)),
            (400, 300, 600, 1000, (800, 600)),
            (300, 600, 600, 1000, (500, 1000)),  # the longer side stops it
            (1200, 900, 600, 1000, (800, 600)),  # smaller
            (300, 500, 600, 1000, (600, 1000)),  # both limits at once
            (333, 500, 600, 1000, (600, 901)),  # 900.9
            (499, 1000, 600, 700, (349, 700)),  # 349.3
            (2, 7, 3, 99, (3, 10)),  # 10.5, which rounds to the even number as in OpenCV
            (2, 5, 3, 99, (3, 8)),  # 7.5
            (1, 1, 600, 1000, (600, 600)),
            (1, 1, 600, 100, (100, 100)),
            (1, 5000, 600, 1000, (1, 1000)),  # a fifth of a pixel
            (5000, 1, 600, 1000, (1000, 1)),
        ],
    )
    def test_by_hand(self, height, width, shorter, longest, size):
        scaling = Scaling.of(height, width, shorter, longest)
        assert scaling == Scaling(size, (size[1] / width, size[0] / height))
        assert all(type(side) is int for side in scaling.size)

    @given(*[st.integers(1, 3000)] * 2, st.integers(1, 1200), st.integers(1, 2000))
    def test_sides_are_the_nearest_whole_numbers_above_zero(self, height, width, shorter, longest):
        scaling = Scaling.of(height, width, shorter, longest)
        for before, after in zip((height, width), scaling.size):
            exact = min(Fraction(shorter * before, min(height, width)), Fraction(longest * before, max(height, width)))
            assert abs(after - exact) <= 0.5 + 1e-9 or (after == 1 and exact < 0.5)
        assert scaling.factors == (scaling.size[1] / width, scaling.size[0] / height)

    def test_the_whole_image_becomes_the_whole_scaled_image(self):
        scaling = Scaling.of(333, 500, 600, 1000)
        np.testing.assert_allclose(scaling.apply(np.float32([[0, 0, 500, 333]])), [[0, 0, 901, 600]])

    def test_apply_by_hand(self):
        scaling = Scaling((30, 200), (2.0, 0.5))
        boxes = np.float32([[10, 20, 30, 40], [-3, -5, 1, 3]])
        scaled = scaling.apply(boxes)
        assert (scaled.tolist(), scaled.dtype) == ([[20, 10, 60, 20], [-6, -2.5, 2, 1.5]], np.float32)
        assert boxes[0].tolist() == [10, 20, 30, 40]
        assert scaling.apply(boxes[:0]).shape == (0, 4)


class TestInput:
    @settings(deadline=None, max_examples=examples(60))
    @given(*[st.integers(1, 9)] * 2, *[st.integers(1, 40)] * 2, st.sampled_from([0, 7, 17]), st.booleans(), st.integers(0, 999))
    def test_is_the_slow_version(self, height, width, rows, columns, border, mirror, seed):
        pixels = random_pixels(height, width, seed)
        scaling = Scaling((rows, columns), (columns / width, rows / height))
        tensor = image_tensor(pixels, scaling, MapView(1, border=border), CPU, mirror=mirror)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(tensor.numpy(), slow_input(pixels, (rows, columns), border, mirror), atol=1e-4)

    @pytest.mark.parametrize("mirror", [False, True])
    def test_light_changes_the_image_and_not_its_border(self, mirror):
        gain, offset = np.float32([0.5, -1.5, 1.2]), np.float32([0.3, -0.2, 0.7])
        pixels, scaling = random_pixels(20, 33), Scaling.of(20, 33, 30, 1000)
        tensor = image_tensor(pixels, scaling, MapView(1, border=7), CPU, mirror=mirror, light=(gain, offset)).numpy()[0]
        plain = image_tensor(pixels, scaling, MapView(1, border=7), CPU, mirror=mirror).numpy()[0]
        np.testing.assert_allclose(
            tensor[:, 7:-7, 7:-7], plain[:, 7:-7, 7:-7] * gain[:, None, None] + offset[:, None, None], atol=1e-5
        )
        assert np.abs(tensor).sum() == pytest.approx(np.abs(tensor[:, 7:-7, 7:-7]).sum())

    def test_by_hand(self):
        """One white pixel, normalised, after a border of two; all else is 0, what fills up to a cell too."""
        tensor = image_tensor(np.full((1, 1, 3), 255, np.uint8), as_it_is(1, 1), MapView(1, border=2), CPU)
        assert tensor.shape == (1, 3, 16, 16)
        np.testing.assert_allclose(tensor[0, :, 2, 2], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-5)
        assert int((tensor != 0).sum()) == 3

    @pytest.mark.parametrize(("height", "width", "size"), [(9, 14, (9, 14)), (9, 14, (31, 50)), (20, 33, (17, 12))])
    def test_mirroring_is_that_of_the_image(self, height, width, size):
        pixels, scaling = random_pixels(height, width), Scaling(size, (size[1] / width, size[0] / height))
        before = pixels.copy()
        tensor = image_tensor(pixels, scaling, MapView(1, border=7), CPU, mirror=True)
        expected = image_tensor(pixels[:, ::-1].copy(), scaling, MapView(1, border=7), CPU)
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(pixels, before)

    def test_shrinking_does_not_smooth(self):
        """Of eight columns the bilinear values at 1.5 and 5.5 alone: the second and third, the sixth and seventh."""
        pixels = np.zeros((1, 8, 3), np.uint8)
        pixels[0, :, 0] = [90, 10, 30, 90, 90, 50, 70, 90]
        tensor = image_tensor(pixels, Scaling((1, 2), (0.25, 1.0)), MapView(1, border=0), CPU)[0, 0, 0, :2]
        np.testing.assert_allclose(tensor * IMAGENET.std[0] + IMAGENET.mean[0], [20, 60], atol=1e-3)


def linear(module):
    """`module` with averages for maxima, nothing for ReLU, and equal weights: what a cell is then, is linear in the pixels."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish | SqueezeExcitation):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        else:
            linear(child)
            for parameter in child.parameters(recurse=False):
                nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.ndim > 1 else 0)
            for name, value in child.named_buffers(recurse=False):
                nn.init.constant_(value, name == "scale")
    return module


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return for_inference(make_backbone("tiny"), CPU, "float32")


@functools.cache
def without_weights(name):
    with META:
        return make_backbone(name).eval()


class TestMap:
    @pytest.mark.parametrize("name", [  # the larger ones have nothing that resnet18 and alexnet have not
        pytest.param(name, marks=pytest.mark.exhaustive) if name in ("resnet50", "resnet101", "vgg16") else name for name in NAMES
    ])
    def test_cells_look_at_every_sixteenth_pixel(self, name):
        """The middle of what cell i sees, from its gradients: 16 i + `centre`, 0 but for VGG-16."""
        with META:
            backbone = make_backbone(name).eval()
        linear(backbone.trunk.to_empty(device=CPU))
        pixels, scaling = np.zeros((16, 1024, 3), np.uint8), as_it_is(16, 1024)
        for turned in (False, True):
            images = image_tensor(pixels, scaling, backbone.view, CPU)
            images = (images.transpose(2, 3) if turned else images).requires_grad_()
            cells = backbone.trunk(images)[0].double().sum(0)
            for cell in (31, 32, 33):  # of 64: far from the borders
                value = cells[cell, 0] if turned else cells[0, cell]
                (weights,) = torch.autograd.grad(value, images, retain_graph=True)
                weights = weights.double().sum((0, 1, 3 if turned else 2))
                centre = (weights * torch.arange(len(weights))).sum() / weights.sum() - backbone.view.border
                assert float(centre) == pytest.approx(16 * cell + backbone.view.centre, abs=0.05)
        assert backbone.view.centre == (7.5 if name == "vgg16" else 0)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 300), (300, 5), (16, 16), (17, 33)])
    def test_the_smallest_images_have_a_cell_and_larger_ones_one_in_sixteen_pixels(self, name, height, width):
        backbone = without_weights(name)
        channels, *size = conv_map(backbone, random_pixels(height, width), as_it_is(height, width), META).shape
        assert channels == backbone.view.channels
        for side, cells in zip((height, width), size):
            assert max(1, side // 16) <= cells <= max(1, math.ceil((side + 15) / 16))

    def test_is_what_the_trunk_makes_of_the_input(self, tiny):
        pixels, scaling = random_pixels(40, 60), Scaling.of(40, 60, 64, 1000)
        with torch.inference_mode():
            for mirror in (False, True):
                expected = tiny.trunk(image_tensor(pixels, scaling, tiny.view, CPU, mirror=mirror))
                assert torch.equal(conv_map(tiny, pixels, scaling, CPU, mirror=mirror), expected[0])
            mirrored = conv_map(tiny, pixels[:, ::-1].copy(), scaling, CPU)
            torch.testing.assert_close(conv_map(tiny, pixels, scaling, CPU, mirror=True), mirrored, rtol=0, atol=1e-4)
            assert mirrored.shape == (128, 4, 6)

    def test_has_the_precision_of_the_weights(self, tiny):
        pixels, scaling = random_pixels(40, 60), as_it_is(40, 60)
        with torch.inference_mode():
            expected = conv_map(tiny, pixels, scaling, CPU)
            cells = conv_map(for_inference(tiny, CPU, "bfloat16"), pixels, scaling, CPU)
        assert cells.dtype == torch.bfloat16
        torch.testing.assert_close(cells.float(), expected, rtol=0.05, atol=0.05 * float(expected.max()))


class TestRegions:
    def test_rois_are_scaled_inclusive_corners(self):
        scaling = Scaling((30, 200), (2.0, 0.5))
        rois = rois_of(np.array([[10, 20, 31, 41], [0, 0, 1, 1]]), scaling)
        assert (rois.tolist(), rois.dtype) == ([[20, 10, 60, 20], [0, 0, 0, 0]], np.float32)
        assert rois_of(np.zeros((0, 4), np.float32), scaling).shape == (0, 4)

    def test_mirrored_boxes_by_hand(self):
        boxes = np.float32([[0, 1, 3, 4], [2, 0, 10, 9], [-3, 0, 15, 9]])
        mirrored = mirror_boxes(boxes, 10)
        assert (mirrored.tolist(), mirrored.dtype) == ([[7, 1, 10, 4], [0, 0, 8, 9], [-5, 0, 13, 9]], np.float32)
        assert mirror_boxes(boxes[:0], 10).shape == (0, 4)

    @given(hnp.arrays(np.int64, (5, 4), elements=st.integers(-5, 15)), st.integers(1, 12))
    def test_mirrored_boxes_hold_the_mirrored_pixels(self, boxes, width):
        def pixels(box):
            y, x = np.mgrid[:10, :width]
            return (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])

        for box, mirrored in zip(boxes, mirror_boxes(boxes, width)):
            np.testing.assert_array_equal(pixels(mirrored), pixels(box)[:, ::-1])

    @given(hnp.arrays(np.float32, (5, 4), elements=st.integers(-4000, 4000).map(lambda n: n / 4)), st.integers(1, 1000))
    def test_mirroring_twice_is_nothing_and_once_keeps_sizes(self, boxes, width):
        mirrored = mirror_boxes(boxes, width)
        np.testing.assert_array_equal(mirror_boxes(mirrored, width), boxes)
        np.testing.assert_array_equal(mirrored[:, 2:] - mirrored[:, :2], boxes[:, 2:] - boxes[:, :2])
        np.testing.assert_array_equal(mirrored[:, 1::2], boxes[:, 1::2])
