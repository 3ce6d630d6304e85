import hashlib
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.digits import make_images
from pipeline.datasets.voc import read_split, split_files
from pipeline.errors import PipelineError
from pipeline.images import read_image
from pipeline.proposals import MIN_SIDE, merge_hierarchies, propose, select_boxes
from pipeline.proposals.package import _convert_colours, group_regions
from pipeline.proposals.recall import recall
from pipeline.seeding import make_generator

ROOT = Path(__file__).resolve().parents[3]


def draw_blocks(height: int, width: int, side: int = 30, seed: int = 0) -> np.ndarray:
    """A patchwork of flat blocks of random colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (-(-height // side), -(-width // side), 3), dtype=np.uint8)
    return colours.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]


def draws(image: np.ndarray, seed: int = 0, **settings) -> np.ndarray:
    return propose(image, generator=np.random.default_rng(seed), **settings)


class FixedDraw:
    """Stands for a generator whose random numbers are known."""

    def __init__(self, values):
        self.values = np.array(values)

    def random(self, size):
        assert size == len(self.values)
        return self.values


# --- order, minimum side, repetitions --------------------------------------------------------------------------------------


def test_hierarchies_merge_by_position_from_the_last_times_a_random_number():
    first = np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], float)
    second = np.array([[0, 0, 4, 4], [0, 0, 5, 5]], float)
    # Priorities: 3 x 0.5, 2 x 0.5, 1 x 0.5; 2 x 0.1, 1 x 0.9.
    merged = merge_hierarchies([first, second], FixedDraw([0.5, 0.5, 0.5, 0.1, 0.9]))
    assert merged[:, 2].tolist() == [4, 3, 5, 2, 1]


def test_no_hierarchy_and_an_empty_one_merge_to_nothing():
    generator = np.random.default_rng(0)
    assert merge_hierarchies([], generator).shape == (0, 4)
    assert merge_hierarchies([np.zeros((0, 4))], generator).shape == (0, 4)


def test_boxes_are_selected_in_order_without_short_sides_and_repetitions():
    boxes = np.array([
        [5, 5, 30, 30], [0, 0, 19, 50], [0, 0, 20, 20], [5, 5, 30, 30], [0, 0, 50, 19], [0, 0, 40, 40], [1, 0, 40, 40],
    ])
    selected = select_boxes(boxes, 3)
    assert selected.dtype == np.float32
    assert selected.tolist() == [[5, 5, 30, 30], [0, 0, 20, 20], [0, 0, 40, 40]]


# --- propose ---------------------------------------------------------------------------------------------------------------


def test_proposals_are_whole_different_boxes_inside_the_image():
    image = draw_blocks(131, 177)
    boxes = draws(image)
    assert len(boxes) > 20
    assert boxes.dtype == np.float32
    assert (boxes == np.rint(boxes)).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [177, 131]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all()


def test_fewer_boxes_are_the_most_wanted_ones():
    image = draw_blocks(120, 160)
    assert np.array_equal(draws(image, max_boxes=7), draws(image)[:7])


def test_the_generator_draws_the_order_and_nothing_else():
    image = draw_blocks(120, 160)
    boxes, again, other = draws(image, seed=1), draws(image, seed=1), draws(image, seed=2)
    assert boxes.tobytes() == again.tobytes()
    assert boxes.tobytes() != other.tobytes()
    assert {*map(tuple, boxes.tolist())} == {*map(tuple, other.tolist())}


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (300, 5), (19, 400)])
def test_an_image_with_a_side_under_the_minimum_has_no_proposals(shape):
    boxes = draws(draw_blocks(*shape))
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32


@pytest.mark.parametrize("shape", [(20, 20), (60, 80), (61, 333), (375, 500), (20, 5001)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_is_one_region_from_edge_to_edge(shape, value):
    image = np.full((*shape, 3), value, np.uint8)
    assert draws(image).tolist() == [[0, 0, shape[1], shape[0]]]


def test_grey_images_have_proposals():
    grey = draw_blocks(120, 160)[..., :1].repeat(3, axis=2)
    assert len(draws(grey)) > 10


def test_a_flat_block_is_found():
    image = np.full((120, 160, 3), 200, np.uint8)
    image[30:90, 40:110] = [30, 60, 160]
    boxes = draws(image)
    assert recall([boxes], [np.array([[40, 30, 110, 90]])], [0.9]) == 1


def test_a_large_image_costs_no_more_than_a_photograph_of_500_pixels():
    image = draw_blocks(1500, 2000, side=100)
    start = time.process_time()
    boxes = draws(image)
    assert time.process_time() - start < 10
    assert boxes[:, 2:].max(axis=0).tolist() == [2000, 1500]


def test_nothing_reaches_the_terminal(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws(draw_blocks(60, 80))
        draws(np.zeros((60, 80, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("image", "settings", "message"), [
    (np.zeros((40, 40, 3), np.uint8), {"backend": "edges"}, "'edges'; choose one of selectivesearch"),
    (np.zeros((40, 40, 3)), {}, r"uint8 RGB image \[H x W x 3\], not float64 \[40, 40, 3\]"),
    (np.zeros((40, 40), np.uint8), {}, r"not uint8 \[40, 40\]"),
    (np.zeros((40, 40, 4), np.uint8), {}, r"not uint8 \[40, 40, 4\]"),
    (np.zeros((40, 40, 3), np.uint8), {"max_boxes": 0}, "max_boxes is 0"),
])
def test_bad_input_is_named(image, settings, message):
    with pytest.raises(PipelineError, match=message):
        draws(image, **settings)


def test_boxes_do_not_depend_on_the_process():
    script = (
        "import hashlib, numpy as np; from pipeline.proposals import propose;"
        "image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1);"
        "boxes = propose(image, generator=np.random.default_rng(0));"
        "print(hashlib.sha256(boxes.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {hashlib.sha256(draws(draw_blocks(120, 160, side=20)).tobytes()).hexdigest()}


# --- the package -----------------------------------------------------------------------------------------------------------


def test_colour_spaces_by_hand():
    red, green, grey, black, white = [255, 0, 0], [0, 255, 0], [128, 128, 128], [0, 0, 0], [255, 255, 255]
    image = np.array([[red, green, grey, black, white]], np.uint8)
    assert _convert_colours(image, "hsv")[0, :3].tolist() == [[0, 255, 255], [85, 255, 255], [0, 0, 128]]
    assert _convert_colours(image, "hue")[0, :3].tolist() == [[0] * 3, [85] * 3, [0] * 3]
    assert _convert_colours(image, "lab")[0, 3:].tolist() == [[0, 128, 128], [255, 128, 128]]
    # L* a* b* of sRGB red, D65: 53.24, 80.09, 67.20.
    assert _convert_colours(image, "lab")[0, 0].tolist() == [136, 208, 195]
    assert _convert_colours(image, "rgi")[0].tolist() == [[255, 0, 85], [0, 255, 85], [85, 85, 128], [0] * 3, [85, 85, 255]]


def test_every_grouping_ends_in_its_largest_region():
    for boxes in group_regions(draw_blocks(120, 160)):
        assert len(boxes) > 10
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        assert area[-1] == area.max()


def test_the_embedded_digits_are_found():
    images = list(make_images("train", 4, seed=0))
    boxes = [propose(image.pixels, generator=make_generator(0, "proposals", image.id)) for image in images]
    assert recall(boxes, [image.boxes for image in images], [0.5]) == 1


@pytest.mark.slow
def test_merged_groupings_find_clearly_more_objects_of_photographs_than_any_one_of_them(shared):
    folder = shared / "datasets" / "voc5"
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in split_files(folder, "trainval")}
    images = read_split(folder, "trainval", None, digests).images[::25]
    truth = [image.boxes for image in images]
    photographs = [read_image(folder / image.path) for image in images]
    single = [recall(list(boxes), truth, [0.5])[0] for boxes in zip(*map(group_regions, photographs), strict=True)]
    merged = recall([draws(photograph) for photograph in photographs], truth, [0.5])[0]
    assert merged >= max(single) + 0.08, single
