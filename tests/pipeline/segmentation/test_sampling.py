"""What a step is trained on: pixels and labels that lie on each other, and pixels that are drawn for patches."""

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_inputs import ImageDraw
from pipeline.segmentation.sampling import Examples, draw_pixels, network_input

VIEW = make_backbone("tiny").view


def examples(labelled, **settings):
    records, pixels, maps = labelled
    values = {"view": VIEW, "seed": 3, "images_a_step": 2, "mirror": True, "light": False, **settings}
    return Examples(records, lambda record: pixels[int(record.id)], lambda record: maps[int(record.id)], **values)


class TestExamples:
    def test_pixels_are_the_images_own(self, labelled):
        """Not resized and without a border: each pixel is normalised alone."""
        image = labelled[1][0]
        values = network_input(image, VIEW)
        expected = (image.astype(np.float32) - np.array(VIEW.norm.mean)) / np.array(VIEW.norm.std)
        np.testing.assert_allclose(values[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3)])
    def test_images_of_few_pixels(self, size):
        assert network_input(np.zeros((*size, 3), np.uint8), VIEW).shape == (1, 3, *size)

    def test_labels_are_mirrored_with_the_pixels(self, labelled):
        plain, mirrored = (examples(labelled).example(ImageDraw(0, mirror, 0)) for mirror in (False, True))
        assert torch.equal(plain.labels.flip(2), mirrored.labels)
        torch.testing.assert_close(plain.pixels.flip(3), mirrored.pixels)
        assert not torch.equal(plain.labels, mirrored.labels)

    def test_a_round_has_each_image_and_its_mirror_once(self, labelled):
        drawn = [example.turn for step in range(6) for example in examples(labelled).step(step)]
        assert {(turn.number, turn.mirrored) for turn in drawn} == {(number, mirror) for number in range(6) for mirror in (0, 1)}

    def test_a_step_is_the_same_wherever_training_begins(self, labelled):
        source = examples(labelled, light=True)
        ahead = source.ahead(1)
        first = next(ahead)
        ahead.close()
        for example, expected in zip(first, examples(labelled, light=True).step(1), strict=True):
            assert torch.equal(example.pixels, expected.pixels)
            assert torch.equal(example.labels, expected.labels)

    def test_light_changes_pixels_and_not_labels(self, labelled):
        lit, plain = (examples(labelled, light=light).step(0)[0] for light in (True, False))
        assert torch.equal(lit.labels, plain.labels)
        assert not torch.allclose(lit.pixels, plain.pixels)

    def test_no_image_is_an_error(self, labelled):
        with pytest.raises(PipelineError, match="no training image has a label map"):
            examples(([], [], []))

    def test_a_label_map_of_another_size_is_an_error(self, labelled):
        records, pixels, maps = labelled
        with pytest.raises(PipelineError, match="image 0: the label map is 80 x 59, the image 80 x 60"):
            examples((records, pixels, [each[1:] for each in maps])).example(ImageDraw(0, False, 0))


class TestPixels:
    LABELS = np.array([[0, 0, 0, 255], [0, 1, 0, 255], [0, 0, 2, 255]], np.uint8)

    def test_void_is_never_drawn(self):
        drawn = draw_pixels(self.LABELS, 500, None, np.random.default_rng(0))
        assert drawn.shape == (500, 2)
        assert {tuple(place) for place in drawn.tolist()} == {(y, x) for y in range(3) for x in range(3)}

    def test_weights_make_classes_come_more_often(self):
        """Classes 1 and 2 have one pixel each and the background 7: with weights 1/7, 1 and 2 they come in shares 1 : 1 : 2."""
        drawn = draw_pixels(self.LABELS, 4000, np.array([1 / 7, 1.0, 2.0]), np.random.default_rng(0))
        counts = np.bincount(self.LABELS[tuple(drawn.T)], minlength=3)
        np.testing.assert_allclose(counts / 4000, [0.25, 0.25, 0.5], atol=0.03)

    def test_void_alone_has_no_pixels(self):
        assert draw_pixels(np.full((3, 4), 255, np.uint8), 5, None, np.random.default_rng(0)).shape == (0, 2)

    def test_classes_without_weight_have_none(self):
        labels = np.zeros((3, 4), np.uint8)
        assert draw_pixels(labels, 5, np.array([0.0, 1.0]), np.random.default_rng(0)).shape == (0, 2)
