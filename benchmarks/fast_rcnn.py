"""Compares Fast R-CNN with torchvision's RoI heads, and the detection of one image by each of our chains.

    python -m benchmarks.fast_rcnn [--backbone squeezenet1_0] [--regions 2000] [--rounds 5] [--precision auto]

There is one photograph of 600 x 800. Backbone, random weights, regions and precision are the same for all. All candidates run in
turns within one process; the best round counts. torchvision's RoI heads pool with `roi_pool`, as Fast R-CNN does, or with
RoIAlign, the default of torchvision's own models. A training step is 2 images of 64 regions each: forward, backward, and the
optimizer's step. The last column is the time of the bare conv layers (forward in detection, forward and backward in training)
as a share of the whole time.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_pool as torchvision_roi_pool

from pipeline.datasets.digits import make_images
from pipeline.datasets.records import ImageRecord
from pipeline.fast_rcnn.detect import FastRCNNDetector
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.fast_rcnn.sampling import RegionSampler
from pipeline.fast_rcnn.training import MapInput, freeze, train_fast_rcnn
from pipeline.networks.backbones import STRIDE, make_backbone
from pipeline.networks.compute import for_inference, mixed_precision, prepare
from pipeline.networks.sgd import SGD, parameter_groups
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.whole_images import Scaling, conv_map, image_tensor
from pipeline.rcnn.box_regression import BoxRegressors
from pipeline.rcnn.detect import LinearModels, RCNNDetector
from pipeline.rcnn.features import Extraction
from pipeline.rcnn.svm import EVENT, LinearSVMs
from pipeline.spp_net.detect import SPPNetDetector
from pipeline.spp_net.spatial_pyramid import LEVELS, pyramid_size
from tasks.engine.processes import available_cores
from tasks.networks.precision import has_fast_bfloat16

HEIGHT, WIDTH = 600, 800
SCALING = Scaling((HEIGHT, WIDTH), (1.0, 1.0))
BACKBONES = ("alexnet", "vgg16", "squeezenet1_0", "tiny")  # without those that have convolutions for each region
CLASSES = tuple(f"class {number}" for number in range(20))  # as many as VOC has
STEPS = 4
CPU = torch.device("cpu")


class RoIPool(nn.Module):
    """torchvision's `roi_pool` in place of its RoIAlign."""

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, maps: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        return torchvision_roi_pool(maps["0"].contiguous(), proposals, self.bins, 1 / STRIDE)


