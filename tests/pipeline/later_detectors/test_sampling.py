"""What a step of training sees: images, boxes and masks, whole, mirrored and augmented."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.datasets.instances import masked_images, object_masks, object_values
from pipeline.datasets.records import ImageRecord, MaskFile
from pipeline.later_detectors.augmentation import Sample, augment, crop, distort, draw_patch, expand
from pipeline.later_detectors.sampling import DetectionBatches, Sources, Views
from pipeline.networks.backbones import IMAGENET
from pipeline.networks.map_inputs import ImageDraw

BOXES = np.array([[2, 1, 6, 5], [7, 2, 9, 4]], np.float32)


def record(**values) -> ImageRecord:
    return ImageRecord("a", "a.png", "0", 10, 6, BOXES, np.array([3, 1]), np.array([False, True]), **values)


def instances() -> np.ndarray:
    """The first object has the number 2, the second 1; a void border."""
    mask = np.zeros((6, 10), np.uint8)
    mask[1:5, 2:6], mask[2:4, 7:9], mask[0, :] = 2, 1, 255
    return mask


def batches(views=None, image=None, masks=False, **settings) -> DetectionBatches:
    pixels = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)
    sources = Sources(lambda record: pixels, (lambda record: instances()) if masks else None)
    given = {"images_a_step": 1, "seed": 0, "norm": IMAGENET, **settings}
    return DetectionBatches([image or record()], sources, views or Views(False), **given)


class TestBatches:
    def test_plain(self):
        image, target = batches().view(ImageDraw(0, False, 0))
        assert image.shape == (3, 6, 10)
        assert float(image[2, 1, 0]) == pytest.approx(32 / 255)
        assert target["boxes"].tolist() == BOXES[:1].tolist()  # the difficult object is left out
        assert target["labels"].tolist() == [4]

    def test_difficult_objects_where_they_train(self):
        target = batches(trains_on_difficult=True).view(ImageDraw(0, False, 0))[1]
        assert target["labels"].tolist() == [4, 2]

    def test_mirrored(self):
        plain, target = batches(masks=True).view(ImageDraw(0, False, 0))
        mirrored, mirrored_target = batches(masks=True).view(ImageDraw(0, True, 0))
        torch.testing.assert_close(mirrored, plain.flip(2))
        assert mirrored_target["boxes"].tolist() == [[4, 1, 8, 5]]
        torch.testing.assert_close(mirrored_target["masks"], target["masks"].flip(2))

    def test_an_image_without_objects_is_background(self):
        image = replace(record(), difficult=np.array([True, True]))
        target = batches(image=image).view(ImageDraw(0, False, 0))[1]
        assert target["boxes"].shape == (0, 4)
        assert target["labels"].dtype == torch.int64

    def test_a_step_is_the_same_wherever_the_run_began(self):
        sampler = batches(Views(True, True, True))
        first = sampler.batch(2)
        from_two = next(sampler(2))
        for left, right in zip(first[0], from_two[0], strict=True):
            assert torch.equal(left, right)
        assert not torch.equal(sampler.batch(3)[0][0], first[0][0]) or sampler.batch(3)[0][0].shape != first[0][0].shape

    def test_light_changes_values_alone(self):
        plain, lit = (batches(Views(False, light)).view(ImageDraw(0, False, 0)) for light in (False, True))
        assert plain[0].shape == lit[0].shape
        assert not torch.allclose(plain[0], lit[0])
        torch.testing.assert_close(plain[1]["boxes"], lit[1]["boxes"])


class TestMasks:
    def test_values_follow_boxes_not_numbers(self):
        assert object_values(instances(), BOXES).tolist() == [2, 1]
        assert object_values(instances(), BOXES[1:]).tolist() == [1]

    def test_masks_by_hand(self):
        masks = object_masks(instances(), BOXES[:1])
        assert masks.sum() == 16
        assert masks[0, 1:5, 2:6].all()

    def test_object_without_a_mask(self):
        boxes = np.array([[0, 0, 2, 2]], np.float32)
        assert object_values(instances(), boxes).tolist() == [0]
        assert not object_masks(instances(), boxes).any()
        assert object_masks(instances(), np.zeros((0, 4))).shape == (0, 6, 10)

    def test_images_with_a_mask_of_each_object(self):
        masked = record(instance_mask=MaskFile("a.png", "0"))
        lacking = replace(masked, boxes=np.array([[0, 0, 2, 2], [7, 2, 9, 4]], np.float32))
        assert masked_images([record(), masked, lacking], lambda record: instances()) == [1]


class TestAugmentation:
    def sample(self) -> Sample:
        generator = np.random.default_rng(0)
        boxes = np.array([[10, 10, 40, 30], [50, 20, 70, 60]], np.float32)
        return Sample(generator.random((80, 100, 3), np.float32), boxes, np.arange(2))

    def test_crop_by_hand(self):
        """The second object's centre is outside; of the first what is inside stays."""
        cropped = crop(self.sample(), np.array([20, 5, 55, 60]))
        assert cropped.pixels.shape == (55, 35, 3)
        assert cropped.boxes.tolist() == [[0, 5, 20, 25]]
        assert cropped.objects.tolist() == [0]

    def test_patches_overlap_as_asked(self):
        boxes = self.sample().boxes
        for seed in range(20):
            patch = draw_patch(boxes, 80, 100, 0.3, np.random.default_rng(seed))
            if patch is None:
                continue
            x1, y1, x2, y2 = patch
            assert 0 <= x1 < x2 <= 100
            assert 0 <= y1 < y2 <= 80
            inside = np.minimum(boxes[:, 2:], (x2, y2)) - np.maximum(boxes[:, :2], (x1, y1))
            common = np.maximum(inside, 0).prod(axis=1)
            union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (x2 - x1) * (y2 - y1) - common
            assert (common / union).max() >= 0.3

    def test_expanded_images_keep_their_pixels(self):
        sample, mean = self.sample(), np.array([0.1, 0.2, 0.3])
        sizes = set()
        for seed in range(10):
            larger = expand(sample, mean, np.random.default_rng(seed))
            sizes.add(larger.pixels.shape)
            x1, y1, x2, y2 = larger.boxes[0].astype(int)
            np.testing.assert_array_equal(larger.pixels[y1:y2, x1:x2], sample.pixels[10:30, 10:40])
        assert (80, 100, 3) in sizes
        assert max(size[0] for size in sizes) > 120

    def test_colours_stay_in_range(self):
        for seed in range(8):
            pixels = distort(self.sample().pixels, np.random.default_rng(seed))
            assert pixels.dtype == np.float32
            assert 0 <= pixels.min() <= pixels.max() <= 1

    def test_whole(self):
        for seed in range(8):
            sample = augment(self.sample(), np.zeros(3), np.random.default_rng(seed))
            height, width = sample.pixels.shape[:2]
            assert len(sample.boxes) == len(sample.objects)
            assert (sample.boxes >= 0).all()
            assert (sample.boxes <= (width, height, width, height)).all()

    def test_without_objects(self):
        empty = self.sample()._replace(boxes=np.zeros((0, 4), np.float32), objects=np.zeros(0, int))
        assert augment(empty, np.zeros(3), np.random.default_rng(0)).boxes.shape == (0, 4)
