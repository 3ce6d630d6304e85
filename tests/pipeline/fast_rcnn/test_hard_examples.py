"""Hard example mining: losses by hand, what is chosen, labels of all regions."""

import numpy as np
import pytest
import torch

from pipeline.fast_rcnn.hard_examples import HardExamples, hardest, region_losses
from pipeline.fast_rcnn.losses import fast_rcnn_loss
from pipeline.fast_rcnn.sampling import all_regions, draw_regions, match
from pipeline.faster_rcnn.joint import SAMPLING

pytestmark = pytest.mark.usefixtures("one_thread")
DEVIATIONS = np.tile((0.1, 0.1, 0.2, 0.2), (2, 1))


class TestHardest:
    def test_the_largest_in_order_of_the_regions(self):
        assert hardest(np.array([3.0, 9.0, 1.0, 7.0, 8.0]), 3).tolist() == [1, 3, 4]

    def test_of_equal_losses_the_first(self):
        assert hardest(np.array([1.0, 2.0, 2.0, 2.0]), 2).tolist() == [1, 2]

    def test_all_where_there_are_no_more(self):
        assert hardest(np.array([2.0, 1.0]), 128).tolist() == [0, 1]
        assert hardest(np.zeros(0), 128).tolist() == []

    def test_as_many_as_in_the_release(self):
        assert HardExamples().regions == 128

    def test_reference_outputs(self, shared):
        path = shared / "oracles2" / "rfcn.npz"
        if not path.is_file():
            pytest.skip("no reference outputs here")
        with np.load(path, allow_pickle=False) as data:
            losses, images, count = data["ohem_loss"], data["ohem_image"], int(data["ohem_rois_per_image"])
            expected = data["ohem_keep"]
        kept = np.zeros(len(losses), bool)
        for image in np.unique(images):
            rows = np.flatnonzero(images == image)
            kept[rows[hardest(losses[rows], count)]] = True
        np.testing.assert_array_equal(kept, expected)


def test_losses_of_regions_sum_up_to_fast_rcnns(rng):
    scores, deltas = torch.from_numpy(rng.normal(size=(20, 3))), torch.from_numpy(rng.normal(size=(20, 2, 4)))
    labels, targets = torch.from_numpy(rng.integers(0, 3, 20)), torch.from_numpy(rng.normal(size=(20, 4)))
    losses = region_losses(scores, deltas, labels, targets)
    torch.testing.assert_close(losses.sum(), fast_rcnn_loss(scores, deltas, labels, targets).sum())
    for number in range(20):
        row = slice(number, number + 1)
        alone = fast_rcnn_loss(scores[row], deltas[row], labels[row], targets[row])
        torch.testing.assert_close(losses[number], alone.sum())


class TestAllRegions:
    def matches(self, make_record):
        record = make_record("a", [[0, 0, 20, 20], [40, 0, 60, 30]], [1, 0])
        proposals = np.array([[0, 0, 20, 18], [0, 0, 20, 8], [70, 40, 80, 60]], np.float32)
        return match(record, proposals, 0.5)

    def test_by_hand(self, make_record):
        boxes, labels, targets = all_regions(self.matches(make_record), np.zeros((2, 4)), DEVIATIONS)
        assert len(boxes) == 5
        assert labels.tolist() == [2, 1, 2, 0, 0]  # IoU 0.9; 0.4; 0
        # From a height of 18 to 20: the centre moves by 1 of 18, and a tenth is the unit; the logarithm of 20 / 18 in fifths.
        np.testing.assert_allclose(targets[2], [0, 10 / 18, 0, 5 * np.log(20 / 18)], rtol=1e-5)
        assert not targets[[0, 1, 3, 4]].any()

    def test_a_sample_is_of_them(self, make_record, rng):
        matches = self.matches(make_record)
        rows = {(*box.tolist(), label): target.tolist() for box, label, target in zip(
            *all_regions(matches, np.zeros((2, 4)), DEVIATIONS), strict=True
        )}
        sample = draw_regions(matches, SAMPLING, rng, np.zeros((2, 4)), DEVIATIONS)
        for box, label, target in zip(*sample, strict=True):
            assert rows[(*box.tolist(), label)] == target.tolist()

    def test_an_image_without_objects_is_background(self, make_record):
        proposals = np.array([[0, 0, 20, 18]], np.float32)
        boxes, labels, targets = all_regions(match(make_record("a"), proposals, 0.5), np.zeros((2, 4)), DEVIATIONS)
        assert (boxes.tolist(), labels.tolist(), targets.any()) == (proposals.tolist(), [0], False)
