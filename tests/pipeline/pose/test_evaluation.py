"""Figures of a cascade on objects whose errors are known, and what is said of objects that cannot be judged in full."""

import numpy as np
import pytest

from pipeline.datasets.keypoints import Skeleton
from pipeline.pose.evaluation import COCO_NAMES, MEAN_POSE, evaluate_poses, left_out, mean_pose, pose_table
from pipeline.pose.objects import PosedObjects

SKELETON = Skeleton(("head", "tail"), limbs=((0, 1),))
SIDE = 100.0


def objects(labelled, **counts):
    """Objects in boxes of 100 x 100 pixels, an image each, with joints at (20, 20) and (80, 80) of which some are labelled."""
    number = len(labelled)
    joints = np.tile(np.array([[20.0, 20], [80, 80]]), (number, 1, 1))
    boxes = np.tile([0, 0, SIDE, SIDE], (number, 1))
    return PosedObjects(np.arange(number), boxes, joints, np.array(labelled, bool), **{"without": 0, "with_one": 0, **counts})


def evaluate(poses, truth, **options):
    return evaluate_poses(
        np.array(poses), truth, mean_pose(truth), options.pop("skeleton", SKELETON), np.full(len(truth), SIDE),
        images=len(truth), resamples=50, generator=np.random.default_rng(0), **options,
    )


def moved(truth, *distances):
    """The true joints of each object, all moved right by its distance."""
    return truth.joints + np.array([[[distance, 0]] for distance in distances])


def test_figures_by_stage_and_the_gain_of_the_second():
    truth = objects([[1, 1], [1, 1]])
    result = evaluate([moved(truth, 5, 30), moved(truth, 5, 8)], truth)
    first, second = result["results"]["stage 1"], result["results"]["stage 2"]
    assert (first["pdj_10"], second["pdj_10"]) == (0.5, 1)
    assert first["pcp"] == 1  # a limb is 85 pixels long, its ends are 30 off
    assert result["gains"]["stage 2"]["gain"] == 0.5
    low, high = result["gains"]["stage 2"]["interval_95"]
    assert 0 <= low < 0.5 < high <= 1
    assert result["results"][MEAN_POSE]["pdj_10"] == 1  # all objects have the mean pose
    assert "stage 2 gains 50.0 (" in pose_table(result, SKELETON, "the box")


def test_an_object_with_one_joint_counts_with_it_and_has_no_limb():
    truth = objects([[1, 0], [1, 1]], without=3, with_one=1)
    result = evaluate([moved(truth, 50, 0)], truth)
    assert result["joints"] == 3
    assert result["results"]["stage 1"]["pdj_10"] == pytest.approx(2 / 3)
    assert result["results"]["stage 1"]["pcp"] == 1  # of the second object's limb alone
    assert list(left_out(result)) == [
        "3 objects have no keypoint and are left out.",
        "1 objects have a single keypoint: it counts, and none of their limbs does.",
    ]


def test_no_limb_at_all():
    truth = objects([[1, 0]], with_one=1)
    assert evaluate([moved(truth, 0)], truth)["results"]["stage 1"]["pcp"] is None


def test_all_joints_of_an_object_that_is_not_found_are_wrong():
    truth = objects([[1, 1], [1, 1]])
    poses = moved(truth, 0, 0)
    poses[1] = np.nan
    found_boxes = truth.boxes.copy()
    found_boxes[1] = np.nan
    result = evaluate([poses], truth, found_boxes=found_boxes)
    for name in ("stage 1", MEAN_POSE):
        assert result["results"][name]["pdj_10"] == 0.5
        assert result["results"][name]["pcp"] == 0.5
    assert result["objects_not_found"] == 1
    assert "1 of 2 objects are not found: all of their joints count as wrong." in pose_table(result, SKELETON, "the box")


def test_cocos_ap_for_its_own_keypoints_in_true_boxes():
    generator = np.random.default_rng(1)
    joints, boxes = generator.uniform(10, 90, (2, 17, 2)), np.tile([0, 0, SIDE, SIDE], (2, 1))
    truth = PosedObjects(np.arange(2), boxes, joints, np.ones((2, 17), bool), 0, 0)
    persons = Skeleton(COCO_NAMES)
    right = evaluate([joints], truth, skeleton=persons)
    assert right["results"]["stage 1"]["oks_ap"] == pytest.approx(1)
    assert "OKS AP" in pose_table(right, persons, "the box")
    assert "oks_ap" not in evaluate([joints], truth, skeleton=persons, found_boxes=boxes)["results"]["stage 1"]
    assert "oks_ap" not in evaluate([joints[:, :2]], objects([[1, 1]] * 2))["results"]["stage 1"]
