"""A box of a photograph as R-CNN sees it: its features and the scores of all classes, by an exported detector.

Shape shorthand: C classes, D features.
"""

import numpy as np

from pipeline.boxes import clip
from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.rcnn.detect import RCNNDetector
from pipeline.rcnn.features import Regions, layer_from_pool5, region_features


def box_features(detector: RCNNDetector, pixels: np.ndarray, box: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The features float16 [D] and scores float32 [C] of `box` (x1, y1, x2, y2) in `pixels`, uint8 RGB [height x width x 3].

    The box is clipped to the photograph. Raises PipelineError for one that is less than a pixel wide or high there.
    """
    height, width, _ = pixels.shape
    boxes = clip(np.array([box], np.float32), height, width)
    if (boxes[0, 2:] - boxes[0, :2] < 1).any():
        raise PipelineError("the box is less than a pixel wide or high in the photograph; drag a larger one")
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    regions = [Regions(ImageRecord("", "", "", width, height, *nothing), boxes)]
    (features,) = region_features(regions, lambda _: pixels, detector.backbone, "pool5", detector.extraction)
    if detector.layer != "pool5":
        features = layer_from_pool5(features, detector.backbone, detector.layer, detector.extraction.device)
    return features[0], detector.models.svms.score(features)[0]
