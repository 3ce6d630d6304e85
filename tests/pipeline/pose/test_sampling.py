"""Windows to train poses on: their targets point at the joints, mirrored or not; unlabelled joints never count."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.networks.backbones import IMAGENET
from pipeline.pose.geometry import from_window, mirrored_parts
from pipeline.pose.objects import posed_objects, skeleton_of
from pipeline.pose.sampling import JointWindows, ObjectWindows, pose_batches

ORDER = np.array([1, 0, 2])


def object_windows(objects, **changes):
    return ObjectWindows(objects, ORDER, 3, **{"batch_size": 40, "mirror": True, "context": 1.2, "square": True, **changes})


def joint_windows(objects, deviation=0.1, **changes):
    errors = {"error_mean": np.full((3, 2), 0.05), "error_deviation": np.full((3, 2), deviation)}
    return JointWindows(objects, ORDER, 3, **{"batch_size": 40, "mirror": True, "sigma": 1.0, "stage": "2", **errors, **changes})


def joints_of(batch, objects):
    """The joints, in pixels, that the targets of a batch stand for."""
    parts = batch.targets.astype(np.float64)
    parts[batch.mirrored] = mirrored_parts(parts[batch.mirrored], ORDER)
    labelled = batch.labelled.copy()
    labelled[batch.mirrored] = labelled[batch.mirrored][:, ORDER]
    return from_window(parts, batch.windows[:, None].astype(np.float64)), labelled


@pytest.mark.parametrize("make", [object_windows, joint_windows])
def test_targets_say_where_the_joints_are(posed, make):
    _, _, objects = posed
    batch = make(objects).draw(7)
    assert 0 < batch.mirrored.sum() < 40
    assert not batch.labelled[:, 2].any()
    joints, labelled = joints_of(batch, objects)
    true = objects.joints[batch.image]  # one object an image
    assert np.abs(joints - true)[labelled].max() < 1e-3
    assert not batch.targets[~batch.labelled][:, 0].any() or make is object_windows


def test_a_later_stage_trains_one_joint_a_window_and_errs_as_told(posed):
    _, _, objects = posed
    batch = joint_windows(objects, deviation=0.0, mirror=False).draw(0)
    assert (batch.labelled.sum(axis=1) == 1).all()
    # The pose before is 0.05 sides right of and below the joint: the joint is 0.05 left of the window's centre and above it.
    np.testing.assert_allclose(batch.targets[batch.labelled], -0.05, atol=0.03)  # windows are whole pixels


def test_nothing_is_mirrored_where_that_is_forbidden(posed):
    assert not object_windows(posed[2], mirror=False).draw(0).mirrored.any()


def test_steps_differ_and_repeat(posed):
    sampler = object_windows(posed[2])
    assert not np.array_equal(sampler.draw(0).windows, sampler.draw(1).windows)
    np.testing.assert_array_equal(sampler.draw(1).windows, object_windows(posed[2]).draw(1).windows)


def test_a_training_that_goes_on_sees_the_same_batches(posed):
    split, read, objects = posed
    options = {"side": 16, "norm": IMAGENET, "light": True}
    batches = pose_batches(object_windows(objects), split.images, read, 0, **options)
    next(batches), next(batches)
    values, batch = next(batches)
    again, same = next(pose_batches(object_windows(objects), split.images, read, 2, **options))
    np.testing.assert_array_equal(values, again)
    np.testing.assert_array_equal(batch.targets, same.targets)


def test_objects_without_keypoints_are_counted_and_left_out(posed, make_record):
    split, _, objects = posed
    assert len(objects) == 6
    assert objects.without == 0
    assert objects.with_one == 0
    bare = make_record("bare", [[0, 0, 5, 5], [1, 1, 6, 6]], [0, 0])
    single = make_record("one", [[0, 0, 5, 5], [1, 1, 6, 6]], [0, 0])
    object.__setattr__(single, "keypoints", np.array([[[1, 1, 2], [0, 0, 0], [0, 0, 0]], np.zeros((3, 3))], np.float32))
    more = posed_objects([bare, single, *split.images], 3)
    assert (len(more), more.without, more.with_one) == (7, 3, 1)
    assert more.image.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_a_split_without_keypoints_is_refused(posed):
    from dataclasses import replace

    with pytest.raises(PipelineError, match=r"split 'train' has no keypoints; add keypoints\.json"):
        skeleton_of(replace(posed[0], skeleton=None))
