"""One module for each of the detectors: built from its description, restored from its tensors.

Batch normalisation is frozen in all of them, as in the papers (He et al. 2016, appendix A): batches of two images have no
statistics to go by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import MaskRCNN
from torchvision.ops import FrozenBatchNorm2d

from pipeline.errors import PipelineError
from pipeline.later_detectors import ssd
from pipeline.later_detectors.maps import Pyramid, TrunkMaps
from pipeline.later_detectors.mask_rcnn import mask_rcnn
from pipeline.later_detectors.names import PAPER, model_name
from pipeline.later_detectors.retinanet import PaperRetinaNet, widen_towers
from pipeline.networks.backbones import Backbone, make_backbone
from pipeline.networks.weights import load_tensors

LEAST_SIZE = 32
RATIO = 5 / 3  # longer side by shorter side, at most
MOST_CLASSES = 100_000
FROZEN = ("conv1", "bn1", "layer1")  # of a ResNet (Detectron: FREEZE_AT 2)
PAPER_CHANNELS = 256
NUM_OUTPUTS = "num_outputs"
# torchvision's weights of these were trained by Caffe2, which adds nothing to the variance (`overwrite_eps`).
EXACT_VARIANCE = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")


@dataclass(frozen=True)
class Design:
    """What a detector is built from.

    `chain` is a name of `names`; `trunk` one of our backbones, or `paper`. `size` is the side of SSD's square images, the shorter
    side of the others', or 0 for torchvision's own. `channels` are those of new layers, `regions` those of an image that Mask
    R-CNN's second stage trains on.
    """

    chain: str
    trunk: str
    size: int
    channels: int = PAPER_CHANNELS
    regions: int = 512


class LaterDetector(nn.Module):
    """A detector of torchvision with frozen batch normalisation. `num_outputs` classes, with the background."""

    num_outputs: Tensor

    def __init__(self, design: Design, num_outputs: int, backbone: Backbone | None = None):
        """`backbone` is the trunk, where it is one of ours; without it a new one is made."""
        super().__init__()
        self.design = design
        self.register_buffer(NUM_OUTPUTS, torch.tensor(float(num_outputs)))
        of_paper = design.trunk == PAPER or bool(model_name(design.chain))
        if design.size < LEAST_SIZE and not (of_paper and design.size == 0):
            raise PipelineError(f"{design.chain}: images of {design.size} pixels are too small; give {LEAST_SIZE} or more")
        self.network = _paper_network(design, num_outputs) if of_paper else _on_backbone(
            design, num_outputs, backbone or make_backbone(design.trunk)
        )
        _freeze_normalisation(self.network, 0.0 if model_name(design.chain) in EXACT_VARIANCE else None)

    @property
    def num_classes(self) -> int:
        return int(self.num_outputs) - 1

    @property
    def second_stage(self):
        """What suppresses detections and holds their limits: the heads of regions, where there are any."""
        return getattr(self.network, "roi_heads", self.network)

    @property
    def is_normalised(self) -> bool:
        """Whether it has batch normalisation, whose statistics have to come from a file."""
        return any(isinstance(module, FrozenBatchNorm2d) for module in self.modules())

    def forward(self, images: list[Tensor], targets: list[dict] | None = None):
        """Losses by name in training, detections else: see torchvision's models."""
        return self.network(images, targets)


def _on_backbone(design: Design, num_outputs: int, backbone: Backbone) -> nn.Module:
    norm = backbone.view.norm
    mean, deviation = (tuple(value / 255 for value in values) for values in (norm.mean, norm.std))
    backbone.trunk[: backbone.frozen].requires_grad_(False)
    if design.chain == "ssd":
        maps = TrunkMaps(backbone, (8, 16))
        return ssd.released_ssd(ssd.SSDTrunk(maps, design.size, design.channels), design.size, num_outputs, mean, deviation)
    sides = {"min_size": design.size, "max_size": int(design.size * RATIO)}
    transform = {**sides, "image_mean": list(mean), "image_std": list(deviation)}
    if design.chain == "retinanet":
        network = PaperRetinaNet(Pyramid(TrunkMaps(backbone, (8, 16)), design.channels, 3), num_outputs, **transform)
        widen_towers(network)
        return network
    trunk = Pyramid(TrunkMaps(backbone, (4, 8, 16)), design.channels, 2)
    return mask_rcnn(trunk, num_outputs, design.channels, design.regions, **transform)


def _paper_network(design: Design, num_outputs: int) -> nn.Module:
    if design.chain == "ssd":
        return ssd.released_ssd(ssd.paper_trunk(design.size), design.size, num_outputs, ssd.MEAN, ssd.DEVIATION)
    sides = {"min_size": design.size, "max_size": int(design.size * RATIO)} if design.size else {}
    if design.chain == "retinanet":
        trunk = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=num_outputs).backbone
        # NOTE: torchvision's first weights make P6 of P5; the paper makes it of C5.
        trunk.fpn.extra_blocks = torchvision.ops.feature_pyramid_network.LastLevelP6P7(2048, PAPER_CHANNELS)
        network = PaperRetinaNet(trunk, num_outputs, **sides)
    else:
        name = model_name(design.chain) or "maskrcnn_resnet50_fpn"
        if sides and "ssd" in name:
            raise PipelineError(f"{design.chain}: its images have one size; give --detector-size 0")
        regions = {"box_batch_size_per_image": design.regions} if "rcnn" in name else {}
        make = getattr(detection, name)
        network = make(weights=None, weights_backbone=None, num_classes=num_outputs, **sides, **regions)
    body = getattr(network.backbone, "body", nn.Module())
    for name in FROZEN:
        if hasattr(body, name):
            getattr(body, name).requires_grad_(False)
    return network


def _freeze_normalisation(module: nn.Module, epsilon: float | None) -> None:
    """Replaces each batch normalisation in `module` by one that training does not change."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, child.eps if epsilon is None else epsilon))
        else:
            _freeze_normalisation(child, epsilon)


def predicts_masks(detector: LaterDetector) -> bool:
    return isinstance(detector.network, MaskRCNN)


def restore_detector(tensors: Mapping[str, Tensor], design: Design, source: str) -> LaterDetector:
    """The detector with these `tensors`. Raises PipelineError, naming `source`, where they do not fit `design`."""
    if NUM_OUTPUTS not in tensors or not 2 <= float(tensors[NUM_OUTPUTS].flatten()[0]) <= MOST_CLASSES:
        raise PipelineError(f"{source}: not the weights of {design.chain}: {NUM_OUTPUTS} is missing or no count of classes")
    detector = LaterDetector(design, int(tensors[NUM_OUTPUTS].flatten()[0]))
    load_tensors(detector, dict(tensors), source)
    return detector
