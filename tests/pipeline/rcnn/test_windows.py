"""Training windows: labels by hand, the make-up of a batch, and that each crop keeps its label."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.boxes import iou
from pipeline.datasets.records import Split
from pipeline.errors import PipelineError
from pipeline.images.light import relight
from pipeline.networks.backbones import IMAGENET
from pipeline.rcnn.warp import crop_padding, warp
from pipeline.rcnn.windows import CropSettings, FineTuneSampler, JitteredObjectSampler, Windows, label_windows, window_batches
from pipeline.seeding import make_generator

NONE = np.zeros((0, 4), np.float32)


def make_windows(foreground=5, background=40):
    labels = np.concatenate([1 + np.arange(foreground), np.zeros(background, int)])
    return Windows(np.arange(len(labels)) % 7, np.tile(np.float32([0, 0, 9, 9]), (len(labels), 1)) + labels[:, None], labels)


class TestLabels:
    def test_by_hand(self, make_record):
        """Proposals of IoU 0.5 exactly, just below, and above with two objects; the better one gives the class."""
        first = make_record("a", [[0, 0, 10, 10], [4, 0, 14, 10]], [3, 0])
        proposals = np.float32([[0, 0, 10, 5], [0, 0, 10, 4.99], [1, 0, 11, 10], [3, 0, 13, 10], [30, 30, 40, 40]])
        windows = label_windows([first], lambda number: proposals)
        assert windows.labels.tolist() == [4, 1, 4, 0, 4, 1, 0]
        assert windows.labels.dtype == np.int64
        assert windows.image.tolist() == [0] * 7
        np.testing.assert_array_equal(windows.boxes, np.concatenate([first.boxes, proposals]))
        assert windows.boxes.dtype == np.float32

    def test_of_equal_overlaps_the_first_object_counts(self, make_record):
        record = make_record("a", [[0, 0, 10, 10], [0, 0, 10, 10], [2, 0, 12, 10]], [2, 1, 0])
        windows = label_windows([record], lambda number: np.float32([[1, 0, 11, 10]]))
        assert windows.labels.tolist() == [3, 3, 1, 3]

    def test_images_without_objects_or_proposals(self, make_record):
        records = [make_record("a"), make_record("b", [[0, 0, 5, 5]], [0]), make_record("c")]
        proposals = [np.float32([[0, 0, 1, 1], [0, 0, 2, 2]]), NONE, NONE]
        windows = label_windows(records, proposals.__getitem__)
        assert windows.image.tolist() == [0, 0, 1]
        assert windows.labels.tolist() == [0, 0, 1]
        assert len(windows) == 3

    def test_against_a_loop(self, make_record):
        generator = np.random.default_rng(0)
        corner = generator.uniform(0, 30, (4, 60, 2)).round()
        boxes = np.concatenate([corner, corner + generator.uniform(5, 40, (4, 60, 2)).round()], axis=2).astype(np.float32)
        records = [make_record(str(number), boxes[number, :5], generator.integers(0, 3, 5)) for number in range(4)]
        windows = label_windows(records, lambda number: boxes[number, 5:])
        for image, box, label in zip(windows.image, windows.boxes, windows.labels, strict=True):
            overlaps = [iou(box, truth).item() for truth in records[image].boxes]
            best = int(np.argmax(overlaps))
            assert label == (records[image].labels[best] + 1 if overlaps[best] >= 0.5 else 0)
        assert 20 < (windows.labels > 0).sum() < 200

    def test_take(self):
        taken = make_windows().take(np.array([3, 0, 3]))
        assert taken.labels.tolist() == [4, 1, 4]
        assert taken.image.tolist() == [3, 0, 3]
        assert taken.boxes[:, 0].tolist() == [4, 1, 4]


def assert_same_draw(first, second):
    (windows, mirrored), (expected, expected_mirrored) = first, second
    for name in ("image", "boxes", "labels"):
        np.testing.assert_array_equal(getattr(windows, name), getattr(expected, name))
    np.testing.assert_array_equal(mirrored, expected_mirrored)


class TestFineTuneSampler:
    def test_a_batch_has_32_foreground_and_96_background_windows(self):
        sampler = FineTuneSampler(make_windows(), 0)
        for step in range(20):
            windows, mirrored = sampler.draw(step)
            assert ((windows.labels > 0).sum(), (windows.labels == 0).sum()) == (32, 96)
            assert mirrored.shape == (128,)
            assert mirrored.dtype == bool

    def test_other_batch_sizes_keep_the_quarter(self):
        windows, _ = FineTuneSampler(make_windows(), 0, batch_size=10).draw(0)
        assert ((windows.labels > 0).sum(), (windows.labels == 0).sum()) == (2, 8)

    def test_draws_are_uniform_with_replacement(self):
        sampler = FineTuneSampler(make_windows(), 0)
        drawn = np.concatenate([sampler.draw(step)[0].labels for step in range(200)])
        counts = np.bincount(drawn, minlength=6)[1:]
        assert counts.sum() == 200 * 32
        assert stats.chisquare(counts).pvalue > 1e-3
        assert len(set(sampler.draw(0)[0].labels[:32])) <= 5  # 32 of 5: some occur twice

    def test_half_are_mirrored_whatever_their_class(self):
        sampler = FineTuneSampler(make_windows(), 0)
        mirrored = np.array([sampler.draw(step)[1] for step in range(200)])
        assert abs(mirrored[:, :32].mean() - 0.5) < 0.02
        assert abs(mirrored[:, 32:].mean() - 0.5) < 0.02

    def test_without_mirroring_the_same_windows_are_drawn_and_none_is_mirrored(self):
        for step in range(5):
            windows, mirrored = FineTuneSampler(make_windows(), 0, mirror=False).draw(step)
            assert not mirrored.any()
            assert_same_draw((windows, mirrored), (FineTuneSampler(make_windows(), 0).draw(step)[0], mirrored))

    def test_a_draw_depends_on_seed_and_step_alone(self):
        forwards, backwards = FineTuneSampler(make_windows(), 5), FineTuneSampler(make_windows(), 5)
        draws = [forwards.draw(step) for step in range(6)]
        for step in reversed(range(6)):
            assert_same_draw(backwards.draw(step), draws[step])
        labels = [tuple(windows.labels) for windows, _ in draws] + [tuple(FineTuneSampler(make_windows(), 6).draw(0)[0].labels)]
        assert len(set(labels)) == 7

    @pytest.mark.parametrize(("foreground", "background"), [(0, 3), (3, 0), (0, 0)])
    def test_without_foreground_or_background(self, foreground, background):
        with pytest.raises(PipelineError) as caught:
            FineTuneSampler(make_windows(foreground, background), 0)
        assert str(caught.value) == (
            f"fine-tuning needs foreground and background windows; found {foreground} with IoU >= 0.5 and {background} below; "
            "raise --max-proposals or set --finetune-iterations 0"
        )


class TestJitteredObjectSampler:
    @pytest.fixture
    def split(self, make_record):
        one_object = make_record("a", [[10, 20, 50, 40]], [1])
        two_objects = make_record("c", [[0, 0, 8, 8], [5, 5, 25, 45]], [0, 1])
        return Split("train", ("cat", "dog"), (one_object, make_record("b"), two_objects))

    def test_windows_are_the_objects_moved_and_resized_within_their_limits(self, split):
        sampler = JitteredObjectSampler(split, 0)
        objects = {(0, 1): [10, 20, 50, 40], (2, 0): [0, 0, 8, 8], (2, 1): [5, 5, 25, 45]}
        counts, shifts, scales = dict.fromkeys(objects, 0), [], []
        for step in range(40):
            windows, _ = sampler.draw(step)
            assert windows.boxes.dtype == np.float32
            for image, label, box in zip(windows.image, windows.labels, windows.boxes, strict=True):
                truth = np.array(objects[image, label])
                size = truth[2:] - truth[:2]
                counts[image, label] += 1
                shifts.append(((box[:2] + box[2:]) / 2 - (truth[:2] + truth[2:]) / 2) / size)
                scales.append((box[2:] - box[:2]) / size)
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
        shifts, scales = np.array(shifts), np.log(scales) / np.log(1.25)
        for values, limit in ((shifts, 0.15), (scales, 1.0)):
            assert np.abs(values).max() <= limit * (1 + 1e-5)
            assert (np.abs(values).max(axis=0) > 0.99 * limit).all()
            assert stats.kstest(values.ravel() / limit, stats.uniform(-1, 2).cdf).pvalue > 1e-3
            assert abs(np.corrcoef(values.T)[0, 1]) < 0.05  # x and y move alone

    def test_a_draw_depends_on_seed_and_step_alone(self, split):
        draws = [JitteredObjectSampler(split, 5).draw(step) for step in range(4)]
        sampler = JitteredObjectSampler(split, 5)
        for step in reversed(range(4)):
            assert_same_draw(sampler.draw(step), draws[step])
        assert not np.array_equal(draws[0][0].boxes, JitteredObjectSampler(split, 6).draw(0)[0].boxes)

    def test_mirroring_can_be_switched_off(self, split):
        (windows, mirrored), (unmirrored, none) = (JitteredObjectSampler(split, 0, mirror).draw(3) for mirror in (True, False))
        np.testing.assert_array_equal(windows.boxes, unmirrored.boxes)
        assert 40 < mirrored.sum() < 90
        assert not none.any()

    def test_the_light_of_each_crop_changes_channel_by_channel_within_its_limits(self, split):
        generator = np.random.default_rng(0)
        before = generator.normal(0, 1, (128, 16, 16, 3)).astype(np.float32)
        gains, offsets = [], []
        for step in range(20):
            crops = before.copy()
            JitteredObjectSampler(split, 0).alter(step, crops)
            for old, new in zip(before.reshape(128, -1, 3), crops.reshape(128, -1, 3), strict=True):
                gain = [(new[0, c] - new[1, c]) / (old[0, c] - old[1, c]) for c in range(3)]
                offset = [new[0, c] - gain[c] * old[0, c] for c in range(3)]
                np.testing.assert_allclose(new, old * gain + offset, atol=0.02)  # the same for all pixels
                gains.append(gain)
                offsets.append(offset)
        gains, offsets = np.array(gains), np.array(offsets)
        assert (np.sign(gains) == np.sign(gains[:, :1])).all()  # a negative is one in all channels
        assert abs((gains < 0)[:, 0].mean() - 0.5) < 0.04
        assert stats.kstest(np.abs(gains).ravel(), stats.uniform(0.5, 1).cdf).pvalue > 1e-3
        assert stats.kstest(offsets.ravel(), stats.norm(0, 0.3).cdf).pvalue > 1e-3
        for values in (np.abs(gains), offsets):
            assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.08  # each channel alone

    def test_the_light_depends_on_seed_and_step_alone(self, split):
        def altered(seed, step):
            crops = np.ones((128, 4, 4, 3), np.float32)
            JitteredObjectSampler(split, seed).alter(step, crops)
            return crops

        np.testing.assert_array_equal(altered(5, 2), altered(5, 2))
        assert (altered(5, 2) != altered(5, 3)).any()
        assert (altered(5, 2) != altered(6, 2)).any()

    def test_a_split_without_objects_is_refused(self, make_record):
        with pytest.raises(PipelineError, match="split train has no object to train a classifier on"):
            JitteredObjectSampler(Split("train", ("cat",), (make_record("a"),)), 0)


class TestBatches:
    CROP = 16

    @pytest.fixture
    def records(self, make_record):
        return [make_record(str(number)) for number in range(6)]

    @staticmethod
    def batches(sampler, records, read, first=0, count=3, padding=16, readers=1):
        settings = CropSettings(TestBatches.CROP, padding, IMAGENET, torch.device("cpu"), readers)
        stream = window_batches(sampler, records, read, settings, first)
        taken = list(itertools.islice(stream, count))
        stream.close()
        return taken

    def test_each_crop_keeps_its_label(self, records):
        """Image k is of one colour, 40 k, and all windows on it bear the label k."""
        colours = [np.full((60, 80, 3), 40 * number, np.uint8) for number in range(6)]
        image = np.tile(np.arange(6), 20)
        sampler = FineTuneSampler(Windows(image, np.tile(np.float32([20, 20, 40, 40]), (120, 1)), image), 0)
        for step, (crops, labels) in enumerate(self.batches(sampler, records, lambda record: colours[int(record.id)])):
            assert crops.shape == (128, self.CROP, self.CROP, 3)
            assert crops.dtype == np.float32
            grey = crops * IMAGENET.std + IMAGENET.mean
            np.testing.assert_allclose(grey, np.broadcast_to(40 * labels[:, None, None, None], grey.shape), atol=0.01)
            assert sorted(labels) == sorted(sampler.draw(step)[0].labels)

    def test_crops_are_those_of_the_windows_with_context_and_mirroring(self, make_record):
        """The images differ in size, and context reaches out of most of them."""
        generator = np.random.default_rng(0)
        records = [make_record(str(number), height=30 + 5 * number, width=55 - 5 * number) for number in range(6)]
        pixels = [generator.integers(0, 256, (record.height, record.width, 3), np.uint8) for record in records]
        corner = generator.uniform(0, 10, (50, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(5, 20, (50, 2))], axis=1).astype(np.float32)
        sampler = FineTuneSampler(Windows(generator.integers(0, 6, 50), boxes, generator.integers(0, 3, 50)), 3, batch_size=24)
        for step, (crops, labels) in enumerate(self.batches(sampler, records, lambda record: pixels[int(record.id)])):
            windows, mirrored = sampler.draw(step)
            assert 0 < mirrored.sum() < 24
            expected = []
            for row in sorted(range(24), key=lambda row: windows.image[row]):
                crop = np.zeros((1, self.CROP, self.CROP, 3), np.float32)
                context = crop_padding(16, self.CROP)
                warp(pixels[windows.image[row]], windows.boxes[row, None], crop, IMAGENET.mean, IMAGENET.std, padding=context)
                expected.append((crop[0, :, ::-1] if mirrored[row] else crop[0], windows.labels[row]))
            assert labels.tolist() == [label for _, label in expected]
            np.testing.assert_allclose(crops, np.stack([crop for crop, _ in expected]), atol=1e-5)

    def test_batches_from_a_later_step_on_are_the_same(self, records):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        sampler = FineTuneSampler(Windows(np.arange(40) % 6, make_windows(5, 35).boxes, make_windows(5, 35).labels), 3)
        whole = self.batches(sampler, records, lambda record: pixels, 0, 5)
        for first in (2, 4):
            for batch, expected in zip(self.batches(sampler, records, lambda record: pixels, first, 5 - first), whole[first:]):
                np.testing.assert_array_equal(batch[0], expected[0])
                np.testing.assert_array_equal(batch[1], expected[1])

    def test_objects_are_relit_whatever_the_step_at_which_the_batches_start(self, records, make_record):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        records = [make_record("a", [[10, 20, 50, 40]], [1])]
        sampler = JitteredObjectSampler(Split("train", ("cat", "dog"), tuple(records)), 3)
        altered = self.batches(sampler, records, lambda record: pixels, 0, 3)
        for batch, expected in zip(self.batches(sampler, records, lambda record: pixels, 1, 2), altered[1:], strict=True):
            np.testing.assert_array_equal(batch[0], expected[0])
        sampler.alter = lambda step, crops: None
        for step, (crops, _) in enumerate(self.batches(sampler, records, lambda record: pixels, 0, 3)):
            JitteredObjectSampler.alter(sampler, step, crops)
            np.testing.assert_array_equal(crops, altered[step][0])

    @pytest.mark.parametrize("light", [False, True])
    def test_windows_are_relit_as_objects_are_or_not_at_all(self, records, light):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        windows = Windows(np.arange(40) % 6, make_windows(5, 35).boxes, make_windows(5, 35).labels)
        relit = self.batches(FineTuneSampler(windows, 3, light=light), records, lambda record: pixels, 0, 3)
        plain = self.batches(FineTuneSampler(windows, 3), records, lambda record: pixels, 0, 3)
        for step, ((crops, _), (expected, _)) in enumerate(zip(relit, plain, strict=True)):
            if light:
                relight(expected, make_generator(3, "light", step))
            np.testing.assert_array_equal(crops, expected)

    def test_any_number_of_readers_gives_the_same_bytes(self, records):
        pixels = np.random.default_rng(0).integers(0, 256, (6, 60, 80, 3), np.uint8)
        windows = Windows(np.arange(40) % 6, make_windows(5, 35).boxes, make_windows(5, 35).labels)
        sampler = FineTuneSampler(windows, 3, light=True)
        read = lambda record: pixels[int(record.id)]  # noqa: E731
        by_readers = [self.batches(sampler, records, read, readers=readers) for readers in (1, 2, 9)]
        bytes_of = [[(crops.tobytes(), labels.tobytes()) for crops, labels in batches] for batches in by_readers]
        assert bytes_of[0] == bytes_of[1] == bytes_of[2]

    def test_an_image_is_read_once_a_batch(self, records):
        reads = []

        def read(record):
            reads.append(record.id)
            return np.zeros((60, 80, 3), np.uint8)

        sampler = FineTuneSampler(Windows(np.arange(40) % 6, make_windows(5, 35).boxes, make_windows(5, 35).labels), 3)
        self.batches(sampler, records, read, count=1)
        assert reads[:6] == ["0", "1", "2", "3", "4", "5"]
