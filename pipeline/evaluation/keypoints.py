"""How right poses are: PDJ, PCP and COCO's AP by object keypoint similarity.

- PDJ at f (percentage of detected joints): a joint is right within f times the object's diameter.
- PCP (percentage of correct parts): a limb is right if both of its ends are within half of its true length ("strict"). With
  `relaxed`, if the mean of the two distances is.
- OKS AP: COCO's, by pycocotools, for COCO's 17 keypoints of persons.

Joints that are not labelled, and limbs with such an end, are left out.

Shape shorthand: N objects, k joints, L limbs, F fractions, I images, R resamples. Distances and diameters are in pixels.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

PCP_THRESHOLD = 0.5
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)  # of the paper's curves
# Standard deviations of COCO's annotators, per keypoint (cocodataset.org, "Keypoint evaluation"), as pycocotools has them.
COCO_JOINTS = 17


def distances(poses: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distances [N x k] of `poses` from `true` ones, both [N x k x 2]."""
    return np.linalg.norm(poses - true, axis=-1)


def pdj_hits(far: np.ndarray, diameters: np.ndarray, labelled: np.ndarray, fraction: float) -> np.ndarray:
    """Which joints are right, bool [N x k]: labelled, and by at most `fraction` of the N `diameters` `far` [N x k]."""
    return labelled & (far <= fraction * diameters[:, None])


def pdj(far: np.ndarray, diameters: np.ndarray, labelled: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """The part of the labelled joints that is right, [F x k]; NaN for a joint that is never labelled."""
    hits = np.stack([pdj_hits(far, diameters, labelled, fraction).sum(axis=0) for fraction in fractions])
    return ratio(hits, labelled.sum(axis=0))


def pcp(
    poses: np.ndarray, true: np.ndarray, labelled: np.ndarray, limbs: Sequence[tuple[int, int]], *,
    threshold: float = PCP_THRESHOLD, relaxed: bool = False,
) -> np.ndarray:
    """The part of each of L limbs that is right: [L]; NaN for a limb that is never labelled."""
    if not len(limbs):
        return np.zeros(0)
    ends = np.array(limbs).T
    far = distances(poses, true)[:, ends]  # N x 2 x L
    lengths = np.linalg.norm(true[:, ends[0]] - true[:, ends[1]], axis=-1)
    known = labelled[:, ends[0]] & labelled[:, ends[1]]
    right = (far.mean(axis=1) if relaxed else far.max(axis=1)) <= threshold * lengths
    return ratio((right & known).sum(axis=0), known.sum(axis=0))


def image_sums(values: np.ndarray, image: np.ndarray, images: int) -> np.ndarray:
    """Sums [images x ...] of `values` [N x ...] over the objects of each image; `image` [N] says whose each is."""
    sums = np.zeros((images, *values.shape[1:]))
    np.add.at(sums, image, values)
    return sums


def resampled_ratios(hits: np.ndarray, counts: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Ratios [R x ...] of sums of `hits` [I x ...] and `counts` [I] over R resamples of the images, drawn with replacement.

    All columns of `hits` see the same resamples, so that differences between them are paired.
    """
    images = len(counts)
    drawn = generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)
    return ratio(np.tensordot(drawn, hits, 1), (drawn @ counts).reshape(-1, *[1] * (hits.ndim - 1)))


def ratio(parts, wholes) -> np.ndarray:
    """`parts` / `wholes`, NaN where nothing is there."""
    parts, wholes = np.broadcast_arrays(np.asarray(parts, np.float64), np.asarray(wholes, np.float64))
    return np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)


def diameters_between(joints: np.ndarray, labelled: np.ndarray, pair: tuple[int, int], boxes: np.ndarray) -> np.ndarray:
    """The N distances between the two joints of `pair`; the longer side of the box [N x 4] where one is not labelled."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    between = np.linalg.norm(joints[:, pair[0]] - joints[:, pair[1]], axis=-1)
    return np.where(labelled[:, pair].all(axis=1) & (between > 0), between, sides)


def oks_ap(
    poses: np.ndarray, scores: np.ndarray, *, image: np.ndarray, boxes: np.ndarray, joints: np.ndarray, labelled: np.ndarray,
    images: int,
) -> float:
    """COCO's AP by object keypoint similarity of one pose for each of N objects with COCO's 17 keypoints.

    NOTE: records have no outlines, so that an object's size is its box's area; COCO takes the outline's, which is smaller.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def data_set(points: np.ndarray, **columns) -> COCO:
        rows = []
        for number, own in enumerate(points):
            x1, y1, x2, y2 = boxes[number].tolist()
            visible = 2.0 * labelled[number] if "score" not in columns else np.full(COCO_JOINTS, 2.0)
            rows.append({
                "id": number + 1, "image_id": int(image[number]), "category_id": 1, "iscrowd": 0, "ignore": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
                "keypoints": np.concatenate([own, visible[:, None]], axis=1).ravel().tolist(),
                "num_keypoints": int((visible > 0).sum()), **{name: float(values[number]) for name, values in columns.items()},
            })
        coco = COCO()
        coco.dataset = {"images": [{"id": each} for each in range(images)], "annotations": rows, "categories": [{"id": 1}]}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(data_set(np.where(labelled[..., None], joints, 0)), data_set(poses, score=scores), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])
