"""Tiles and the labels of their windows."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.networks.backbones import IMAGENET
from pipeline.sliding_window.layout import WindowLayout
from pipeline.sliding_window.sampling import (
    FILL,
    LEFT_OUT,
    POSITIONS,
    Tile,
    TileSampler,
    boxes_of_edges,
    draw_tile,
    label_windows,
    square_around,
    unmatched_objects,
    window_edges,
)

LAYOUT = WindowLayout(40, 8)


def grey(pixels):
    """The grey levels of normalised pixels."""
    return pixels * np.array(IMAGENET.std) + np.array(IMAGENET.mean)


class TestTile:
    def test_at_the_images_own_scale(self, rng):
        """Pixels are copied; beyond the image there is 0."""
        pixels = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
        tile = Tile(1.0, -4.0, 3.0, 32).cut(pixels, IMAGENET)
        np.testing.assert_allclose(grey(tile[:27, 4:]), pixels[3:30, :28], atol=1e-3)
        assert not tile[:, :4].any()
        assert not tile[27:].any()

    @pytest.mark.parametrize(("factor", "corner"), [(2.0, (11.0, 7.0)), (0.5, (3.3, -6.1)), (1.7, (-20.0, 5.0))])
    def test_its_boxes_are_where_it_shows_the_object(self, factor, corner):
        pixels = np.zeros((60, 80, 3), np.uint8)
        pixels[20:40, 24:44] = 255
        tile = Tile(factor, *corner, 64)
        ((x1, y1, x2, y2),) = np.clip(tile.boxes(np.array([[24, 20, 44, 40]], np.float32)), 0, 64)
        bright = grey(tile.cut(pixels, IMAGENET))[:, :, 0] > 127
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        shown = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        np.testing.assert_allclose(shown, [x1, y1, x2, y2], atol=1.01)

    def test_an_image_that_it_does_not_reach(self):
        assert not Tile(1.0, 500.0, 500.0, 16).cut(np.full((10, 10, 3), 255, np.uint8), IMAGENET).any()


class TestDraw:
    def test_aimed_tiles_hold_an_object_at_a_good_scale(self, make_record):
        image = make_record("a", [[40, 20, 60, 50]], [0])
        side, good = LAYOUT.length(POSITIONS), 0
        for seed in range(40):
            tile = draw_tile(image, LAYOUT, (0.5, 1, 2), np.random.default_rng(seed))
            (box,) = tile.boxes(image.boxes)
            fill = (box[3] - box[1]) / LAYOUT.side
            good += 0.5 <= fill / FILL <= 2 and (box >= 0).all() and (box <= side).all()
        assert good >= 30

    def test_an_image_without_objects(self, make_record):
        tile = draw_tile(make_record("a"), LAYOUT, (1,), np.random.default_rng(0))
        assert tile.side == LAYOUT.length(POSITIONS)


class TestLabels:
    WINDOWS = np.array([[0, 0, 40, 40], [8, 0, 48, 40], [16, 0, 56, 40], [200, 200, 240, 240]], np.float32)
    # Its square is (0, 0, 40, 40): the first window. Moved by 8 the IoU is 32/48 = 0.67, by 16 it is 24/56 = 0.43.
    BOXES = np.array([[7, 10, 33, 30]], np.float32)

    def label(self, image):
        return label_windows(self.WINDOWS, self.BOXES, image)

    def test_by_hand(self, make_record):
        labels, edges = self.label(make_record("a", self.BOXES, [2]))
        assert labels.tolist() == [3, 3, LEFT_OUT, 0]
        np.testing.assert_allclose(edges[0], [0, 0.75, 0, -0.75], atol=1e-5)  # 7/40, 10/40, 33/40, 30/40
        assert not edges[2:].any()

    def test_square(self):
        np.testing.assert_allclose(square_around(self.BOXES), [[0, 0, 40, 40]], atol=1e-5)

    def test_difficult_and_ignored_objects_teach_nothing(self, make_record):
        image = make_record("a", self.BOXES, [2])
        labels, _ = self.label(replace(image, difficult=np.array([True])))
        assert labels.tolist() == [LEFT_OUT, LEFT_OUT, LEFT_OUT, 0]
        crowd = replace(image, ignored=np.array([True]))
        labels, _ = label_windows(self.WINDOWS, np.array([[0, 0, 45, 45]], np.float32), crowd)
        assert labels.tolist() == [LEFT_OUT, LEFT_OUT, LEFT_OUT, 0]  # 1, 37/40 and 29/40 of them lie on it

    def test_no_object(self, make_record):
        labels, edges = label_windows(self.WINDOWS, np.zeros((0, 4), np.float32), make_record("a"))
        assert not labels.any()
        assert not edges.any()

    def test_edges_round_trip(self, rng):
        boxes = np.sort(rng.uniform(0, 40, (4, 2, 2)), axis=1).reshape(4, 4).astype(np.float32)
        np.testing.assert_allclose(boxes_of_edges(self.WINDOWS, window_edges(self.WINDOWS, boxes)), boxes, atol=1e-4)


def test_unmatched_objects(make_record):
    """At the scale 1 the image is 40 pixels high: objects of 13 to 51 pixels there come within a factor of sqrt 2 of 26."""
    boxes = [[0, 0, 20, 30], [0, 0, 80, 60], [0, 0, 5, 5]]
    assert unmatched_objects([make_record("a", boxes, [0, 0, 0])], LAYOUT, (1,)) == 2
    assert unmatched_objects([make_record("a")], LAYOUT, (1,)) == 0


class TestSampler:
    @staticmethod
    def make(images, **settings):
        settings = {"tiles": 3, "mirror": True, "light": True, "norm": IMAGENET, "seed": 4, **settings}
        return TileSampler(images[0], LAYOUT, (1, 2), **settings)

    def batch(self, images, step, **settings):
        batches = self.make(images, **settings).batches(lambda record: images[1][int(record.id)], step)
        batch = next(batches)
        batches.close()
        return batch

    def test_shapes(self, images):
        batch, side = self.batch(images, 0), LAYOUT.length(POSITIONS)
        assert batch.pixels.shape == (3, side, side, 3)
        assert batch.labels.shape == batch.keys.shape == (3, POSITIONS**2)
        assert batch.edges.shape == (3, POSITIONS**2, 4)

    def test_a_step_can_be_drawn_alone(self, images):
        batches = self.make(images).batches(lambda record: images[1][int(record.id)], 0)
        following = [next(batches) for _ in range(3)][2]
        batches.close()
        alone = self.batch(images, 2)
        assert all(np.array_equal(value, vars(alone)[name]) for name, value in vars(following).items())

    def test_mirrored_tiles_have_mirrored_labels(self, make_record):
        """The left half of the object is bright, the right half is dark; in mirrored tiles it is the other way round."""
        pixels = np.full((60, 80, 3), 120, np.uint8)
        pixels[20:44, 30:42], pixels[20:44, 42:54] = 250, 5
        images = [make_record("0", [[30, 20, 54, 44]], [0])], [pixels]
        bright = {False: 0, True: 0}
        for step in range(8):
            batch = self.batch(images, step, light=False)
            windows = LAYOUT.windows(POSITIONS, POSITIONS)
            for shown, labels, edges in zip(batch.pixels, batch.labels, batch.edges, strict=True):
                rows = np.flatnonzero(labels == 1)
                for x1, y1, x2, y2 in boxes_of_edges(windows[rows], edges[rows])[:1]:
                    middle = (x1 + x2) / 2
                    rows = grey(shown)[int(y1) + 3:int(y2) - 2]
                    halves = [rows[:, int(a) + 3:int(b) - 2] for a, b in ((x1, middle), (middle, x2))]
                    means = [half.mean() for half in halves]
                    assert min(means) < 15
                    assert max(means) > 240
                    bright[bool(means[1] > means[0])] += 1
        assert min(bright.values()) > 3
