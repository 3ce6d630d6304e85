"""Windows to train on, their targets, and what the network sees of them."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.localisation.windows import (
    LARGEST_WINDOW,
    WindowSampler,
    from_fractions,
    largest_object,
    mirrored_fractions,
    target_fractions,
    to_fractions,
    view_batches,
    whole_window,
)
from pipeline.networks.backbones import IMAGENET

CLASSES = ("bright", "dark")


def make_sampler(records, **settings):
    settings = {"batch_size": 16, "mirror": True, "smallest": 0.4, "light": False, **settings}
    return WindowSampler(records, CLASSES, 3, **settings)


class TestFractions:
    def test_hand_worked(self):
        window = np.array([[10, 20, 50, 40]])
        box = np.array([[20.0, 25, 40, 40]])
        assert to_fractions(box, window).tolist() == [[0.25, 0.25, 0.75, 1]]
        assert mirrored_fractions(np.array([[0.25, 0.25, 0.5, 1]])).tolist() == [[0.5, 0.25, 0.75, 1]]

    def test_inverse(self):
        rng = np.random.default_rng(0)
        windows, boxes = rng.integers(0, 9, (5, 4)) + np.array([0, 0, 20, 20]), rng.random((5, 4)) * 30
        assert from_fractions(to_fractions(boxes, windows), windows) == pytest.approx(boxes)
        assert mirrored_fractions(mirrored_fractions(boxes)) == pytest.approx(boxes)


class TestLargestObject:
    def test_by_area_the_first_of_equals(self, make_record):
        record = make_record("a", [[0, 0, 30, 2], [0, 0, 10, 10], [20, 20, 30, 30]], [0, 1, 0])
        assert largest_object(record) == 1

    def test_difficult_and_empty_objects_do_not_count(self, make_record):
        record = make_record("a", [[0, 0, 50, 50], [0, 0, 10, 10]], [0, 1])
        record.difficult[0] = True
        assert largest_object(record) == 1
        record.difficult[1] = True
        assert largest_object(record) is None
        assert largest_object(make_record("b")) is None

    def test_targets_leave_out_images_without_objects(self, make_record):
        records = [make_record("a"), make_record("b", [[0, 15, 40, 45]], [0])]
        assert target_fractions(records).tolist() == [[0, 0.25, 0.5, 0.75]]


class TestSampler:
    def test_targets_follow_the_rule(self, images):
        """Each target is the most visible object of its window, cut there, and at least half of it is visible."""
        records, _ = images
        views = make_sampler(records, batch_size=300).draw(0)
        assert views.mirrored.mean() == pytest.approx(0.5, abs=0.1)
        for number, window, fractions, label, mirrored in zip(
            views.image, views.windows, views.boxes, views.labels, views.mirrored
        ):
            record, held = records[number], []
            for box in record.boxes:
                part = np.concatenate([np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])])
                held.append((max(0, part[2] - part[0]) * max(0, part[3] - part[1]), part))
            best = max(range(2), key=lambda place: held[place][0])
            size = record.boxes[best, 2:] - record.boxes[best, :2]
            assert label == record.labels[best]
            assert held[best][0] >= 0.5 * size.prod()
            fractions = mirrored_fractions(fractions[None])[0] if mirrored else fractions
            assert from_fractions(fractions, window) == pytest.approx(held[best][1], abs=1e-3)

    def test_windows_are_within_their_limits(self, images):
        records, _ = images
        windows = make_sampler(records, batch_size=500).draw(1).windows
        sides = (windows[:, 2:] - windows[:, :2]) / np.array([80, 60])
        assert 0.35 < sides.min() < 0.5
        assert 1.1 < sides.max() < LARGEST_WINDOW * 1.13
        inside = np.where(sides <= 1, windows[:, :2] >= 0, windows[:, :2] <= 0)
        assert inside.all()

    def test_a_step_does_not_depend_on_those_before(self, images):
        first, second = make_sampler(images[0]), make_sampler(images[0])
        first.draw(0)
        assert np.array_equal(first.draw(5).windows, second.draw(5).windows)
        assert not np.array_equal(first.draw(5).windows, first.draw(6).windows)

    def test_without_mirror_nothing_is_mirrored(self, images):
        assert not make_sampler(images[0], mirror=False, batch_size=100).draw(0).mirrored.any()

    def test_images_without_objects_are_counted_and_not_drawn(self, images, make_record):
        sampler = make_sampler([make_record("empty"), *images[0]])
        assert sampler.unused == 1
        assert 0 not in sampler.draw(0).image

    @pytest.mark.parametrize("labels", [(), (0,)])
    def test_a_class_without_image_is_named(self, make_record, labels):
        with pytest.raises(PipelineError, match=r"no training image has an object of .*dark"):
            make_sampler([make_record("a", [[0, 0, 9, 9]] * len(labels), labels)])


class TestView:
    def test_a_target_frames_its_object_in_what_is_seen(self, images):
        """Bright pixels lie where the target says, mirrored or not."""
        records, pixels = images
        sampler = make_sampler(records, batch_size=60)
        values, views = next(view_batches(sampler, lambda record: pixels[int(record.id)], 0, side=64, norm=IMAGENET))
        shares = []
        for seen, box, label in zip(values, views.boxes, views.labels):
            x1, y1, x2, y2 = (box * 64).round().astype(int)
            inside = seen[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2, 0]
            right = inside > 1.5 if label == 0 else inside < -1.5
            shares.append(right.mean())  # the other square may cover a part
        assert np.median(shares) == 1
        assert np.mean(shares) > 0.7

    def test_light_changes_what_is_seen_and_no_target(self, images):
        records, pixels = images

        def batch(light):
            sampler = make_sampler(records, light=light)
            return next(view_batches(sampler, lambda record: pixels[int(record.id)], 4, side=32, norm=IMAGENET))

        batches = batch(False), batch(True)
        assert not np.array_equal(batches[0][0], batches[1][0])
        assert np.array_equal(batches[0][1].boxes, batches[1][1].boxes)


def test_the_whole_window(make_record):
    assert whole_window(make_record("a", height=7, width=9)).tolist() == [0, 0, 9, 7]
