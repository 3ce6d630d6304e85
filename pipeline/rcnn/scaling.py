"""Feature scaling before the linear models (`rcnn_feature_stats.m`, `rcnn_scale_features.m` of rbgirshick/rcnn).

The cost of the SVMs and the ridge parameter of the regressors were chosen for features of one size, so every backbone's features
are multiplied by one number that brings their mean L2 norm to 20.

Shape shorthand: D feature size.
"""

import numpy as np

from pipeline.errors import PipelineError
from pipeline.feature_store import FeatureStore
from pipeline.half_floats import widen

__all__ = ["feature_scale", "widen"]

TARGET_NORM = 20.0  # rcnn_scale_features.m: with it, the SVM's cost of 1e-3 suits every layer
SAMPLED_IMAGES = 200  # rcnn_feature_stats.m
SAMPLED_BOXES = 200  # rcnn_feature_stats.m, per image


def feature_scale(
    store: FeatureStore, generator: np.random.Generator, images: int = SAMPLED_IMAGES, boxes: int = SAMPLED_BOXES
) -> float:
    """The factor that brings the mean L2 norm of the features in `store` to 20.

    The mean is over at most `images` random images and at most `boxes` random boxes of each, ground truth included. Raises
    PipelineError when the sample holds no box, or nothing but zeros, or a value that is not finite.
    """
    chosen = np.sort(generator.permutation(store.num_images)[:images])
    norms = np.concatenate([np.zeros(0), *(_sampled_norms(store, image, generator, boxes) for image in chosen.tolist())])
    mean = norms.mean() if len(norms) else 0.0
    if not (np.isfinite(mean) and mean > 0):
        raise PipelineError(
            f"features of {len(norms)} boxes in {len(chosen)} sampled images: mean L2 norm {mean:g}, expected a finite number "
            "above 0; check the backbone's weights and the proposals, then extract the features again"
        )
    return float(TARGET_NORM / mean)


def _sampled_norms(store: FeatureStore, image: int, generator: np.random.Generator, boxes: int) -> np.ndarray:
    rows = np.sort(generator.permutation(len(store.annotations(image).boxes))[:boxes])
    return store.norms(image, rows)
