"""Compares Faster R-CNN with torchvision's, with the same trunk, anchors and limits: one image of 600 x 800, on the CPU.

    python -m benchmarks.faster_rcnn [--backbone squeezenet1_0] [--rounds 10] [--precision auto]

Both have the same random weights and 20 classes, and see the same photograph. They run in turns within one process; the best
round counts. Both keep the best 6000 anchors, suppress above IoU 0.7, and pool the best 300 proposals. torchvision's model pools
with RoIAlign, its default. The bare conv layers, and these with the proposal network, are timed as well: they show where the time
goes. In bfloat16, torchvision's suppression and pooling run in float32, because they have no other kernels on the CPU.
"""

import argparse
import copy

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.fast_rcnn import BACKBONES, CLASSES, CPU, HEIGHT, SCALING, WIDTH, best_of, timed
from pipeline.datasets.digits import make_images
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.faster_rcnn.anchors import BASE, RATIOS, SCALES
from pipeline.faster_rcnn.joint import FasterRCNNDetector
from pipeline.faster_rcnn.rpn import ProposalSettings, propose_regions
from pipeline.faster_rcnn.rpn_training import AnchorLayout, make_rpn
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import DTYPES, for_inference, prepare
from pipeline.networks.whole_images import image_tensor
from tasks.engine.processes import available_cores
from tasks.networks.precision import has_fast_bfloat16

SETTINGS = ProposalSettings()


class Trunk(nn.Module):
    """Our trunk, as torchvision's models need it: it adds the border and sets the precision itself."""

    def __init__(self, backbone, dtype: torch.dtype):
        super().__init__()
        self.trunk, self.dtype = backbone.trunk, dtype
        self.border, self.out_channels = backbone.view.border, backbone.view.channels

    def forward(self, images: Tensor) -> Tensor:
        images = nn.functional.pad(images, [self.border] * 4).to(self.dtype, memory_format=torch.channels_last)
        return self.trunk(images)


class Head(nn.Module):
    """A proposal network's head that accepts maps in any precision and returns float32."""

    def __init__(self, rpn, dtype: torch.dtype):
        super().__init__()
        self.rpn, self.dtype = rpn, dtype

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [nn.functional.relu(self.rpn.hidden(values.to(self.dtype))) for values in maps]
        return [self.rpn.scores(layer).float() for layer in hidden], [self.rpn.deltas(layer).float() for layer in hidden]


class Layers(nn.Module):
    """Fast R-CNN's fully connected layers and outputs under torchvision's RoI heads."""

    def __init__(self, model: FastRCNN, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = model, dtype
        self.background = nn.Linear(model.deltas.in_features, 4).to(dtype)  # torchvision has a box for the background, too

    def head(self, pooled: Tensor) -> Tensor:
        return self.model.last_layer(pooled.flatten(1).to(self.dtype))

    def predictor(self, values: Tensor) -> tuple[Tensor, Tensor]:
        boxes = torch.cat([self.background(values), self.model.deltas(values)], dim=1)
        return self.model.scores(values).float(), boxes.float()


class FloatPooling(MultiScaleRoIAlign):
    def forward(self, maps: dict[str, Tensor], *rest) -> Tensor:
        return super().forward({name: values.float() for name, values in maps.items()}, *rest)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def torchvision_model(model: FastRCNN, rpn, dtype: torch.dtype) -> FasterRCNN:
    layers, norm = Layers(copy.deepcopy(model), dtype), model.backbone.view.norm
    sizes = tuple(BASE * scale for scale in SCALES)
    return FasterRCNN(
        Trunk(model.backbone, dtype), min_size=HEIGHT, max_size=WIDTH, image_mean=[value / 255 for value in norm.mean],
        image_std=[value / 255 for value in norm.std], rpn_anchor_generator=AnchorGenerator((sizes,), (RATIOS,)),
        rpn_head=Head(copy.deepcopy(rpn), dtype), rpn_pre_nms_top_n_test=SETTINGS.before_nms,
        rpn_post_nms_top_n_test=SETTINGS.after_nms, rpn_nms_thresh=SETTINGS.nms_threshold,
        box_roi_pool=FloatPooling(["0"], model.backbone.grid, sampling_ratio=2), box_head=Function(layers.head),
        box_predictor=Function(layers.predictor), box_score_thresh=0.05, box_nms_thresh=0.3, box_detections_per_img=100,
    ).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="squeezenet1_0", choices=BACKBONES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--precision", default="auto", choices=("auto", *DTYPES))
    options = parser.parse_args()
    best = "bfloat16" if has_fast_bfloat16("cpu") else "float32"
    precision = best if options.precision == "auto" else options.precision
    dtype = DTYPES[precision]
    prepare("cpu", available_cores())
    (image,) = make_images("train", 1, seed=0)
    pixels = np.array(Image.fromarray(image.pixels).resize((WIDTH, HEIGHT)))

    torch.manual_seed(0)
    backbone = make_backbone(options.backbone)
    rpn = for_inference(make_rpn(backbone, AnchorLayout(SCALES, RATIOS)), CPU, precision)
    model = for_inference(FastRCNN(backbone, len(CLASSES)), CPU, precision)
    detector = FasterRCNNDetector(model, rpn, CPU, HEIGHT, WIDTH, proposals=SETTINGS)
    theirs = torchvision_model(model, rpn, dtype)
    images = image_tensor(pixels, SCALING, backbone.view, CPU).to(dtype)
    values = backbone.trunk(images)[0]
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)

    def proposals():
        conv_map = backbone.trunk(images)[0]
        return propose_regions(rpn, rpn(conv_map), conv_map.shape[1:], SCALING, SETTINGS)

    runs = {
        "conv layers": lambda: backbone.trunk(images), "conv layers, proposals": proposals,
        "Faster R-CNN": lambda: detector.detect(pixels), "torchvision": lambda: theirs([tensor]),
    }
    with torch.inference_mode():
        seconds = best_of({name: timed(run) for name, run in runs.items()}, options.rounds)
    print(f"{options.backbone}, {precision}, {available_cores()} threads, {HEIGHT} x {WIDTH}, map {tuple(values.shape)}")
    print(f"\n{'':24}{'seconds':>9}{'ratio to Faster R-CNN':>23}{'share of conv layers':>22}")
    for name, value in seconds.items():
        print(f"{name:24}{value:9.4f}{value / seconds['Faster R-CNN']:23.2f}{seconds['conv layers'] / value:22.0%}")


if __name__ == "__main__":
    main()
