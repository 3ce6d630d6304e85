"""What every method of proposals has in common, and the packages' own."""

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
from pipeline.errors import PipelineError
from pipeline.proposals import METHODS, OWN
from pipeline.proposals.package import _convert_colours, group_regions
from pipeline.proposals.propose import propose
from pipeline.proposals.recall import measure_quality
from pipeline.proposals.selective_search import MODES
from pipeline.seeding import make_generator

ROOT = Path(__file__).resolve().parents[3]


def has_opencv() -> bool:
    try:
        import cv2

        return hasattr(cv2, "ximgproc")
    except ImportError:
        return False


needs_opencv = pytest.mark.skipif(not has_opencv(), reason="needs OpenCV with its contributed modules")
every_method = pytest.mark.parametrize(
    "method", [pytest.param(method, marks=[needs_opencv] if method.startswith("opencv") else []) for method in METHODS]
)


def draw_blocks(height: int, width: int, side: int = 30, seed: int = 0) -> np.ndarray:
    """A patchwork of flat blocks of random colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (-(-height // side), -(-width // side), 3), dtype=np.uint8)
    return colours.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]


def best_overlaps(boxes: np.ndarray, objects: list) -> np.ndarray:
    """Recall at the ten thresholds."""
    objects = np.array(objects, np.float32)
    return measure_quality([boxes], [objects], [np.zeros(len(objects), int)], 1).recalls[-1]


def test_our_modes_are_named():
    assert set(OWN) == set(MODES) < set(METHODS)


@every_method
class TestEveryMethod:
    def test_boxes_are_whole_different_inside_and_not_too_small(self, method):
        boxes = propose(draw_blocks(131, 177), method, 2000, 0)
        assert len(boxes) > 20
        assert boxes.dtype == np.float32
        assert (boxes == np.rint(boxes)).all()
        assert len(np.unique(boxes, axis=0)) == len(boxes)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= [177, 131]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= (12 if method == "balanced" else 20)).all()

    def test_fewer_boxes_are_the_most_wanted_ones(self, method):
        image = draw_blocks(120, 160)
        assert np.array_equal(propose(image, method, 7, 0), propose(image, method, 2000, 0)[:7])

    def test_the_seed_draws_the_order(self, method):
        image = draw_blocks(120, 160)
        boxes, again, another = (propose(image, method, 2000, seed) for seed in (1, 1, 2))
        assert boxes.tobytes() == again.tobytes()
        assert boxes.tobytes() != another.tobytes()
        if method != "balanced":  # there, which of two near boxes stays depends on the order
            assert {*map(tuple, boxes.tolist())} == {*map(tuple, another.tolist())}

    @pytest.mark.parametrize("shape", [(1, 1), (5, 300), (300, 5), (11, 400)])
    def test_an_image_with_too_short_a_side_has_no_proposals(self, method, shape):
        boxes = propose(draw_blocks(*shape), method, 2000, 0)
        assert boxes.shape == (0, 4)
        assert boxes.dtype == np.float32

    @pytest.mark.parametrize("shape", [(20, 20), (61, 333), pytest.param((375, 500), marks=pytest.mark.exhaustive)])
    @pytest.mark.parametrize("value", [0, 128, 255])
    def test_a_constant_image_is_one_region_from_edge_to_edge(self, method, shape, value):
        if method.startswith("opencv"):
            pytest.skip("OpenCV finds no region in a constant image")
        image = np.full((*shape, 3), value, np.uint8)
        assert propose(image, method, 2000, 0).tolist() == [[0, 0, shape[1], shape[0]]]

    def test_grey_images_have_proposals(self, method):
        assert len(propose(draw_blocks(120, 160)[..., :1].repeat(3, axis=2), method, 2000, 0)) > 10

    def test_a_flat_block_is_found(self, method):
        image = np.full((120, 160, 3), 200, np.uint8)
        image[30:90, 40:110] = [30, 60, 160]
        recalls = best_overlaps(propose(image, method, 2000, 0), [[40, 30, 110, 90]])
        assert recalls[6] == 1  # IoU 0.8
        assert recalls[8] == 1 or method == "balanced"  # 0.9; there, a near repetition may stand for it

    def test_a_resized_image_has_boxes_in_its_own_pixels(self, method):
        image = draw_blocks(120, 200, side=40)
        boxes = propose(image, method, 2000, 0, image_width=160)
        assert [0, 0, 200, 120] in boxes.tolist()
        assert (boxes == np.rint(boxes)).all()
        assert best_overlaps(boxes, [[40, 40, 80, 80], [120, 0, 160, 40]])[4] == 1  # IoU 0.7

    def test_nothing_reaches_the_terminal(self, method, capfd):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            propose(draw_blocks(60, 80), method, 2000, 0)
            propose(np.zeros((60, 80, 3), np.uint8), method, 2000, 0)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(("image", "settings", "message"), [
        (np.zeros((40, 40, 3)), {}, r"uint8 RGB image \[H x W x 3\], not float64 \[40, 40, 3\]"),
        (np.zeros((40, 40), np.uint8), {}, r"not uint8 \[40, 40\]"),
        (np.zeros((40, 40, 4), np.uint8), {}, r"not uint8 \[40, 40, 4\]"),
        (np.zeros((0, 40, 3), np.uint8), {}, r"not uint8 \[0, 40, 3\]"),
        (np.zeros((40, 40, 3), np.uint8), {"max_boxes": 0}, "max_boxes is 0"),
        (np.zeros((40, 40, 3), np.uint8), {"image_width": 0}, "image_width is 0"),
    ])
    def test_bad_input_is_named(self, method, image, settings, message):
        with pytest.raises(PipelineError, match=message):
            propose(image, method, **{"max_boxes": 10, "seed": 0, **settings})


def test_an_unknown_method_is_named():
    with pytest.raises(PipelineError, match="no proposals 'edges'; choose one of balanced, single, fast, quality, "):
        propose(draw_blocks(40, 40), "edges", 10, 0)


def test_without_opencv_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(PipelineError, match="pip install opencv-contrib-python-headless"):
        propose(draw_blocks(40, 40), "opencv", 10, 0)


@pytest.mark.parametrize("method", ["balanced", pytest.param("selectivesearch", marks=pytest.mark.exhaustive)])
def test_boxes_do_not_depend_on_the_process(method):
    script = (
        "import hashlib, numpy as np; from pipeline.proposals.propose import propose;"
        "image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1);"
        f"print(hashlib.sha256(propose(image, '{method}', 2000, 0).tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    here = propose(draw_blocks(120, 160, side=20), method, 2000, 0)
    assert digests == {hashlib.sha256(here.tobytes()).hexdigest()}


@pytest.mark.parametrize("method", ["balanced", pytest.param("selectivesearch", marks=pytest.mark.exhaustive)])
def test_the_embedded_digits_are_found(method):
    images = list(make_images("train", 4, seed=0))
    boxes = [propose(image.pixels, method, 2000, make_generator(0, "proposals", image.id)) for image in images]
    assert np.mean([best_overlaps(*pair)[0] for pair in zip(boxes, [image.boxes for image in images], strict=True)]) == 1


# --- the package selectivesearch -------------------------------------------------------------------------------------------


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


@pytest.mark.exhaustive
def test_a_large_image_costs_the_package_no_more_than_a_photograph_of_500_pixels():
    image = draw_blocks(1500, 2000, side=100)
    start = time.process_time()
    boxes = propose(image, "selectivesearch", 2000, 0)
    assert time.process_time() - start < 10
    assert boxes[:, 2:].max(axis=0).tolist() == [2000, 1500]
