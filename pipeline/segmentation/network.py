"""A segmentation network of any kind: normalised images in, a score for each class and pixel out.

It has two halves, so that one can be cached or frozen: `encode` makes maps of images with the backbone, `decode` makes scores of
pixels from them. Only `decode` has new layers.

Shape shorthand: N images, K classes, H x W pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks.backbones import Backbone, make_backbone
from pipeline.networks.weights import check_tensors, load_tensors
from pipeline.segmentation.encoder import DEEP
from pipeline.segmentation.full_resolution import FullResolution
from pipeline.segmentation.fully_convolutional import FullyConvolutional
from pipeline.segmentation.layout import FULL_RESOLUTION, KINDS, PATCHES, SKIPS, UNPOOLING, Layout
from pipeline.segmentation.patches import Patches
from pipeline.segmentation.unpooling import Unpooling

__all__ = ["KINDS", "Layout", "SegmentationNetwork", "restore_network"]

# How the names of tensors begin that have a stride after it.
SCORES, STANDARDS, UPSAMPLINGS = (f"method.layers.{part}." for part in ("scores", "standards", "upsamplings"))
METHODS = {PATCHES: Patches, FULL_RESOLUTION: FullResolution, UNPOOLING: Unpooling, **dict.fromkeys(SKIPS, FullyConvolutional)}


class SegmentationNetwork(nn.Module):
    """`backbone` and the layers of a `method`. Raises PipelineError where the two do not fit."""

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        self.backbone, self.layout = backbone, layout
        self.method: Any = METHODS[layout.kind](backbone, layout)

    @property
    def name(self) -> str:
        return f"{self.layout.kind} on {self.backbone.name}"

    @property
    def dependence(self) -> tuple[int, int]:
        """How far away the pixels are that a pixel's scores depend on, about; and the stride, from which on cells repeat."""
        return self.method.dependence(self.backbone)

    def encode(self, images: Tensor, dropout: bool = False) -> Any:
        """The maps of normalised images [N x 3 x H x W], which `decode` takes. `dropout`: that of the backbone's own layers."""
        return self.method.encode(self.backbone, images, dropout)

    def decode(self, maps: Any, size: tuple[int, int]) -> Tensor:
        """Scores [N x K x H x W] before the softmax, float32, from what `encode` made; `size` is (H, W)."""
        return self.method.decode(maps, size)

    def forward(self, images: Tensor) -> Tensor:
        """[N x 3 x H x W] normalised images of any size -> scores [N x K x H x W] before the softmax, float32."""
        return self.decode(self.encode(images, self.training), (images.shape[2], images.shape[3]))

    @torch.no_grad()
    def calibrate(self, images: list[Tensor], but: frozenset[str] = frozenset()) -> None:
        """Standardises what new layers see, over these images; maps of the strides `but` stay as they are."""
        was_training = self.training
        self.eval()
        self.method.calibrate(self.backbone, images, but)
        self.train(was_training)

    def begin_from(self, tensors: dict[str, Tensor], source: str) -> frozenset[str]:
        """Takes the weights of the network of the stage before: FCN-32s's for 16s. Returns the strides that it had.

        Raises PipelineError, naming `source`, if it is no such network.
        """
        own = self.state_dict()
        # The last upsampling is another one where skips were added.
        tensors = {name: value for name, value in tensors.items() if name in own or not name.startswith(UPSAMPLINGS)}
        taken = {name: value.shape for name, value in own.items() if name in tensors or not self._is_of_skip(name)}
        check_tensors(tensors, taken, source, f"the stage before {self.name}")
        self.load_state_dict({**own, **tensors})
        return frozenset(_stride(name) for name in tensors if name.startswith(SCORES))

    def _is_of_skip(self, name: str) -> bool:
        """Whether a tensor belongs to a skip, which the stage before may lack."""
        if name.startswith(UPSAMPLINGS):
            return True
        return name.startswith((SCORES, STANDARDS)) and _stride(name) != str(DEEP)



def _stride(name: str) -> str:
    """The stride in the name of a tensor."""
    return name.split(".")[3]


def restore_network(tensors: dict[str, Tensor], layout: Layout, source: str) -> SegmentationNetwork:
    """The network with the `tensors` of one that was saved. Raises PipelineError, naming `source`, if they do not fit."""
    model = SegmentationNetwork(make_backbone(layout.backbone), layout)
    load_tensors(model, tensors, source)
    return model

