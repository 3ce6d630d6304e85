"""Feature scaling before the linear models (`rcnn_feature_stats.m`, `rcnn_scale_features.m` of rbgirshick/rcnn).

The cost of the SVMs and the ridge parameter of the regressors were chosen for features of one size, so every backbone's features
are multiplied by one number that brings their mean L2 norm to 20.

Shape shorthand: D feature size.
"""

import numpy as np
from numba import njit

from pipeline.errors import PipelineError
from pipeline.feature_store import FeatureStore

TARGET_NORM = 20.0  # rcnn_scale_features.m: with it, the SVM's cost of 1e-3 suits every layer
SAMPLED_IMAGES = 200  # rcnn_feature_stats.m
SAMPLED_BOXES = 200  # rcnn_feature_stats.m, per image
HALF_BIAS = np.float32(2.0**112)  # the exponents of float32 and float16 are biased by 127 and 15
BLOCK = 4096  # values that stay in the first-level cache between two loops


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
    # float64, because the square of a float16 above 255 overflows.
    return np.linalg.norm(widen(store.read(image, rows).features).astype(np.float64), axis=1)


def widen(features: np.ndarray) -> np.ndarray:
    """float16 features as float32, others as they are.

    By their bits: NumPy's own conversion branches on every zero and takes ten times as long on features behind a ReLU.
    """
    if features.dtype != np.float16:
        return features
    widened = np.empty(features.shape, np.float32)
    _widen_bits(np.ascontiguousarray(features).view(np.uint16).reshape(-1), widened.reshape(-1))
    return widened


@njit(nogil=True, cache=True)
def _widen_bits(halves, widened):
    for start in range(0, halves.size, BLOCK):
        source, target = halves[start : start + BLOCK], widened[start : start + BLOCK]
        bits = target.view(np.uint32)
        for k in range(source.size):
            half = np.uint32(source[k])
            # All exponent bits set: not a finite number, and none in float32.
            infinite = np.uint32(0x7F800000) if half & np.uint32(0x7C00) == np.uint32(0x7C00) else np.uint32(0)
            bits[k] = (half & np.uint32(0x8000)) << np.uint32(16) | (half & np.uint32(0x7FFF)) << np.uint32(13) | infinite
        # Subnormals are float32's now; the product makes them normal.
        for k in range(source.size):
            target[k] *= HALF_BIAS
