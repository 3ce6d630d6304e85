"""Outlines of COCO's files: what they draw, by hand and by COCO's own tools, and what is refused."""

import contextlib

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from pipeline.datasets.masks import VOID
from pipeline.datasets.outlines import Outline, box_runs, draw, from_runs, packed, to_runs
from pipeline.errors import PipelineError

HEIGHT, WIDTH = 4, 6
SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]  # columns 1 to 3, rows 1 and 2


def drawn(outline) -> list[list[int]]:
    return from_runs(to_runs(outline, HEIGHT, WIDTH), HEIGHT, WIDTH).astype(int).tolist()


def pixels(rows, columns) -> list[list[int]]:
    mask = np.zeros((HEIGHT, WIDTH), int)
    mask[rows, columns] = 1
    return mask.tolist()


class TestKinds:
    expected = pixels(slice(1, 3), slice(1, 4))

    @pytest.mark.parametrize("outline", [
        [SQUARE], SQUARE, packed([SQUARE]), [SQUARE[2:] + SQUARE[:2]], [[1.0, 1, 2, 1, 2, 3, 1, 3], [2, 1, 4, 1, 4, 3, 2, 3]],
        {"size": [HEIGHT, WIDTH], "counts": [5, 2, 2, 2, 2, 2, 9]},
    ])
    def test_polygons_and_runs(self, outline):
        assert drawn(outline) == self.expected

    def test_packed_runs(self):
        counts = coco_masks.encode(np.asfortranarray(np.array(self.expected, np.uint8)))["counts"].decode()
        assert drawn({"size": [HEIGHT, WIDTH], "counts": counts}) == self.expected

    def test_parts_outside_are_cut_off(self):
        assert drawn([[-5, -5, 3, -5, 3, 9, -5, 9]]) == pixels(slice(None), slice(0, 3))

    def test_a_polygon_without_a_pixel(self):
        assert not np.any(drawn([[1, 1, 1.1, 1, 1.1, 1.1]]))

    def test_boxes(self):
        assert from_runs(box_runs((1, 1, 4, 3), HEIGHT, WIDTH), HEIGHT, WIDTH).astype(int).tolist() == self.expected


@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_runs_of_cocos_tools_are_unpacked(mask):
    runs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    again = to_runs({"size": list(mask.shape), "counts": runs["counts"].decode()}, *mask.shape)
    assert np.array_equal(from_runs(again, *mask.shape), mask)


@pytest.mark.parametrize(("outline", "fault"), [
    (None, "has no outline"), ([], "has no outline"), ("x", "has no outline"), ([[]], "a polygon of 0 numbers"),
    ([[1, 2, 3, 4]], "a polygon of 4 numbers"), ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"), ([5], "a polygon of 1 num"),
    ([{"x": 1}], "a polygon that is no list"), ([[1, 2, 3, 4, 5, "6"]], "a coordinate that is no number"),
    ([[1, 2, 3, 4, 5, float("nan")]], "a coordinate that is no number"), ([[1, 2, 3, 4, 5, 1e9]], "far outside the image"),
    ({"size": [6, 4], "counts": [24]}, r"of the size \[6, 4\] \(height, width\), its image is 6 x 4"),
    ({"size": [4, 6], "counts": [23]}, "runs of 23 pixels, its image has 24"),
    ({"size": [4, 6], "counts": [30, -6]}, "no list of lengths"), ({"size": [4, 6], "counts": [1.5]}, "no list of lengths"),
    ({"size": [4, 6]}, "no list of lengths"), ({"counts": [24]}, "of the size None"),
    ({"size": [4, 6], "counts": "\n"}, "no list of lengths"), ({"size": [4, 6], "counts": "oooooooooooo"}, "no list of lengths"),
    ({"size": [4, 6], "counts": "P"}, "no list of lengths"), ({"size": [4, 6], "counts": ""}, "runs of 0 pixels"),
])
def test_what_cannot_be_drawn_is_refused(outline, fault):
    with pytest.raises(PipelineError, match=fault):
        to_runs(outline, HEIGHT, WIDTH)


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=8)
                    | st.fixed_dictionaries({"size": st.just([HEIGHT, WIDTH]), "counts": inner}), max_leaves=20))
def test_anything_else_is_an_error_and_nothing_worse(outline):
    with contextlib.suppress(PipelineError):
        assert from_runs(to_runs(packed(outline), HEIGHT, WIDTH), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH)


LABELS = {"cat": 1, "dog": 2}


def outline(rows, columns, name=None, number=0) -> Outline:
    mask = np.asfortranarray(np.array(pixels(rows, columns), np.uint8))
    return Outline(coco_masks.encode(mask)["counts"], name, number)


class TestDrawing:
    def test_classes_and_instances(self):
        objects = [outline(0, slice(0, 2), "dog", 1), outline(2, slice(0, 2), "cat", 2)]
        classes, instances = draw(objects, LABELS, HEIGHT, WIDTH)
        assert classes[:, 0].tolist() == [2, 0, 1, 0]
        assert instances[:, 0].tolist() == [1, 0, 2, 0]

    def test_overlaps(self):
        objects = [outline(0, slice(0, 3), "dog", 1), outline(0, slice(1, 4), "dog", 2), outline(0, slice(3, 6), "cat", 3)]
        classes, instances = draw(objects, LABELS, HEIGHT, WIDTH)
        assert classes[0].tolist() == [2, 2, 2, VOID, 1, 1]
        assert instances[0].tolist() == [1, VOID, VOID, VOID, 3, 3]

    def test_a_third_object_does_not_own_an_overlap(self):
        objects = [outline(0, 0, "dog", 1), outline(0, 0, "cat", 2), outline(0, slice(0, 2), "cat", 3)]
        classes, instances = draw(objects, LABELS, HEIGHT, WIDTH)
        assert classes[0, :2].tolist() == [VOID, 1]
        assert instances[0, :2].tolist() == [VOID, 3]

    @pytest.mark.parametrize("order", [1, -1])
    def test_regions_to_ignore_are_void_where_no_object_is(self, order):
        objects = [outline(0, slice(0, 3)), outline(0, slice(0, 1), "dog", 1)][::order]
        for mask, value in zip(draw(objects, LABELS, HEIGHT, WIDTH), (2, 1), strict=True):
            assert mask[0].tolist() == [value, VOID, VOID, 0, 0, 0]

    def test_nothing(self):
        assert not np.any(draw([], LABELS, HEIGHT, WIDTH))
