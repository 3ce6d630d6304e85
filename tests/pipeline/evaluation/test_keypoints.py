"""PDJ, PCP, intervals and COCO's AP of poses, by hand."""

import numpy as np
import pytest

from pipeline.evaluation.keypoints import (
    diameters_between,
    distances,
    image_sums,
    oks_ap,
    pcp,
    pdj,
    resampled_ratios,
)

TRUE = np.array([[[0, 0], [10, 0]], [[0, 0], [0, 20]]], float)
LABELLED = np.array([[True, True], [True, False]])


def test_pdj_counts_labelled_joints_within_a_fraction_of_the_diameter():
    poses = TRUE + np.array([[[1, 0], [0, 2.5]], [[0, 3], [0, 0]]])
    shares = pdj(distances(poses, TRUE), np.array([10.0, 20.0]), LABELLED, (0.1, 0.15, 0.25))
    # Joint 0: 1 of 10 and 3 of 20; joint 1: 2.5 of 10, and one that is not labelled. The fraction itself counts.
    np.testing.assert_array_equal(shares, [[0.5, 0], [1, 0], [1, 1]])


def test_a_joint_that_is_never_labelled_has_no_pdj():
    assert np.isnan(pdj(np.zeros((1, 2)), np.ones(1), np.array([[True, False]]), (0.1,))).tolist() == [[False, True]]


def test_pcp_strict_and_relaxed():
    # A limb of 10: ends 1 and 7 away are one within 5 and one not, 4 on average.
    poses = np.array([[[0, 1], [10, 7]]], float)
    both = np.array([[True, True]])
    assert pcp(poses, TRUE[:1], both, [(0, 1)]).tolist() == [0]
    assert pcp(poses, TRUE[:1], both, [(0, 1)], relaxed=True).tolist() == [1]
    assert np.isnan(pcp(poses, TRUE[:1], np.array([[True, False]]), [(0, 1)])).all()
    assert pcp(poses, TRUE[:1], both, []).shape == (0,)


def test_the_box_stands_in_for_a_diameter_that_is_not_labelled():
    boxes = np.array([[0, 0, 30, 10], [0, 0, 5, 40]], float)
    assert diameters_between(TRUE, LABELLED, (0, 1), boxes).tolist() == [10, 40]


def test_sums_over_images():
    assert image_sums(np.array([[1, 2], [3, 4], [5, 6]]), np.array([0, 2, 2]), 4).tolist() == [[1, 2], [0, 0], [8, 10], [0, 0]]


def test_resamples_are_paired_and_of_images():
    hits, counts = np.array([[1, 2], [3, 4], [0, 1]], float), np.array([2.0, 4, 1])
    ratios = resampled_ratios(hits, counts, 500, np.random.default_rng(0))
    assert ratios.shape == (500, 2)
    # Column 1 is right in more of each image, so it is in every resample.
    assert (ratios[:, 1] > ratios[:, 0]).all()
    assert ratios[:, 0].mean() == pytest.approx(4 / 7, abs=0.05)
    np.testing.assert_array_equal(ratios, resampled_ratios(hits, counts, 500, np.random.default_rng(0)))


def test_oks_ap_of_right_and_of_wrong_poses(rng):
    joints = rng.uniform(0, 100, (4, 17, 2))
    boxes = np.tile([0.0, 0, 100, 100], (4, 1))
    image, scores = np.arange(4), np.ones(4)
    true = {"image": image, "boxes": boxes, "joints": joints, "labelled": np.ones((4, 17), bool), "images": 4}
    assert oks_ap(joints, scores, **true) == pytest.approx(1)
    assert oks_ap(joints + 500, scores, **true) == 0
    # Half of the objects are right; the scores rank them first.
    poses = np.where((image < 2)[:, None, None], joints, joints + 500)
    assert oks_ap(poses, np.array([1.0, 0.9, 0.1, 0.2]), **true) == pytest.approx(0.5, abs=0.01)
