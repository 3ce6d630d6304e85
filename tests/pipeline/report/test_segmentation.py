"""The pictures and tables of the report's section of semantic segmentation."""

import base64
import io

import numpy as np
from PIL import Image

from pipeline.report.segmentation import (
    choose_images,
    colour_of,
    confusion_rows,
    kernels_uri,
    largest_confusions,
    map_uri,
)


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_images_go_from_the_best_to_the_worst_without_those_of_void():
    histograms = np.int64([[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[2, 0], [0, 2]], [[0, 4], [0, 0]]])
    assert choose_images(histograms, 9) == [2, 0, 3]
    assert choose_images(histograms, 2) == [2, 3]
    assert choose_images(histograms[1:2], 2) == []


def test_a_map_keeps_the_palette_s_colours_when_it_is_shrunk():
    labels = np.zeros((300, 600), np.uint8)
    labels[:, 300:] = 15
    picture = decoded(map_uri(labels))
    assert picture.shape == (120, 240, 3)
    assert {tuple(colour) for colour in picture.reshape(-1, 3)} == {(0, 0, 0), (192, 128, 128)}
    assert colour_of(15) == "#c08080"


def test_confusions_are_shares_of_the_true_pixels():
    confusion = [[6, 2, 0], [1, 3, 0], [0, 0, 0]]
    rows = confusion_rows(confusion, ("a", "b", "c"))
    assert [(row["name"], row["pixels"], row["shares"]) for row in rows] == [("a", 8, [0.75, 0.25, 0]), ("b", 4, [0.25, 0.75, 0])]
    assert largest_confusions(confusion, ("a", "b", "c")) == [
        {"true": "a", "predicted": "b", "pixels": 2}, {"true": "b", "predicted": "a", "pixels": 1},
    ]


def test_kernels_are_grey_at_zero_and_white_at_the_largest():
    kernels = np.zeros((2, 4, 4))
    kernels[0, 0, 0], kernels[1, 3, 3] = 2, -2
    picture = decoded(kernels_uri(kernels))[..., 0]
    scale = picture.shape[0] // 4
    assert picture[0, 0] == 255
    assert picture[scale, scale] == 128
    assert picture[-1, -1] == 0
