"""A trained cascade of poses on new images: `PoseModel.load(folder).estimate("photo.jpg", boxes)`.

A folder holds all that it needs: `pose.json`, with the names of the joints and the settings, and the network of each stage.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.images.photographs import read_pixels
from pipeline.networks.compute import prepare
from pipeline.pose.drawing import draw_poses
from pipeline.pose.estimate import Framing, PoseEstimator
from pipeline.pose.network import PoseNetwork, restore_network
from pipeline.pose_model_folder import ADVICE, SETTINGS, network_paths, read_settings
from pipeline.text import flat


class PoseModel:
    """The networks of all stages, ready for images of up to `max_megapixels`.

    `names` are those of the joints, `classes` those that have joints.
    """

    def __init__(self, settings: dict, estimator: PoseEstimator, max_megapixels: float = MAX_MEGAPIXELS):
        self.settings, self.estimator, self.max_megapixels = settings, estimator, max_megapixels
        self.names, self.classes = tuple(settings["names"]), tuple(settings["classes"])

    @classmethod
    def load(
        cls, folder: Path | str, device: str = "cpu", threads: int | None = None, max_megapixels: float = MAX_MEGAPIXELS
    ) -> "PoseModel":
        """The pose model that `ExportPoseModel` wrote to `folder`, on `threads` threads (torch's own number).

        Raises PipelineError, naming the file, for a folder that is damaged, is not a pose model's or links to files elsewhere,
        and for an unknown device.
        """
        settings = read_settings(folder)
        paths = network_paths(folder, len(settings["sides"]))
        prepared = prepare(device, threads or torch.get_num_threads())
        try:
            networks = [_restore(path, settings, side) for path, side in zip(paths, settings["sides"], strict=True)]
        except PipelineError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # of any tensors
            fault = f"{type(error).__name__}: {flat(error)}"
            raise PipelineError(f"{Path(folder) / SETTINGS}: not that of a pose model ({fault}); {ADVICE}") from error
        estimator = PoseEstimator(networks, Framing(**settings["framing"]), prepared, settings["precision"])
        return cls(settings, estimator, max_megapixels)

    def estimate(self, image: Path | str | Image.Image | np.ndarray, boxes: np.ndarray | None = None) -> np.ndarray:
        """The joints after the last stage, in pixels, float64 [N x k x 2], of the objects in `boxes` [N x 4].

        Boxes are (x1, y1, x2, y2), such as those of a `Detector`. Without them the whole image is the only box. The image is the
        path of a file, a PIL image, or uint8 RGB pixels [height x width x 3]; files and PIL images are turned as EXIF says.
        Raises PipelineError for an image that cannot be used, and for boxes without area.
        """
        pixels = read_pixels(image, self.max_megapixels)
        if boxes is None:
            boxes = np.array([[0, 0, pixels.shape[1], pixels.shape[0]]])
        boxes = np.asarray(boxes, np.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not (boxes[:, 2:] > boxes[:, :2]).all() or not np.isfinite(boxes).all():
            raise PipelineError("boxes: expected finite numbers (x1, y1, x2, y2) [N x 4] with x1 < x2 and y1 < y2")
        return self.estimator.estimate(pixels, boxes)[-1]

    def draw(self, image: Path | str | Image.Image | np.ndarray, joints: np.ndarray) -> Image.Image:
        """The image with the joints [N x k x 2] and limbs of N objects."""
        return draw_poses(read_pixels(image, self.max_megapixels), joints, self.settings["limbs"])


def _restore(path: Path, settings: dict, side: int) -> PoseNetwork:
    """The network of a stage, from its file."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PipelineError(f"{path}: cannot be read ({flat(error)}); {ADVICE}") from error
    return restore_network(tensors, settings["backbone"], len(settings["names"]), side, str(path))
