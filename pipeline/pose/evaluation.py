"""How well a cascade does on a split: PDJ and PCP by stage, beside the mean pose, with bootstrap intervals over the images."""

from collections.abc import Sequence

import numpy as np

from pipeline.datasets.keypoints import Skeleton
from pipeline.evaluation.keypoints import (
    COCO_JOINTS,
    FRACTIONS,
    distances,
    image_sums,
    oks_ap,
    pcp,
    pdj,
    pdj_hits,
    ratio,
    resampled_ratios,
)
from pipeline.evaluation.voc_ap import json_number
from pipeline.pose.geometry import from_window, mean_over_labelled, to_window
from pipeline.pose.objects import PosedObjects
from pipeline.tables import format_table, in_percent, interval_text

HEADLINE = 0.1  # the fraction of which intervals and differences are given
MEAN_POSE = "mean pose"
COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)
NOTE = """PDJ at f: labelled joints within f times {diameter}, in percent. PCP: limbs of which both
ends are within half of their true length. Mean pose: the mean over the training objects, placed in the box."""


def mean_pose(train: PosedObjects) -> np.ndarray:
    """The mean N(y; b) [k x 2] of the training objects in their boxes."""
    return mean_over_labelled(to_window(train.joints, train.boxes[:, None]), train.labelled)


def evaluate_poses(
    poses: np.ndarray, objects: PosedObjects, mean: np.ndarray, skeleton: Skeleton, diameters: np.ndarray, *, images: int,
    resamples: int, generator: np.random.Generator, found_boxes: np.ndarray | None = None,
) -> dict:
    """Figures of `poses` [S x N x k x 2], the cascade's after each stage, as JSON.

    `mean` [k x 2] is the mean pose in the box, `images` the number of the split's images. `found_boxes` [N x 4] are the boxes of
    a detector, where the poses do not come from the true ones. An object that it did not find has NaN as its box and its poses:
    all of its joints count as wrong.
    """
    boxes = objects.boxes if found_boxes is None else found_boxes
    baseline = from_window(np.broadcast_to(mean, objects.joints.shape), boxes[:, None])
    by_name = {**{f"stage {number}": pose for number, pose in enumerate(poses, 1)}, MEAN_POSE: baseline}
    far = {name: distances(pose, objects.joints) for name, pose in by_name.items()}
    hits = np.stack([pdj_hits(each, diameters, objects.labelled, HEADLINE).sum(axis=1) for each in far.values()], axis=1)
    counts = objects.labelled.sum(axis=1)
    sums, totals = image_sums(hits, objects.image, images), image_sums(counts, objects.image, images)
    kept = totals > 0  # only images with a labelled joint are resampled
    samples = resampled_ratios(sums[kept], totals[kept], resamples, generator)
    low, high = np.nanquantile(samples, (0.025, 0.975), axis=0)
    results = {}
    for column, (name, pose) in enumerate(by_name.items()):
        of_joints = pdj(far[name], diameters, objects.labelled, FRACTIONS)
        right = [pdj_hits(far[name], diameters, objects.labelled, fraction).sum() for fraction in FRACTIONS]
        limbs = pcp(pose, objects.joints, objects.labelled, skeleton.limbs)
        results[name] = {
            "pdj": _numbers(ratio(right, counts.sum())), "pdj_10": json_number(float(hits[:, column].sum() / counts.sum())),
            "interval_95": [json_number(float(low[column])), json_number(float(high[column]))],
            "joints": dict(zip(skeleton.names, _numbers(of_joints[FRACTIONS.index(HEADLINE)]), strict=True)),
            "limbs": _numbers(limbs), "pcp": json_number(float(np.nanmean(limbs))) if np.isfinite(limbs).any() else None,
            # NOTE: no AP with a detector's boxes. COCO's counts the poses of false detections too, which are not estimated here.
            **({"oks_ap": _oks(pose, objects, images)} if skeleton.names == COCO_NAMES and found_boxes is None else {}),
        }
    missed = {} if found_boxes is None else {"objects_not_found": int(np.isnan(found_boxes).any(axis=1).sum())}
    return {
        **missed, "objects": len(objects), "joints": int(counts.sum()), "objects_without_keypoints": objects.without,
        "objects_with_one_keypoint": objects.with_one, "fractions": list(FRACTIONS), "results": results,
        "gains": _gains(samples, hits, counts, len(poses)),
    }


def _gains(samples: np.ndarray, hits: np.ndarray, counts: np.ndarray, stages: int) -> dict:
    """By how much each later stage is better than the one before at HEADLINE, and the paired 95 % interval."""
    gains = {}
    for stage in range(1, stages):
        of_samples = samples[:, stage] - samples[:, stage - 1]
        low, high = np.nanquantile(of_samples, (0.025, 0.975)).tolist()
        gain = float((hits[:, stage] - hits[:, stage - 1]).sum() / counts.sum())
        gains[f"stage {stage + 1}"] = {"gain": json_number(gain), "interval_95": [json_number(low), json_number(high)]}
    return gains


def _oks(pose: np.ndarray, objects: PosedObjects, images: int) -> float | None:
    assert pose.shape[1] == COCO_JOINTS
    scores = np.ones(len(objects))
    value = oks_ap(
        pose, scores, image=objects.image, boxes=objects.boxes, joints=objects.joints, labelled=objects.labelled, images=images
    )
    return json_number(value)


def _numbers(values: np.ndarray) -> list:
    return [json_number(float(value)) for value in np.asarray(values)]


def pose_table(evaluation: dict, skeleton: Skeleton, diameter: str) -> str:
    """The figures of `evaluate_poses` as text."""
    results = evaluation["results"]
    shown = [f"PDJ {fraction:g}" for fraction in evaluation["fractions"]]
    rows = [[name, *map(in_percent, values["pdj"]), in_percent(values["pcp"]), interval_text(values["interval_95"])]
            for name, values in results.items()]
    parts = [format_table(["", *shown, "PCP", f"95 % of PDJ {HEADLINE:g}"], rows)]
    joints = [[name, *(in_percent(values["joints"][name]) for values in results.values())] for name in skeleton.names]
    parts.append(format_table([f"PDJ {HEADLINE:g}", *results], joints))
    if skeleton.limbs:
        names = [f"{skeleton.names[first]} - {skeleton.names[second]}" for first, second in skeleton.limbs]
        limbs = [[name, *(in_percent(values["limbs"][row]) for values in results.values())] for row, name in enumerate(names)]
        parts.append(format_table(["PCP", *results], limbs))
    if any("oks_ap" in values for values in results.values()):
        parts.append(format_table(["", "OKS AP"], [[name, in_percent(values["oks_ap"])] for name, values in results.items()]))
    gains = [f"{stage} gains {100 * values['gain']:.1f} ({interval_text(values['interval_95'])}) points of PDJ {HEADLINE:g}"
             for stage, values in evaluation["gains"].items()]
    lines = [NOTE.format(diameter=diameter), *(f"{line}." for line in gains), *left_out(evaluation)]
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def left_out(evaluation: dict) -> Sequence[str]:
    """What the evaluation does not judge, as sentences."""
    without, single = evaluation["objects_without_keypoints"], evaluation["objects_with_one_keypoint"]
    lines = [f"{without} objects have no keypoint and are left out."] if without else []
    if missed := evaluation.get("objects_not_found"):
        lines.append(f"{missed} of {evaluation['objects']} objects are not found: all of their joints count as wrong.")
    return lines + ([f"{single} objects have a single keypoint: it counts, and none of their limbs does."] if single else [])
