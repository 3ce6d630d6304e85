"""One of torchvision's detectors as an ONNX file: its whole forward pass, suppression included, but for the resizing.

Resizing stays outside, because its rounding of sides changes in the exporter. The image is given in the network's size.

Shape shorthand: H x W pixels of the resized image, k detections, m x m cells of a mask.
"""

from pathlib import Path

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from pipeline.detection.onnx_export import write_detector
from pipeline.later_detectors.detect import NARROWEST, LaterDetection
from pipeline.later_detectors.network import predicts_masks


class WithoutResizing(nn.Module):
    """What torchvision does with an image beside resizing it: it is normalised and padded. Boxes stay in its pixels."""

    def __init__(self, transform: GeneralizedRCNNTransform):
        super().__init__()
        self.transform = transform

    def forward(self, images: list[Tensor], targets: None = None) -> tuple[ImageList, None]:
        (image,) = images
        height, width = image.shape[-2:]
        batch = self.transform.batch_images([self.transform.normalize(image)], self.transform.size_divisible)
        return ImageList(batch, [(height, width)]), None

    def postprocess(self, result: list[dict], *sizes: list) -> list[dict]:
        return result


class Outputs(nn.Module):
    """`image` [3 x H x W] in 0..1 -> the `names` of boxes [k x 4], scores [k], labels [k] and masks [k x 1 x m x m]."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, image: Tensor, factors: Tensor) -> tuple[Tensor, ...]:
        (outputs,) = self.network([image])
        return tuple(outputs[name] for name in self.names)


def write_later(detection: LaterDetection, folder: Path) -> dict:
    """Writes the file into `folder`; returns what a program needs besides it, as JSON. `detection` cannot be used after."""
    network = detection.detector.network
    transform = network.transform
    assert isinstance(transform, GeneralizedRCNNTransform)
    fixed = transform.fixed_size
    shorter, longest = transform.min_size[-1], transform.max_size
    names = ("boxes", "scores", "labels", *(("masks",) if predicts_masks(detection.detector) else ()))
    network.transform = WithoutResizing(transform)
    # A square would let the exporter take one side for the other.
    sides = fixed[::-1] if fixed else (shorter, min(longest, shorter * 4 // 3))
    write_detector(
        folder, Outputs(network, names), detection.limits, sides=sides, fixed=bool(fixed), names=names, limits_classes=True
    )
    return {
        "fixed_size": list(fixed[::-1]) if fixed else None, "shorter_side": shorter, "longest_side": longest,
        "narrowest": NARROWEST, "rounds": False,
    }
