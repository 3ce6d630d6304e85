"""R-CNN's detections in an image: score the regions, move their boxes, keep the best, suppress (`rcnn_test.m`).

Ground-truth boxes that the feature store holds beside the proposals take no part.

Shape shorthand: n proposals, C classes, D features.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline import boxes as box_algebra
from pipeline.datasets.records import ImageRecord
from pipeline.detection.candidates import RELEASE_LIMITS, Candidates, Limits, top_scoring
from pipeline.feature_store import PROPOSAL, FeatureStore
from pipeline.networks.backbones import Backbone
from pipeline.rcnn.box_regression import BoxRegressors
from pipeline.rcnn.features import Extraction, Regions, layer_from_pool5, region_features
from pipeline.rcnn.softmax import SoftmaxScores
from pipeline.rcnn.svm import LinearSVMs


class LinearModels(NamedTuple):
    """What is trained on the features of regions: SVMs (or the network's softmax) and, if wanted, box regressors."""

    svms: LinearSVMs | SoftmaxScores
    regressors: BoxRegressors | None = None


def detect_regions(
    boxes: np.ndarray, features: np.ndarray, pool5: np.ndarray, *, size: tuple[float, float], models: LinearModels,
    limits: Limits = RELEASE_LIMITS,
) -> Candidates:
    """The candidates among the proposals `boxes` [n x 4] of an image of `size` (height, width) in pixels.

    `features` [n x D] are of the SVMs' layer, `pool5` of the regressors'. Boxes are moved before suppression, then clipped.
    """
    regressors, scores = models.regressors, models.svms.score(features)
    moved = np.repeat(np.asarray(boxes, np.float32)[:, None], scores.shape[1], axis=1)
    if regressors is not None and len(boxes) and not limits.max_per_image:
        moved[:] = regressors.predict(pool5, boxes).transpose(1, 0, 2)
    elif regressors is not None and len(boxes):
        # Only the best of each class are candidates: the others need not be moved.
        best = np.argsort(-scores, axis=0, kind="stable")[: limits.max_per_image]
        for label, rows in enumerate(best.T):
            moved[rows, label] = regressors.predict(pool5[rows], boxes[rows], label)
    return top_scoring(scores, box_algebra.clip(moved, *size), *limits)


def detect_in_store(
    store: FeatureStore, pool5_store: FeatureStore, images: Sequence[ImageRecord], models: LinearModels, limits: Limits
) -> Iterator[Candidates]:
    """`detect_regions` for each image of a store; the two stores may be the same."""
    for number, image in enumerate(images):
        rows = store.read(number)
        chosen = rows.gt_labels == PROPOSAL
        features = rows.features[chosen]
        pool5 = features if pool5_store is store else pool5_store.read(number).features[chosen]
        size = image.height, image.width
        yield detect_regions(rows.boxes[chosen], features, pool5, size=size, models=models, limits=limits)


class RCNNDetector:
    """Detections of one image from its pixels and proposals: crop, warp, network, `detect_regions`.

    `backbone` is ready for inference. Gives what `detect_in_store` gives, up to the rounding of other batches.
    """

    def __init__(
        self, backbone: Backbone, layer: str, extraction: Extraction, models: LinearModels, limits: Limits = RELEASE_LIMITS
    ):
        self.backbone, self.layer, self.extraction = backbone, layer, extraction
        self.models, self.limits = models, limits

    def detect(self, pixels: np.ndarray, proposals: np.ndarray) -> Candidates:
        """The candidates among `proposals` [n x 4] in `pixels`, uint8 RGB [height x width x 3]."""
        height, width, _ = pixels.shape
        no_boxes, no_labels, no_marks = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        image = ImageRecord("", "", "", width, height, no_boxes, no_labels, no_marks)  # of no data set
        regions = [Regions(image, np.asarray(proposals, np.float32))]
        (pool5,) = region_features(regions, lambda _: pixels, self.backbone, "pool5", self.extraction)
        features = pool5 if self.layer == "pool5" else layer_from_pool5(
            pool5, self.backbone, self.layer, self.extraction.device
        )
        return detect_regions(proposals, features, pool5, size=(height, width), models=self.models, limits=self.limits)
