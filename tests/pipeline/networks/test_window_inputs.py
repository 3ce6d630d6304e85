"""Windows of images as a network's input."""

import numpy as np
import torch

from pipeline.images.resampling import resample
from pipeline.networks.backbones import IMAGENET
from pipeline.networks.window_inputs import as_input, crop, crop_batch, whole_pixels


def test_a_whole_image_is_resized_to_the_square():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    expected = np.empty((1, 32, 32, 3), np.float32)
    geometry = np.array([[0, 0, 80, 60]]), np.array([[0, 0]]), np.array([[32, 32]])
    resample(pixels, geometry, np.array([False]), expected, mean=IMAGENET.mean, std=IMAGENET.std)
    assert np.array_equal(crop(pixels, np.array([[0, 0, 80, 60]]), np.array([False]), 32, IMAGENET), expected)


def test_a_crop_shows_the_window_and_zeros_beside_the_image():
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[5:15, 5:10] = 255
    windows = np.array([[5, 5, 15, 15], [-10, 0, 10, 20], [40, 40, 50, 50]])
    left, outside, beside = crop(pixels, windows, np.array([False, False, False]), 20, IMAGENET)
    assert left[:, :8].min() > 2
    assert left[:, 12:].max() < -1.5
    assert not outside[:, :10].any()
    assert outside[:, 10:].all()
    assert beside.shape == (20, 20, 3)  # a window without a pixel of the image shows the nearest
    mirrored = crop(pixels, windows[:1], np.array([True]), 20, IMAGENET)[0]
    np.testing.assert_array_equal(mirrored, left[:, ::-1])


def test_windows_in_whole_pixels_are_never_empty():
    assert whole_pixels(np.array([[1.5, 1.4, 1.6, 9.5]])).tolist() == [[2, 1, 3, 10]]


def test_a_batch_has_the_crops_of_its_images_in_order(make_record):
    pixels = [np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8) for number in range(2)]
    records, reads = [make_record(str(number)) for number in range(2)], []

    def read(record):
        reads.append(record.id)
        return pixels[int(record.id)]

    numbers, mirrored = np.array([1, 0, 1]), np.array([False, True, True])
    windows = np.array([[0, 0, 20, 20], [5, 5, 40, 30], [-5, 0, 20, 30]])
    values = crop_batch(records, read, numbers, windows, mirrored, side=16, norm=IMAGENET)
    for row, number in enumerate(numbers):
        own = slice(row, row + 1)
        np.testing.assert_array_equal(values[own], crop(pixels[number], windows[own], mirrored[own], 16, IMAGENET))
    assert sorted(reads) == ["0", "1"]
    assert torch.equal(as_input(values, torch.device("cpu")), torch.from_numpy(values.transpose(0, 3, 1, 2)))
