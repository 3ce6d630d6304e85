"""The report's section of poses: the figures by stage, and test images with the joints and limbs after each stage."""

from collections.abc import Sequence

import numpy as np

from pipeline.datasets.keypoints import Skeleton
from pipeline.datasets.records import ImageRecord
from pipeline.pose.evaluation import left_out


def pose_section(
    evaluation: dict, skeleton: Skeleton, images: Sequence[ImageRecord], joints: np.ndarray, *, album, number: int
) -> dict:
    """What `pose.html` shows; `joints` [S x N x k x 2] are those of the test objects with keypoints, in order."""
    places = _places(images)
    chosen = [places[place] for place in np.linspace(0, len(places) - 1, min(number, len(places))).round().astype(int)]
    stages = [f"stage {stage}" for stage in range(1, len(joints) + 1)]
    shown = []
    for image, rows in chosen:
        record = images[image]
        poses = [(f"{name.replace(' ', '-')}", [_drawing(joints[stage, row], skeleton) for row in rows])
                 for stage, name in enumerate(stages) if stage in (0, len(stages) - 1)]
        shown.append((album.add(record), [("truth", _true_drawings(record, skeleton)), *poses], _radius(record)))
    return {
        "template": "pose.html", "results": evaluation["results"], "gains": evaluation["gains"], "stages": stages,
        "fractions": evaluation["fractions"], "joints": skeleton.names, "shown": shown, "images": len(places),
        "objects": evaluation["objects"], "left_out": left_out(evaluation),
    }


def _places(images: Sequence[ImageRecord]) -> list[tuple[int, range]]:
    """The images that have posed objects, and the rows of these among all posed objects."""
    places, first = [], 0
    for number, record in enumerate(images):
        if record.keypoints is None:
            continue
        count = int((record.counted & (record.keypoints[..., 2] > 0).any(axis=1)).sum())
        if count:
            places.append((number, range(first, first + count)))
        first += count
    return places


def _drawing(joints: np.ndarray, skeleton: Skeleton, labelled: np.ndarray | None = None) -> dict:
    """Lines (x1, y1, x2, y2) of the limbs and points (x, y, name) of the joints, in pixels."""
    known = np.isfinite(joints).all(axis=1) if labelled is None else labelled  # NaN: the object was not found
    at = np.round(joints, 1).tolist()
    limbs = [(*at[first], *at[second]) for first, second in skeleton.limbs if known[first] and known[second]]
    return {"limbs": limbs, "points": [(*at[place], skeleton.names[place]) for place in np.flatnonzero(known)]}


def _true_drawings(record: ImageRecord, skeleton: Skeleton) -> list[dict]:
    """The drawings of an image's labelled keypoints."""
    assert record.keypoints is not None
    rows = record.keypoints[record.counted].astype(np.float64)
    return [_drawing(row[:, :2], skeleton, row[:, 2] > 0) for row in rows if (row[:, 2] > 0).any()]


def _radius(record: ImageRecord) -> float:
    """Of a joint's point, in pixels of the image."""
    return round(0.008 * max(record.width, record.height), 1)
