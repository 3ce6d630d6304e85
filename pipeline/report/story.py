"""The story of one image through R-CNN: from its pixels by regions, crops, scores and moved boxes to what is left in the end.

Shape shorthand: n proposals, C classes, S side of a crop.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.boxes import clip
from pipeline.detection.candidates import Candidates, Limits
from pipeline.evaluation.voc_ap import FALSE_POSITIVE, TRUE_POSITIVE, Matches
from pipeline.feature_store import PROPOSAL, ImageFeatures
from pipeline.networks.backbones import Backbone
from pipeline.proposals.colours import convert_colours
from pipeline.proposals.segmentation import segment
from pipeline.proposals.selective_search import MODES, resize
from pipeline.rcnn.detect import LinearModels, detect_regions
from pipeline.rcnn.warp import crop_padding, warp
from pipeline.report.gallery import counted

DEFAULT_MODE = "balanced"
BORDER = np.array([255, 255, 255], np.uint8)


@dataclass(frozen=True)
class ScoredRegion:
    """A proposal, the class of its highest score, and where that class's regressor moves it (None without regressors)."""

    box: tuple[float, ...]
    label: int
    score: float
    moved: tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class Story:
    """`proposals` float32 [n x 4], highest priority first; `strip` and `best` of them, by falling score; the candidates."""

    proposals: np.ndarray
    strip: list[ScoredRegion]
    best: list[ScoredRegion]
    candidates: Candidates


def choose_image(matches: Matches, points: np.ndarray) -> int:
    """The image with most hits at the operating points [C]; of equals that with fewest false alarms, then the first."""
    images, rows = len(matches.num_positives), counted(matches, points)
    hits, false_alarms = (
        np.bincount(matches.detections.image_index[rows & (matches.outcome == outcome)], minlength=images)
        for outcome in (TRUE_POSITIVE, FALSE_POSITIVE)
    )
    return int(np.lexsort((false_alarms, -hits))[0])


def tell_story(
    rows: ImageFeatures, pool5: np.ndarray, size: tuple[int, int], models: LinearModels, limits: Limits, *, strip: int, best: int
) -> Story:
    """What R-CNN does with one image of `size` (height, width) in pixels.

    `rows` are the image's in the store of the SVMs' layer, `pool5` float16 [n x D] in that of the regressors'. `strip` proposals
    are taken evenly from the highest to the lowest score, and the `best` highest.
    """
    chosen = rows.gt_labels == PROPOSAL
    boxes, features, pool5 = rows.boxes[chosen], rows.features[chosen], pool5[chosen]
    scores, regressors = models.svms.score(features), models.regressors
    candidates = detect_regions(boxes, features, pool5, size=size, models=models, limits=limits)
    labels = scores.argmax(axis=1)
    highest = scores[np.arange(len(labels)), labels]
    order = np.argsort(-highest, kind="stable")

    def region(row: int) -> ScoredRegion:
        label, moved = int(labels[row]), None
        if regressors is not None:
            (after,) = clip(regressors.predict(pool5[[row]], boxes[[row]], label), *size)
            moved = tuple(after.tolist())
        return ScoredRegion(tuple(boxes[row].tolist()), label, float(highest[row]), moved)

    places = np.linspace(0, max(0, len(order) - 1), min(strip, len(order))).round().astype(int)
    return Story(boxes, [region(row) for row in order[places]], [region(row) for row in order[:best]], candidates)


def segmentation_mode(method: str) -> str:
    """The mode of our search whose first segmentation is shown for proposals by `method`."""
    return method if method in MODES else DEFAULT_MODE


def segmentation_picture(image: np.ndarray, mode: str, image_width: int | None = None) -> np.ndarray:
    """The first segmentation that selective search makes of uint8 `image` [H x W x 3] in `mode`: uint8, resized as there.

    Each region has its mean colour; white lines part the regions.
    """
    settings = MODES[mode]
    image = resize(image, image_width, settings.longest_side)
    labels = segment(convert_colours(image, settings.colours[0]), settings.scales[0])
    sizes = np.bincount(labels.ravel())
    means = [np.bincount(labels.ravel(), image[..., channel].ravel()) / sizes for channel in range(3)]
    picture = np.stack(means, axis=1).round().astype(np.uint8)[labels]
    picture[:, :-1][labels[:, :-1] != labels[:, 1:]] = BORDER
    picture[:-1][labels[:-1] != labels[1:]] = BORDER
    return picture


def warped_crops(image: np.ndarray, boxes: np.ndarray, backbone: Backbone, padding: int) -> np.ndarray:
    """R-CNN's crops of `boxes` [n x 4] as `backbone` sees them: uint8 [n x S x S x 3]; `padding` as for 227 x 227."""
    size, mean = backbone.crop_size, backbone.view.norm.mean
    crops = np.empty((len(boxes), size, size, 3), np.float32)
    warp(image, boxes, crops, mean, np.ones(3), padding=crop_padding(padding, size))
    return np.clip(crops + np.array(mean, np.float32), 0, 255).round().astype(np.uint8)