class TorchvisionFastRCNN(nn.Module):
    """The trunk and layers of `model` under torchvision's RoI heads. These need a box for the background, which is added."""

    def __init__(self, model: FastRCNN, pooling: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.background = nn.Linear(model.deltas.in_features, 4).to(next(model.parameters()).dtype)
        unit_deltas = (1.0, 1.0, 1.0, 1.0)
        self.heads = RoIHeads(pooling, self._values, self._outputs, 0.5, 0.5, 64, 0.25, unit_deltas, 0.05, 0.3, 100)

    def _values(self, pooled: Tensor) -> Tensor:
        return self.model.last_layer(pooled.flatten(1).to(self.background.weight.dtype))

    def _outputs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        boxes = torch.cat([self.background(values), self.model.deltas(values)], dim=1)
        return self.model.scores(values).float(), boxes.float()

    def forward(self, images: Tensor, proposals: list[Tensor], targets: list[dict] | None = None):
        maps = {"0": self.model.backbone.trunk(images).float()}  # torchvision cannot pool bfloat16 on the CPU
        return self.heads(maps, proposals, [(HEIGHT, WIDTH)] * len(images), targets)


def poolings(bins: int) -> dict[str, nn.Module]:
    align = MultiScaleRoIAlign(["0"], bins, sampling_ratio=2)
    return {"roi_pool": RoIPool(bins), "RoIAlign": align}


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """Boxes with sides from 20 pixels to the whole image, like region proposals."""
    size = generator.uniform(20, (WIDTH, HEIGHT), (count, 2))
    corner = generator.uniform(0, (WIDTH, HEIGHT) - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def best_of(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The fewest seconds of each run. The runs take turns; the first round is a warm-up and does not count."""
    _, *counted = [{name: run() for name, run in runs.items()} for _ in range(rounds + 1)]
    return {name: min(seconds[name] for seconds in counted) for name in runs}


def timed(run: Callable[[], object]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return seconds


def detection_runs(model: FastRCNN, precision: str, pixels: np.ndarray, proposals: np.ndarray) -> dict[str, Callable[[], float]]:
    """The detection of one image by Fast R-CNN, torchvision's heads, the bare conv layers, R-CNN and SPP-net."""
    ready = for_inference(copy.deepcopy(model), CPU, precision)
    images = image_tensor(pixels, SCALING, ready.backbone.view, CPU).to(next(ready.parameters()).dtype)
    runs = {
        "conv layers": lambda: ready.backbone.trunk(images),
        "Fast R-CNN": lambda: FastRCNNDetector(ready, CPU, HEIGHT, WIDTH).detect(pixels, proposals),
    }
    boxes = torch.from_numpy(proposals)
    for name, pooling in poolings(model.backbone.grid).items():
        theirs = TorchvisionFastRCNN(ready, pooling).eval()
        runs[f"torchvision, {name}"] = lambda theirs=theirs: theirs(
            image_tensor(pixels, SCALING, ready.backbone.view, CPU).to(images.dtype), [boxes]
        )
    backbone = ready.backbone
    spp = SPPNetDetector(
        backbone, CPU, models(pyramid_size(backbone.view.channels)), scales=(HEIGHT,), longest=WIDTH, levels=LEVELS
    )
    runs["SPP-net"] = lambda: spp.detect(pixels, proposals)
    layer = "pool5" if model.starts_on_pool5 else backbone.last_layer
    svms, _ = models(backbone.sizes[layer])
    rcnn = RCNNDetector(
        backbone, layer, Extraction(precision, 16, 32, CPU), LinearModels(svms, models(backbone.sizes["pool5"]).regressors)
    )
    runs["R-CNN"] = lambda: rcnn.detect(pixels, proposals)
    return {name: timed(torch.inference_mode()(run)) for name, run in runs.items()}


def models(size: int) -> LinearModels:
    """Random SVMs and box regressors for features of `size` values."""
    generator, count = np.random.default_rng(0), len(CLASSES)
    W, Beta = generator.normal(size=(size, count)), generator.normal(scale=1e-5, size=(count, size + 1, 4))
    nothing, eyes = np.zeros(count, np.int64), np.tile(np.eye(4), (count, 1, 1))
    svms = LinearSVMs(
        CLASSES, W.astype(np.float32), np.zeros(count, np.float32), 0.01, nothing, nothing, nothing, np.zeros(0, EVENT),
        np.zeros((0, 3), np.int64),
    )
    regressors = BoxRegressors(CLASSES, np.zeros((count, 4)), eyes, eyes, Beta, 0.01, 1000.0, nothing, nothing)
    return LinearModels(svms, regressors)


def training_runs(model: FastRCNN, precision: str, pixels: np.ndarray, proposals: np.ndarray) -> dict[str, Callable[[], float]]:
    """Seconds per training step, over `STEPS` steps: Fast R-CNN, torchvision's heads, the bare conv layers."""
    objects = proposals[:3]
    record = ImageRecord("photograph", "", "", WIDTH, HEIGHT, objects, np.arange(3), np.zeros(3, bool))
    sampler = RegionSampler([record] * 2, CLASSES, lambda number: proposals, 0, mirror=False)

    def inputs(samples) -> Iterator[MapInput]:
        return (MapInput(pixels, None, SCALING) for _ in samples)

    def ours() -> float:
        step_ends = []
        backbone = make_backbone(model.backbone.name)
        freeze(backbone, "first")
        log = lambda step, values: step_ends.append(time.perf_counter())  # noqa: E731
        run = TrainingRun(Schedule(STEPS + 1, 1e-6, STEPS), 0, CPU, precision, log=log)
        train_fast_rcnn(backbone, run, sampler=sampler, inputs=inputs)
        return (step_ends[-1] - step_ends[0]) / STEPS

    def steps(trained: nn.Module, losses: Callable[[], Tensor]) -> Callable[[], float]:
        optimizer = SGD(parameter_groups(trained))

        def run() -> float:
            start = time.perf_counter()
            for _ in range(STEPS):
                losses().backward()
                optimizer.step(1e-6)
            return (time.perf_counter() - start) / STEPS

        return run

    def conv_layers() -> float:
        start = time.perf_counter()
        for _ in range(2 * STEPS):
            with mixed_precision(CPU, precision):
                values = conv_map(model.backbone, pixels, SCALING, CPU)
            values.backward(torch.ones_like(values))
        return (time.perf_counter() - start) / STEPS

    runs = {"conv layers": conv_layers, "Fast R-CNN": ours}
    targets = [{"boxes": torch.from_numpy(objects), "labels": torch.arange(1, 4)}] * 2
    for name, pooling in poolings(model.backbone.grid).items():
        theirs = TorchvisionFastRCNN(model, pooling).train()

        def losses(theirs=theirs) -> Tensor:
            images = torch.cat([image_tensor(pixels, SCALING, model.backbone.view, CPU) for _ in range(2)])
            with mixed_precision(CPU, precision):
                return sum(theirs(images, [torch.from_numpy(proposals)] * 2, targets)[1].values())

        runs[f"torchvision, {name}"] = steps(theirs, losses)
    return runs


def report(title: str, seconds: dict[str, float]) -> None:
    print(f"\n{title}\n{'':24}{'seconds':>9}{'ratio to Fast R-CNN':>22}{'share of conv layers':>23}")
    for name, value in seconds.items():
        print(f"{name:24}{value:9.3f}{value / seconds['Fast R-CNN']:22.2f}{seconds['conv layers'] / value:23.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="squeezenet1_0", choices=BACKBONES)
    parser.add_argument("--regions", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    options = parser.parse_args()
    best = "bfloat16" if has_fast_bfloat16("cpu") else "float32"
    precision = best if options.precision == "auto" else options.precision
    prepare("cpu", available_cores())

    (image,) = make_images("train", 1, seed=0)
    pixels = np.array(Image.fromarray(image.pixels).resize((WIDTH, HEIGHT)))
    proposals = random_boxes(np.random.default_rng(1), options.regions)
    torch.manual_seed(0)
    backbone = make_backbone(options.backbone)
    freeze(backbone, "first")
    model = FastRCNN(backbone, len(CLASSES)).to(memory_format=torch.channels_last)
    print(f"{options.backbone}, {precision}, {available_cores()} threads, {HEIGHT} x {WIDTH}, {options.regions} regions")
    report("A step of training", best_of(training_runs(model, precision, pixels, proposals), options.rounds))
    detection = detection_runs(model, precision, pixels, proposals)
    slow = {"R-CNN": detection.pop("R-CNN")}  # so long that one round after the warm-up is enough
    report("Detection of one image", {**best_of(detection, options.rounds), **best_of(slow, 1)})


if __name__ == "__main__":
    main()
