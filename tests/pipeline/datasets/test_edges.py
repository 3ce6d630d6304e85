"""Boxes at the edges of their images: cut by at most a pixel and told, further only where the user wants it."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from tests.pipeline.datasets.layouts import HEIGHT, LAYOUTS, WIDTH, Coco, Item, Voc, counts_of, encoded, pixels_of, problems, read

CONTENT = encoded(pixels_of())
BY_A_PIXEL = "boxes that pass the edge of their image by at most a pixel"
FURTHER = "boxes that pass the edge of their image by more than a pixel"
INSIDE = 2, 3, 12, 13


def item(*boxes, id=1):
    return Item(id, CONTENT, tuple(("cat", *box) for box in boxes))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("box", "cut"), [
    ((-1, 0, 5, 5), (0, 0, 5, 5)), ((2, 3, WIDTH + 1, 13), (2, 3, WIDTH, 13)),
    ((2, -0.5, WIDTH + 0.25, HEIGHT + 1), (2, 0, WIDTH, HEIGHT)), ((2, 3, 12, HEIGHT + 0.01), (2, 3, 12, HEIGHT)),
])
def test_at_most_a_pixel_is_cut_and_counted(tmp_path, layout, box, cut):
    layout(tmp_path, item(box, INSIDE, box))
    split = read(tmp_path)
    assert split.images[0].boxes.tolist() == [list(cut), list(INSIDE), list(cut)]
    assert counts_of(split.notes) == [(BY_A_PIXEL, 2)]
    assert split.notes[0].advice.startswith("cut to the image")
    assert split.dropped == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_float32_rounds_is_no_cut(tmp_path, layout):
    layout(tmp_path, item((2, 3, WIDTH + 1e-4, 13)))
    split = read(tmp_path)
    assert (split.images[0].boxes[0, 2], split.notes) == (WIDTH, ())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_further_outside_is_an_error_that_names_both_ways(tmp_path, layout):
    layout(tmp_path, item((2, 3, WIDTH + 1.1, 13), (-7, 3, 5, 13), INSIDE))
    (problem,) = problems(tmp_path)
    assert problem.startswith("2 boxes that are not inside their image; correct it, cut such boxes to the image with "
                              "--on-bad-annotation clip, or leave them out with drop; all: ")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clip_keeps_every_object_with_a_part_in_its_image(tmp_path, layout):
    layout(tmp_path, item((-70, -90, 5, 6), INSIDE, (30, 20, 900, 25), (2, 3, WIDTH + 1, 13)))
    split = read(tmp_path, on_bad_annotation="clip")
    assert split.images[0].boxes.tolist() == [[0, 0, 5, 6], list(INSIDE), [30, 20, WIDTH, 25], [2, 3, WIDTH, 13]]
    assert counts_of(split.notes) == [(FURTHER, 2), (BY_A_PIXEL, 1)]
    assert split.notes[0].advice == "cut to the image, as --on-bad-annotation clip asks"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("box", [
    (WIDTH, 3, WIDTH + 5, 13), (WIDTH + 0.2, 3, WIDTH + 0.6, 13), (-9, 3, -2, 13), (2, HEIGHT + 1, 12, HEIGHT + 2),
    (5, 3, 5, 13), (2, 3, 1, 13), (2, float("nan"), 12, 13), (1e39, 3, 1e40, 13), (2, 3, 2 + 1e-9, 13),
])
def test_what_has_no_part_in_its_image_is_an_error_and_left_out_with_clip(tmp_path, layout, box):
    layout(tmp_path, item(INSIDE, box))
    (problem,) = problems(tmp_path)
    assert "leave such boxes out with --on-bad-annotation drop" in problem
    assert "clip" not in problem
    for policy in ("clip", "drop"):
        split = read(tmp_path, on_bad_annotation=policy)
        assert split.images[0].boxes.tolist() == [list(INSIDE)]
        assert ([remark.count for remark in split.dropped], split.notes) == ([1], ())


def test_drop_leaves_out_what_clip_would_cut(tmp_path):
    Voc(tmp_path, item(INSIDE, (-7, 3, 5, 13), (-1, 3, 5, 13)))
    split = read(tmp_path, on_bad_annotation="drop")
    assert split.images[0].boxes.tolist() == [list(INSIDE), [0, 3, 5, 13]]
    assert counts_of(split.dropped) == [("boxes that are not inside their image", 1)]
    assert counts_of(split.notes) == [(BY_A_PIXEL, 1)]


class TestZeroBased:
    LOOKS = "the files look as if they count pixels from 0"
    MAY = "if the files count pixels from 0"

    def advice(self, root, **rules):
        (remark,) = read(root, **rules).notes
        return remark.advice

    def test_files_that_look_so_are_told(self, tmp_path):
        Voc(tmp_path, item((0, 0, WIDTH, HEIGHT), INSIDE), first=0)
        assert self.LOOKS in self.advice(tmp_path)
        assert "give --voc-first-pixel 0" in self.advice(tmp_path)

    @pytest.mark.parametrize("last", [(5, 3, WIDTH + 1, 13), (5, 3, 13, HEIGHT + 1)])
    def test_files_with_the_last_pixel_may_be_so(self, tmp_path, last):
        Voc(tmp_path, item((0, 0, 5, 5), last), first=0)
        assert self.LOOKS not in self.advice(tmp_path)
        assert self.MAY in self.advice(tmp_path)

    def test_files_that_only_pass_the_last_pixel_do_not(self, tmp_path):
        Voc(tmp_path, item((5, 5, WIDTH + 1, 9)))
        assert self.advice(tmp_path) == "cut to the image"

    def test_coco_is_never_so(self, tmp_path):
        Coco(tmp_path, item((-1, 0, 5, 5)))
        assert self.advice(tmp_path) == "cut to the image"

    def test_the_setting_gives_the_boxes_that_were_meant(self, tmp_path):
        Voc(tmp_path, item((0, 0, WIDTH, HEIGHT), INSIDE), first=0)
        split = read(tmp_path, voc_first_pixel=0)
        assert split.images[0].boxes.tolist() == [[0, 0, WIDTH, HEIGHT], list(INSIDE)]
        assert split.notes == ()

    def test_the_setting_for_files_that_are_not_so(self, tmp_path):
        Voc(tmp_path, item((0, 0, WIDTH, HEIGHT)))
        advice = self.advice(tmp_path, voc_first_pixel=0)
        assert "if the files count pixels from 1, as VOC's do, leave out --voc-first-pixel 0" in advice

    def test_limits_in_errors_are_those_of_the_file(self, tmp_path):
        Voc(tmp_path, item((-5, 0, 5, 5)), first=0)
        assert f"not inside (0, 0, {WIDTH - 1}, {HEIGHT - 1})" in problems(tmp_path, voc_first_pixel=0)[0]
        assert f"not inside (1, 1, {WIDTH}, {HEIGHT})" in problems(tmp_path)[0]

    def test_only_0_and_1(self, tmp_path):
        Voc(tmp_path, item(INSIDE))
        with pytest.raises(PipelineError, match="voc_first_pixel is 2; expected one of 0, 1"):
            read(tmp_path, voc_first_pixel=2)


def test_edges_of_a_float_file(tmp_path):
    """CVAT's: 0-based edges, so that xmax may be the width, and a fraction more."""
    Voc(tmp_path, Item(1, CONTENT, (("cat", -1, 11.5, WIDTH, HEIGHT), ("cat", 3, 3, WIDTH + 0.4, 9))))
    split = read(tmp_path)
    assert split.images[0].boxes.tolist() == [[0, 11.5, WIDTH, HEIGHT], [3, 3, WIDTH, 9]]
    assert counts_of(split.notes) == [(BY_A_PIXEL, 2)]


def test_thousands_are_one_line(tmp_path):
    Coco(tmp_path, item(*[(2, 3, WIDTH + 1, 13)] * 3000, *[(2, 3, WIDTH + 9, 13)] * 2000))
    (problem,) = problems(tmp_path)
    assert problem.startswith("2,000 boxes that are not inside")
    assert len(problem) < 1000
    split = read(tmp_path, on_bad_annotation="clip")
    assert counts_of(split.notes) == [(BY_A_PIXEL, 3000), (FURTHER, 2000)]
    assert all(len(str(remark)) < 1000 for remark in split.notes)
    np.testing.assert_array_equal(split.images[0].boxes, np.float32([[2, 3, WIDTH, 13]] * 5000))
