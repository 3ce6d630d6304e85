"""Tiles by hand, and an object over a seam found once."""

import numpy as np
import pytest

from pipeline.detection.detections import ImageDetections, LeftOut
from pipeline.detection.tiles import Tiling, detect_in_tiles, is_cut, merged


class Eye:
    """A detector of rectangles: it finds the visible part of each, if that is 4 pixels wide and high.

    The score of an object is its own; a part of it scores `bonus` more, so that scores alone would keep the parts.
    """

    def __init__(self, *objects, sight=10**9, bonus=0.5):
        self.objects, self.sight, self.bonus, self.names = objects, sight, bonus, []

    def __call__(self, pixels, name):
        self.names.append(name)
        y, x, _ = pixels[0, 0]  # the pixels say where they come from
        height, width, _ = pixels.shape
        rows = []
        for label, score, box in self.objects if max(height, width) <= self.sight else ():
            seen = np.clip(np.subtract(box, [x, y, x, y]), 0, [width, height, width, height])
            if min(seen[2:] - seen[:2]) >= 4:
                entire = tuple(seen[2:] - seen[:2]) == (box[2] - box[0], box[3] - box[1])
                rows.append((score + (0 if entire else self.bonus), label, seen))
        rows.sort(key=lambda row: -row[0])
        columns = [np.array([row[place] for row in rows], kind) for place, kind in ((0, "f4"), (1, "i4"), (2, "f4"))]
        return ImageDetections(columns[2].reshape(-1, 4), *columns[:2], ("cat", "dog"), LeftOut(1, 2, 3))


def image(height, width):
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    return np.concatenate([places, np.zeros((height, width, 1), int)], axis=-1)


def detected(eye, height=100, width=180):
    detections = detect_in_tiles(eye, image(height, width), "photo", Tiling(100, 0.2), 0.3)
    return [(label, round(float(score), 3), box.tolist()) for label, score, box in
            zip(detections.labels.tolist(), detections.scores, detections.boxes)]


class TestTiling:
    @pytest.mark.parametrize(("length", "starts"), [(100, [0]), (101, [0, 1]), (180, [0, 80]), (181, [0, 40, 81]), (1, [0])])
    def test_by_hand(self, length, starts):
        """At an overlap of 0.2 tiles of 100 pixels start at most 80 pixels apart."""
        assert Tiling(100, 0.2).starts(length) == starts

    def test_row_by_row_and_inside_the_image(self):
        assert Tiling(100, 0).tiles(60, 150).tolist() == [[0, 0, 100, 60], [50, 0, 150, 60]]

    def test_borders_of_the_image_cut_nothing(self):
        boxes = np.array([[80, 0, 120, 50], [80, 50, 99.5, 100], [130, 0, 180, 9], [90, 9, 99, 20]])
        assert is_cut(boxes, np.array([80, 0, 180, 100]), 100, 180, 1).tolist() == [True, True, False, False]


class TestMerging:
    def test_an_object_over_the_seam_is_found_once(self):
        """Tiles are 0 to 100 and 80 to 180. The object is whole in the second; the first sees a part of it, which scores more."""
        eye = Eye((0, 0.4, [85, 20, 103, 40]), sight=100)
        assert detected(eye) == [(0, 0.4, [85, 20, 103, 40])]
        assert eye.names == ["photo", "photo tile 0", "photo tile 1"]

    def test_an_object_in_the_overlap_is_found_once(self):
        assert detected(Eye((0, 0.4, [84, 20, 96, 40]))) == [(0, 0.4, [84, 20, 96, 40])]

    def test_an_object_larger_than_the_overlap_is_found_in_the_whole_image(self):
        assert detected(Eye((0, 0.4, [40, 10, 140, 90]))) == [(0, 0.4, [40, 10, 140, 90])]

    def test_other_classes_and_neighbours_stay(self):
        twice = [85, 20, 103, 40]
        objects = [(0, 0.9, twice), (1, 0.8, twice), (0, 0.7, [104, 20, 120, 40]), (0, 0.6, [10, 10, 30, 30])]
        assert detected(Eye(*objects)) == objects

    def test_a_small_part_goes_although_its_iou_is_small(self):
        boxes = np.array([[0, 0, 40, 10], [0, 0, 6, 10], [100, 0, 106, 10]])
        assert merged(boxes, np.array([0.1, 0.9, 0.5]), np.array([False, True, True]), 0.3).tolist() == [0, 2]

    def test_of_parts_alone_the_better_one_stays(self):
        boxes = np.array([[0, 0, 20, 10], [8, 0, 30, 10]])  # they share 12 of 20 and of 22 pixels
        assert merged(boxes, np.array([0.1, 0.9]), np.array([True, True]), 0.5).tolist() == [1]

    def test_left_out_is_added_up(self):
        detections = detect_in_tiles(Eye(), image(100, 180), "", Tiling(100), 0.3)
        assert (len(detections), detections.left_out) == (0, (3, 6, 9))

    def test_masks_go_with_their_boxes(self):
        def detect(pixels, name):
            number = int(name.split()[-1]) if " " in name else 9
            columns = np.float32([[10, 10, 20, 20]]), np.float32([number / 10]), np.int32([0])
            return ImageDetections(*columns, ("a",), masks=np.full((1, 2, 2), number, "u1"))

        detections = detect_in_tiles(detect, image(100, 180), "photo", Tiling(100), 0.3)
        assert detections.boxes[:, 0].tolist() == [10, 90]  # of the whole image, which is surer than tile 0; of tile 1
        assert detections.masks[:, 0, 0].tolist() == [9, 1]


def test_a_small_image_is_seen_once():
    eye = Eye((0, 0.4, [10, 10, 90, 90]))
    assert detected(eye, 100, 100) == [(0, 0.4, [10, 10, 90, 90])]
    assert eye.names == ["photo"]
