"""Selective search by OpenCV's contributed modules, for comparison.

Its constants are not the paper's: `fast` has k = 150, 300 and 450 with regions of 100 pixels and more, in HSV and Lab. It needs
the package `opencv-contrib-python-headless`, which is optional: the extra `opencv` installs it.
"""

import ctypes

import numpy as np

from pipeline.errors import PipelineError


def find_boxes(image: np.ndarray, generator: np.random.Generator, quality: bool = False) -> np.ndarray:
    """Boxes float64 [N x 4] of a uint8 RGB `image` [H x W x 3] by OpenCV's `fast` or `quality` mode, highest priority first.

    Boxes are in whole pixels, 0-based with exclusive x2 and y2. One thread works. Raises PipelineError when OpenCV is not there.
    """
    try:
        import cv2

        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    except (ImportError, AttributeError) as error:
        raise PipelineError(
            "these proposals need OpenCV with its contributed modules: pip install opencv-contrib-python-headless, "
            "and remove any other opencv package"
        ) from error
    cv2.setNumThreads(1)
    # OpenCV draws the order with the C library's generator, of which a process has only one: not for several threads.
    ctypes.CDLL(None).srand(int(generator.integers(2**31)))
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    if quality:
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    left, top, width, height = np.asarray(search.process(), np.float64).reshape(-1, 4).T
    return np.stack([left, top, left + width, top + height], axis=1)
