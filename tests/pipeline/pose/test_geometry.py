"""Coordinates of poses by hand, and against the fixtures of the paper's formulas where they are present."""

import numpy as np
import pytest

from pipeline.evaluation.keypoints import distances, pcp, pdj
from pipeline.pose.geometry import (
    displacement_statistics,
    enlarged,
    from_window,
    longer_sides,
    mean_over_labelled,
    mirrored_parts,
    to_window,
    windows_around,
)

BOX = np.array([[10, 20, 30, 60]], float)


def test_joints_in_a_window():
    joints = np.array([[[20, 40], [30, 60], [10, 30]]], float)
    parts = to_window(joints, BOX[:, None])
    np.testing.assert_allclose(parts, [[[0, 0], [0.5, 0.5], [-0.5, -0.25]]])
    np.testing.assert_allclose(from_window(parts, BOX[:, None]), joints)


def test_mirroring_changes_x_and_exchanges_left_and_right():
    parts = np.array([[0.1, 0.2], [0.3, -0.4], [0, 0.5]])
    order = np.array([1, 0, 2])
    mirrored = mirrored_parts(parts, order)
    np.testing.assert_allclose(mirrored, [[-0.3, -0.4], [-0.1, 0.2], [0, 0.5]])
    np.testing.assert_allclose(mirrored_parts(mirrored, order), parts)


def test_windows():
    assert enlarged(BOX, 1.5).tolist() == [[5, 10, 35, 70]]
    assert enlarged(BOX, 1, square=True).tolist() == [[0, 20, 40, 60]]
    assert longer_sides(BOX).tolist() == [40]
    assert windows_around(np.array([[[5, 6]]]), np.array([4])).tolist() == [[[3, 4, 7, 8]]]


def test_statistics_leave_out_what_is_not_labelled():
    values = np.array([[[1, 2], [5, 5]], [[3, 6], [7, 7]], [[99, 99], [9, 9]]], float)
    labelled = np.array([[True, False], [True, False], [False, False]])
    mean, variance = displacement_statistics(values, labelled)
    assert mean.tolist() == [[2, 4], [0, 0]]
    assert variance.tolist() == [[1, 4], [0, 0]]
    assert mean_over_labelled(values, labelled).tolist() == mean.tolist()


def test_figures_of_the_papers_formulas(shared):
    path = shared / "oracles2" / "pose.npz"
    if not path.is_file():
        pytest.skip(f"oracle absent: {path.name}")
    given = np.load(path, allow_pickle=False)
    true, poses, labelled = given["gt"], given["pred"], given["visible"].astype(bool)
    first, last = given["torso_joints"]
    torso = np.linalg.norm(true[:, first] - true[:, last], axis=-1)
    near = {"rtol": 0, "atol": 1e-9}
    np.testing.assert_allclose(pcp(poses, true, labelled, given["limbs"]), given["pcp_strict"], **near)
    np.testing.assert_allclose(pcp(poses, true, labelled, given["limbs"], relaxed=True), given["pcp_relaxed"], **near)
    np.testing.assert_allclose(pdj(distances(poses, true), torso, labelled, given["pdj_fractions"]), given["pdj"], **near)
    centre, half = given["box_centre"], given["box_size"] / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    np.testing.assert_allclose(to_window(true, boxes[:, None]), given["normalised"], **near)
    current = given["stage_current"]
    sides = given["stage_sigma"] * np.linalg.norm(current[:, first] - current[:, last], axis=-1)
    windows = windows_around(current, sides)
    np.testing.assert_allclose(windows, given["stage_boxes"], **near)
    np.testing.assert_allclose(to_window(true, windows), given["stage_targets"], **near)
    mean, variance = displacement_statistics(true - current, np.ones(labelled.shape, bool))
    np.testing.assert_allclose(mean, given["displacement_mean"], **near)
    np.testing.assert_allclose(variance, given["displacement_variance"], **near)
