"""Fast R-CNN's batches: regions, labels and targets by hand, every image once an epoch, and targets as the release has them."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.boxes import decode, iou
from pipeline.errors import PipelineError
from pipeline.fast_rcnn.sampling import Matches, RegionSampler, SamplingSettings, match, target_statistics
from pipeline.networks.whole_images import mirror_boxes
from tests.tiers import examples

NONE = np.zeros((0, 4), np.float32)
WIDTH, HEIGHT = 80, 60
CLASSES = ("cat", "cow", "dog")
OBJECT = [10, 10, 30, 50]
# Targets of OBJECT: dx 2 / 20 and dy -4 / 40; then both sides twice as long.
MOVED, LARGER = [8, 14, 28, 54], [0, -10, 40, 70]
BACKGROUND = [10, 10, 30, 20]  # a quarter of it


def make_sampler(records, proposals, mirror=False, seed=0, **changed):
    proposals = [np.array(boxes, np.float32).reshape(-1, 4) for boxes in proposals]
    return RegionSampler(records, CLASSES, proposals.__getitem__, seed, mirror=mirror, settings=SamplingSettings(**changed))


def near_and_far(foreground, background):
    """Different regions that overlap OBJECT by more than a half, and by less."""
    return [[*OBJECT[:3], 50 + i / 8] for i in range(1, foreground + 1)] + [[*OBJECT[:3], 20 + i / 16] for i in range(background)]


def assert_same(first, second):
    assert [(sample.number, sample.mirrored) for sample in first] == [(sample.number, sample.mirrored) for sample in second]
    for left, right in zip(first, second, strict=True):
        for name in ("boxes", "labels", "targets"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def random_records(make_record, seed, images=3):
    """Images of up to three objects, and proposals of which a half lie close to one; some reach out of the image."""
    rng = np.random.default_rng(seed)
    records, proposals = [], []
    for number in range(images):
        corner = rng.integers(-10, 50, (12, 2))
        boxes = np.concatenate([corner, corner + rng.integers(10, 60, (12, 2))], axis=1)
        objects = rng.integers(0 if number else 1, 4)
        close = boxes[:objects][rng.integers(0, objects, 6)] + rng.integers(-4, 5, (6, 4)) if objects else boxes[:0]
        records.append(make_record(str(number), boxes[:objects], rng.integers(0, 3, objects), HEIGHT, WIDTH))
        proposals.append(np.concatenate([boxes[3:], close]))
    return records, proposals


class TestMatch:
    def test_by_hand(self, make_record):
        record = make_record("a", [OBJECT, [30, 10, 50, 50]], [2, 0])
        matches = match(record, np.float32([MOVED, [28, 10, 48, 50], BACKGROUND, [60, 0, 70, 9], LARGER]), 0.5)
        np.testing.assert_allclose(matches.overlap, [1, 1, 18 * 36 / 952, 18 / 22, 0.25, 0, 0.25])
        assert matches.label[[0, 1, 2, 3, 4, 6]].tolist() == [3, 1, 3, 1, 3, 3]
        assert matches.foreground.tolist() == [True, True, True, True, False, False, False]
        targets = [[0] * 4, [0] * 4, [0.1, -0.1, 0, 0], [0.1, 0, 0, 0], *[[0] * 4] * 3]
        np.testing.assert_allclose(matches.target, targets, atol=1e-7)
        assert (matches.boxes.dtype, matches.label.dtype, matches.target.dtype) == (np.float32, np.int64, np.float32)

    def test_targets_lead_from_the_region_to_its_object(self, make_record):
        matches = match(make_record("a", [OBJECT], [1]), np.float32([LARGER, [10, 10, 20, 50]]), 0.25)
        np.testing.assert_allclose(matches.target[1:], [[0, 0, *[-np.log(2)] * 2], [0.5, 0, np.log(2), 0]], atol=1e-7)

    def test_of_objects_overlapped_alike_the_first_counts(self, make_record):
        matches = match(make_record("a", [[0, 0, 10, 10], [4, 0, 14, 10]], [2, 1]), np.float32([[2, 0, 12, 10]]), 0.5)
        assert matches.label.tolist() == [3, 2, 3]
        np.testing.assert_allclose(matches.target[2], [-0.2, 0, 0, 0], atol=1e-7)

    @pytest.mark.parametrize("proposals", [NONE, np.float32([BACKGROUND])])
    def test_without_objects_nothing_overlaps(self, make_record, proposals):
        matches = match(make_record("a"), proposals, 0.5)
        assert matches.overlap.tolist() == matches.label.tolist() == [0] * len(proposals)
        assert not matches.foreground.any()
        assert matches.target.shape == (len(proposals), 4)


class TestStatistics:
    def test_by_hand(self, make_record):
        """dx of the class: 0, 0.1 and 0.25; dh: 0, 0 and log 2. The others have one target each, or none."""
        record = make_record("a", [OBJECT, [60, 0, 70, 10]], [2, 0])
        matches = [match(record, np.float32([[8, 10, 28, 50], [5, 10, 25, 30], BACKGROUND]), 0.3)]
        means, deviations, count = target_statistics(matches, 3, mirror=False)
        assert count.tolist() == [1, 0, 3]
        np.testing.assert_allclose(means, [[0] * 4, [0] * 4, [0.35 / 3, 0.5 / 3, 0, np.log(2) / 3]], atol=1e-7)
        dx, dy, dh = ([0, 0.1, 0.25], [0, 0, 0.5], [0, 0, np.log(2)])
        np.testing.assert_allclose(deviations, [[1] * 4, [1] * 4, [np.std(dx), np.std(dy), 1, np.std(dh)]], atol=1e-7)
        means, deviations, _ = target_statistics(matches, 3, mirror=True)
        assert means[2, 0] == 0
        np.testing.assert_allclose(deviations[2, :2], [np.std([*dx, 0, -0.1, -0.25]), np.std(dy)], atol=1e-7)

    def test_the_deviation_of_a_single_target_is_one(self):
        target = np.float32([[0.1, -0.2, 0.3, 0.7], [9, 9, 9, 9]])
        matches = Matches(None, None, np.array([2, 2]), np.array([True, False]), target)
        means, deviations, count = target_statistics([matches], 3, mirror=False)
        np.testing.assert_array_equal(means, [[0] * 4, target[0], [0] * 4])
        assert (deviations.tolist(), count.tolist()) == ([[1] * 4] * 3, [0, 1, 0])

    @settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 10**6))
    def test_mirroring_is_as_if_the_mirrored_images_were_there_too(self, make_record, seed):
        records, proposals = random_records(make_record, seed)
        mirrored = [make_record("", mirror_boxes(record.boxes, WIDTH), record.labels, HEIGHT, WIDTH) for record in records]
        matches = [match(*pair, 0.5) for pair in zip(records, proposals)]
        reflections = [match(record, mirror_boxes(boxes, WIDTH), 0.5) for record, boxes in zip(mirrored, proposals)]
        means, deviations, count = target_statistics(iter(matches), 3, mirror=True)
        expected = target_statistics(matches + reflections, 3, mirror=False)
        np.testing.assert_allclose(means, expected[0], atol=1e-6)
        np.testing.assert_allclose(deviations, expected[1], atol=1e-6)
        assert (2 * count).tolist() == expected[2].tolist()

    def test_targets_and_statistics_are_those_of_the_release(self, oracle, make_record):
        data = oracle("roidb_targets.npz")
        boxes = (data["boxes"] + [0, 0, 1, 1]).astype(np.float32)
        records, proposals, foreground = [], [], data["targets"][:, 0] > 0
        for image in range(data["image_index"].max() + 1):
            mine, given = data["image_index"] == image, data["gt_class"] > 0
            records.append(make_record(str(image), boxes[mine & given], data["gt_class"][mine & given] - 1, 1000, 1000))
            proposals.append(boxes[mine & ~given])
            matches = match(records[-1], proposals[-1], 0.5)
            np.testing.assert_allclose(matches.overlap, data["max_overlap"][mine], atol=1e-6)
            assert matches.foreground.tolist() == foreground[mine].tolist()
            assert matches.label[matches.foreground].tolist() == data["targets"][mine & foreground, 0].tolist()
            np.testing.assert_allclose(matches.target, data["targets"][mine, 1:], atol=1e-5)
        sampler = make_sampler(records, proposals, images=1, regions=1000, foreground_fraction=1.0)
        np.testing.assert_allclose(sampler.means, data["means"][1:], atol=1e-6)
        np.testing.assert_allclose(sampler.deviations, data["stds"][1:], atol=1e-6)
        assert sampler.examples.tolist() == np.bincount(data["targets"][foreground, 0].astype(int), minlength=4)[1:].tolist()
        for sample in itertools.chain.from_iterable(map(sampler.draw, range(len(records)))):
            mine, drawn = foreground & (data["image_index"] == sample.number), sample.labels > 0
            expected = np.column_stack([boxes, data["targets_normalized"]])[mine]
            rows = np.column_stack([sample.boxes, sample.labels, sample.targets])[drawn]
            rows, expected = (values[np.lexsort(values[:, 3::-1].T)] for values in (rows, expected))
            np.testing.assert_allclose(rows, expected, atol=1e-4)


class TestBatch:
    @pytest.mark.parametrize(
        ("foreground", "background", "expected"),
        [(40, 100, (16, 48)), (5, 100, (5, 59)), (40, 10, (16, 10)), (3, 2, (3, 2)), (16, 48, (16, 48))],
    )
    def test_a_quarter_of_an_images_share_is_foreground_at_most(self, make_record, foreground, background, expected):
        """Of 64: backgrounds fill up, and no region is there twice."""
        sampler = make_sampler([make_record("a", [OBJECT], [1])] * 2, [near_and_far(foreground - 1, background)] * 2)
        for sample in itertools.chain.from_iterable(map(sampler.draw, range(5))):
            assert ((sample.labels == 2).sum(), (sample.labels == 0).sum()) == expected
            assert len(np.unique(sample.boxes, axis=0)) == len(sample.labels) == sum(expected)

    def test_other_sizes_keep_the_fraction_of_each_images_share(self, make_record):
        changed = {"images": 3, "regions": 30, "foreground_fraction": 0.5}
        sampler = make_sampler([make_record("a", [OBJECT], [1])], [near_and_far(40, 100)], **changed)
        assert [((sample.labels > 0).sum(), len(sample.labels)) for sample in sampler.draw(0)] == [(5, 10)] * 3

    def test_every_region_is_as_likely(self, make_record):
        sampler = make_sampler([make_record("a", [OBJECT], [1])], [near_and_far(39, 100)], images=1, regions=64)
        bottoms = np.concatenate([sampler.draw(step)[0].boxes[:, 3] for step in range(200)])
        for drawn, number in ((bottoms[bottoms >= 50], 40), (bottoms[bottoms < 50], 100)):
            counts = np.unique(drawn, return_counts=True)[1]
            assert len(counts) == number
            assert stats.chisquare(counts).pvalue > 1e-3

    def test_another_seed_chooses_other_regions(self, make_record):
        samplers = [make_sampler([make_record("a", [OBJECT], [1])], [near_and_far(40, 100)], seed=seed) for seed in (0, 0, 1)]
        first, again, another = ({tuple(box) for box in sampler.draw(0)[0].boxes.tolist()} for sampler in samplers)
        assert first == again != another

    def test_thresholds(self, make_record):
        """IoU of 0.5 is foreground; below it, down to 0.1, background; below that, neither."""
        rights = {5: 2, 4.99: 0, 1: 0, 0.99: None}
        sampler = make_sampler([make_record("a", [[0, 0, 10, 10]], [1])], [[[0, 0, 10, right] for right in rights]], images=1)
        (sample,) = sampler.draw(0)
        expected = {10: 2, **{np.float32(right): label for right, label in rights.items() if label is not None}}
        assert dict(zip(sample.boxes[:, 3].tolist(), sample.labels.tolist())) == expected

    def test_other_thresholds(self, make_record):
        boxes = [[0, 0, 10, right] for right in (8, 7, 6, 4, 3)]
        changed = {"foreground_overlap": 0.8, "background_overlaps": (0.4, 0.7), "images": 1}
        (sample,) = make_sampler([make_record("a", [[0, 0, 10, 10]], [0])], [boxes], **changed).draw(0)
        assert sorted(zip(sample.boxes[:, 3].tolist(), sample.labels.tolist())) == [(4, 0), (6, 0), (8, 1), (10, 1)]

    def test_foreground_is_never_background_too(self, make_record):
        changed = {"background_overlaps": (0.1, 0.9), "images": 1}
        (sample,) = make_sampler([make_record("a", [[0, 0, 10, 10]], [0])], [[[0, 0, 10, 6]]], **changed).draw(0)
        assert sorted(zip(sample.boxes[:, 3].tolist(), sample.labels.tolist())) == [(6, 1), (10, 1)]

    @pytest.mark.parametrize("mirror", [False, True])
    def test_targets_are_normalised_by_hand(self, make_record, mirror):
        """dx of 0 and 0.1, or 0, 0, 0.1 and -0.1; dy of 0 and -0.1: of deviation 0.05, around 0.05, or of 0.1 / sqrt 2."""
        sampler = make_sampler([make_record("a", [OBJECT], [1], HEIGHT, WIDTH)], [[MOVED, BACKGROUND]], mirror, images=1)
        seen = set()
        for sample in itertools.chain.from_iterable(map(sampler.draw, range(4))):
            seen.add(sample.mirrored)
            left, dx = (80 - 28, -np.sqrt(2)) if sample.mirrored else (8, np.sqrt(2) if mirror else 1)
            order = np.argsort(sample.boxes[:, 3])  # the background, OBJECT, MOVED
            assert sample.boxes[order[2]].tolist() == [left, 14, left + 20, 54]
            assert sample.labels[order].tolist() == [0, 2, 2]
            expected = [[0] * 4, [0 if mirror else -1, 1, 0, 0], [dx, -1, 0, 0]]
            np.testing.assert_allclose(sample.targets[order], expected, atol=1e-6)
            assert (sample.boxes.dtype, sample.labels.dtype, sample.targets.dtype) == (np.float32, np.int64, np.float32)
        assert seen == {False, mirror}

    @settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 10**6), st.booleans())
    def test_targets_take_regions_to_objects_of_their_label(self, make_record, seed, mirror):
        records, proposals = random_records(make_record, seed)
        sampler = make_sampler(records, proposals, mirror, seed, regions=20)
        for sample in itertools.chain.from_iterable(map(sampler.draw, range(len(sampler.order.turns)))):
            record, rows = records[sample.number], sample.labels > 0
            objects = mirror_boxes(record.boxes, record.width) if sample.mirrored else record.boxes
            classes = sample.labels[rows] - 1
            moved = decode(sample.boxes[rows], sample.targets[rows] * sampler.deviations[classes] + sampler.means[classes])
            overlaps = iou(sample.boxes, objects)
            best = overlaps.max(axis=1, initial=0)
            assert (best[rows] >= 0.5).all()
            assert ((best[~rows] >= 0.1) & (best[~rows] < 0.5)).all()
            for box, label, shares in zip(moved, classes, overlaps[rows]):
                distance = np.abs(objects - box).max(axis=1)
                distance[(record.labels != label) | (shares < shares.max())] = np.inf
                assert distance.min() < 1e-3
            assert not sample.targets[~rows].any()


class TestOrder:
    @pytest.fixture
    def records(self, make_record):
        return [make_record(str(number), [OBJECT], [1], HEIGHT, WIDTH) for number in range(5)]

    @pytest.mark.parametrize("images", [1, 2, 3])
    def test_every_image_and_its_mirror_is_drawn_once_an_epoch(self, records, images):
        for mirror in (False, True):
            sampler = make_sampler(records, [[]] * 5, mirror, images=images, regions=8 * images)
            epoch = [(number, mirrored) for number in range(5) for mirrored in {False, mirror}]
            drawn = [(sample.number, sample.mirrored) for step in range(3 * len(epoch)) for sample in sampler.draw(step)]
            assert all(len(sampler.draw(step)) == images for step in range(3))
            epochs = [drawn[first : first + len(epoch)] for first in range(0, 3 * len(epoch), len(epoch))]
            assert list(map(sorted, epochs)) == [sorted(epoch)] * 3
            assert len(set(map(tuple, epochs))) == 3  # in another order each

    def test_a_step_drawn_alone_is_the_one_drawn_in_sequence(self, make_record):
        records, proposals = random_records(make_record, 0)
        make = partial(make_sampler, records, proposals, True, regions=12)
        sampler = make(seed=5)
        draws = [sampler.draw(step) for step in range(12)]
        for step in (11, 3, 0, 7):
            assert_same(make(seed=5).draw(step), draws[step])
        for step in reversed(range(12)):
            assert_same(sampler.draw(step), draws[step])
        draws.append(make(seed=6).draw(0))
        assert len({tuple(np.concatenate([sample.boxes for sample in draw]).ravel()) for draw in draws}) == 13


class TestEdges:
    def test_no_proposals_leave_the_objects_and_a_deviation_of_one(self, make_record):
        sampler = make_sampler([make_record("a", [OBJECT], [1])], [[]])
        for sample in sampler.draw(0):
            assert (sample.boxes.tolist(), sample.labels.tolist(), sample.targets.tolist()) == ([OBJECT], [2], [[0] * 4])
        assert (sampler.deviations.tolist(), sampler.examples.tolist()) == ([[1] * 4] * 3, [0, 1, 0])

    def test_no_foreground(self, make_record):
        """Of an image without objects all is background, where that has no lower limit (Faster R-CNN's BG_THRESH_LO)."""
        records = [make_record("a"), make_record("b", [OBJECT], [1])]
        sampler = make_sampler(records, [[MOVED, BACKGROUND]] * 2, background_overlaps=(0.0, 0.5))
        assert sampler.unused == 0
        (sample,) = [drawn for drawn in sampler.draw(0) if drawn.number == 0]
        assert sorted(sample.boxes.tolist()) == sorted([MOVED, BACKGROUND])
        assert sample.labels.tolist() == [0, 0]
        assert sample.targets.tolist() == [[0] * 4] * 2

    def test_a_region_wider_than_its_image(self, make_record):
        record = make_record("a", [[0, 0, WIDTH, HEIGHT]], [0], HEIGHT, WIDTH)
        sampler = make_sampler([record], [[[-8, 0, 100, HEIGHT]]], True, images=2)
        samples = {sample.mirrored: sample for sample in sampler.draw(0)}
        assert sorted(samples[False].boxes.tolist()) == [[-8, 0, 100, HEIGHT], [0, 0, WIDTH, HEIGHT]]
        assert sorted(samples[True].boxes.tolist()) == [[-20, 0, 88, HEIGHT], [0, 0, WIDTH, HEIGHT]]

    def test_images_with_nothing_to_train_on_are_counted_and_never_drawn(self, make_record):
        records = [make_record("a"), make_record("b", [OBJECT], [1]), make_record("c")]
        sampler = make_sampler(records, [[MOVED], [], []], True)
        assert sampler.unused == 2
        assert {sample.number for step in range(10) for sample in sampler.draw(step)} == {1}

    def test_nothing_to_train_on_at_all(self, make_record):
        with pytest.raises(PipelineError) as caught:
            make_sampler([make_record("a"), make_record("b")], [[MOVED], []])
        assert str(caught.value) == (
            "no region to train on in 2 images: none has IoU >= 0.1 with an object; check the annotations, "
            "or have more regions proposed (--max-proposals, --rpn-proposals)"
        )
        with pytest.raises(PipelineError, match="no region to train on in 0 images"):
            make_sampler([], [])


@pytest.mark.parametrize(("regions", "images"), [(1, 2), (127, 2), (4, 2), (2, 1)])
def test_a_share_that_is_no_number_or_has_no_foreground_is_refused(make_record, regions, images):
    with pytest.raises(PipelineError, match=f"{regions} regions of {images} images a step: give a multiple of the images"):
        make_sampler([make_record("a", [OBJECT], [0])], [[BACKGROUND]], regions=regions, images=images)
