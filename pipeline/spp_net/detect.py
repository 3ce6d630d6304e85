"""SPP-net's detections in one image: maps of all scales, the pyramid of each region, and R-CNN's models on it."""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.detection.candidates import RELEASE_LIMITS, Candidates, Limits
from pipeline.networks.backbones import Backbone
from pipeline.rcnn.detect import LinearModels, detect_regions
from pipeline.rcnn.features import layer_from_pool5
from pipeline.spp_net.spatial_pyramid import pyramid_features, stored_map


class SPPNetDetector:
    """Detections of one image from its pixels and proposals. `backbone` is ready for inference.

    The SVMs read `layer`: the pyramid itself (`pool5`), or a fully connected layer of `backbone`, which reads the pyramid
    (`pipeline.spp_net.pyramid_layers`). The box regressors read the pyramid.
    """

    def __init__(
        self, backbone: Backbone, device: torch.device, models: LinearModels, limits: Limits = RELEASE_LIMITS, *,
        scales: Sequence[int], longest: int, levels: Sequence[int], layer: str = "pool5",
    ):
        self.backbone, self.device, self.scales, self.longest, self.levels = backbone, device, scales, longest, levels
        self.models, self.limits, self.layer = models, limits, layer

    def detect(self, pixels: np.ndarray, proposals: np.ndarray) -> Candidates:
        """The candidates among `proposals` [n x 4] in `pixels`, uint8 RGB [height x width x 3]."""
        maps = [stored_map(self.backbone, pixels, scale, self.longest, self.device) for scale in self.scales]
        pyramid = pyramid_features(maps, proposals, self.backbone.crop_size, self.backbone.view, self.levels)
        features = pyramid if self.layer == "pool5" else layer_from_pool5(pyramid, self.backbone, self.layer, self.device)
        size = pixels.shape[:2]
        return detect_regions(proposals, features, pyramid, size=size, models=self.models, limits=self.limits)
