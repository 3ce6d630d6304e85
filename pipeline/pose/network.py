"""The network of one stage of DeepPose: from a window to the coordinates of joints in it (section 3.1).

1. The backbone makes features of a window. A convolutional layer of regions runs on the whole map, and its last map is
   flattened: a mean over its cells would lose where things are.
2. Where the backbone has no fully connected layers, a new one follows on standardised features.
3. A linear layer gives 2 numbers a joint, standardised: mean 0 and deviation 1 over what is trained on.

The networks of later stages look at a window around one joint; only this joint's numbers count.

Shape shorthand: N windows, S side of the input, k joints, F features.
"""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone, FullyConnected, make_backbone
from pipeline.networks.standard import Standard
from pipeline.networks.weights import load_tensors
from pipeline.pose.geometry import displacement_statistics

HIDDEN = 512  # ours: values of the new layer. Those of the paper have 4096, trained on 12 million windows
NORM = 20.0  # of standardised features: rcnn_scale_features.m of rbgirshick/rcnn brings every layer to it
LEAST_DEVIATION = 0.01  # of the targets, in sides of a window


class PoseNetwork(nn.Module):
    """The network. `target_mean` and `target_deviation` [k x 2] are those of the windows that it was trained on.

    Raises PipelineError if windows of `side` pixels are too small for the backbone, or not of the size that it needs.
    """

    target_mean: Tensor
    target_deviation: Tensor

    def __init__(self, backbone: Backbone, joints: int, side: int):
        super().__init__()
        self.backbone, self.joints, self.side = backbone, joints, side
        channels, size = self._shape()
        self.channels = channels
        self.standard = Standard(torch.zeros(size), torch.ones(size))
        has_own_layers = bool(backbone.fc) and backbone.region_head is None
        self.hidden: nn.Module = nn.Identity() if has_own_layers else FullyConnected.of(_new_layer(size, HIDDEN))
        self.output = _new_layer(size if has_own_layers else HIDDEN, 2 * joints)
        self.register_buffer("target_mean", torch.zeros(joints, 2))
        self.register_buffer("target_deviation", torch.ones(joints, 2))

    def features(self, windows: Tensor) -> Tensor:
        """[N x F] of normalised windows [N x 3 x S x S], as they are."""
        head = self.backbone.region_head
        if head is not None:
            return head.convolve(self.backbone.trunk(windows)).flatten(1)
        return self.backbone(windows, self.backbone.last_layer)

    def forward(self, windows: Tensor) -> Tensor:
        """[N x 3 x S x S] normalised windows -> standardised coordinates [N x k x 2]."""
        return self.output(self.hidden(self.standard(self.features(windows)))).unflatten(1, (self.joints, 2))

    @torch.no_grad()
    def calibrate(self, windows: Tensor, targets: np.ndarray, labelled: np.ndarray) -> None:
        """Standardises the features over `windows` [N x 3 x S x S] and targets over `targets` [M x k x 2] where `labelled`."""
        if isinstance(self.hidden, FullyConnected):
            fitted = Standard.over(self.features(windows).float(), self.channels, NORM)
            self.standard.shift.copy_(fitted.shift)
            self.standard.scale.copy_(fitted.scale)
        mean, variance = displacement_statistics(targets, labelled)
        self.target_mean.copy_(torch.from_numpy(mean))
        self.target_deviation.copy_(torch.from_numpy(np.maximum(variance**0.5, LEAST_DEVIATION)))

    def parts(self, outputs: Tensor) -> Tensor:
        """N(y; b) [N x k x 2] from the network's outputs. Inverse of `standardised`."""
        return outputs.float() * self.target_deviation + self.target_mean

    def standardised(self, parts: Tensor) -> Tensor:
        """What the network should say for N(y; b) [N x k x 2]. Inverse of `parts`."""
        return (parts - self.target_mean) / self.target_deviation

    def _shape(self) -> tuple[int, int]:
        """The channels of the features, and their number F."""
        side = self.side
        try:
            with torch.no_grad():
                size = self.features(torch.zeros(1, 3, side, side)).shape[1]
                head = self.backbone.region_head
                if head is None:
                    return self.backbone.view.channels, size
                return head.convolve(self.backbone.trunk(torch.zeros(1, 3, side, side))).shape[1], size
        except RuntimeError as error:
            fault = f"windows of {side} x {side} pixels do not suit backbone {self.backbone.name}"
            raise PipelineError(f"{fault}; give --pose-side and --pose-joint-side {self.backbone.crop_size}, or 0") from error


def pose_loss(outputs: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
    """Half the squared distances, summed over the labelled joints: L2 as in section 3.1, without the joints that nobody knows.

    `outputs` and `targets` [N x k x 2], `labelled` bool [N x k].
    """
    distances = (outputs.float() - targets).square().sum(dim=2)
    return torch.where(labelled, distances, 0).sum() / 2


def restore_network(tensors: dict[str, Tensor], backbone: str, joints: int, side: int, source: str) -> PoseNetwork:
    """The network with the `tensors` of one that was saved. Raises PipelineError, naming `source`, if they do not fit."""
    model = PoseNetwork(make_backbone(backbone), joints, side)
    load_tensors(model, tensors, source)
    return model


def _new_layer(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.01)  # as the new layers of the releases' fine-tuning networks
    nn.init.zeros_(layer.bias)
    return layer
