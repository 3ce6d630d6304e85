"""Trains and evaluates torchvision's Faster R-CNN, the usual alternative, with the same trunk, weights and images.

    python -m benchmarks.faster_rcnn_training --dataset DIR --weights FILE [--train-split trainval] [--test-split test]
        [--scale 500] [--steps 2600] [--backbone squeezenet1_0] [--precision auto] [--device cpu]

Compare it with `luigi --module tasks FullPipeline --chains faster-rcnn` on the same data: training times, times per image, and
APs, which the same code computes for both. Anchors, limits, losses and layers are torchvision's defaults. Batches have two
images; half of the images are mirrored. SGD has a learning rate of 0.005, which rises over the first 100 steps and falls to a
tenth after four fifths of all steps. The same layers are frozen as in our training. An image has 64 regions to train on, as in
ours: with 512, backward pooling takes most of a step on the CPU. Detections with scores above 0.01 are kept, and suppressed above
IoU 0.3: this gives a better eleven-point AP than the defaults.
"""

import argparse
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.fast_rcnn import BACKBONES
from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.records import ImageRecord, Split
from pipeline.detection.detections import Detections
from pipeline.evaluation.bootstrap import bootstrap, interval
from pipeline.evaluation.table import ap_table
from pipeline.evaluation.voc_ap import evaluate
from pipeline.images.reading import read_record
from pipeline.networks.backbones import Backbone, make_backbone
from pipeline.networks.compute import DTYPES, mixed_precision, prepare
from pipeline.networks.region_head import RegionHead
from pipeline.networks.variants import CONVOLUTIONAL
from pipeline.networks.weights import load_weights
from pipeline.seeding import make_generator
from tasks.engine.processes import available_cores
from tasks.networks.precision import has_fast_bfloat16

BATCH, REGIONS, RATE, WARM_UP, CLIP, RESAMPLES = 2, 64, 0.005, 100, 10.0, 1000
ANCHORS = AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),))


class Trunk(nn.Module):
    """The trunk of `backbone`, with the border that it wants around images.

    torchvision infers the distance of the anchors from the number of cells, so the map is cut to one for each 16 pixels.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.trunk, self.view, self.out_channels = backbone.trunk, backbone.view, backbone.view.channels
        for module in backbone.trunk[:backbone.frozen]:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        border = self.view.border
        sides = (border, 0, border, 0) if self.view.whole_cells else 4 * (border,)
        rows, columns = (side // self.view.stride for side in images.shape[2:])
        return self.trunk(nn.functional.pad(images, sides))[..., :rows, :columns]


class Head(nn.Module):
    """The convolutions of a region in place of torchvision's two linear layers."""

    def __init__(self, head: RegionHead):
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor) -> Tensor:
        return self.head(pooled.flatten(1))


def make_model(backbone: Backbone, num_classes: int, scale: int) -> FasterRCNN:
    norm, head, outputs = backbone.view.norm, backbone.region_head, num_classes + 1
    layers: dict = {"num_classes": outputs}
    if head:
        layers = {"box_head": Head(head), "box_predictor": FastRCNNPredictor(head.out_features, outputs)}
    return FasterRCNN(
        Trunk(backbone), **layers, min_size=scale, max_size=scale * 5 // 3, rpn_anchor_generator=ANCHORS,
        image_mean=[value / 255 for value in norm.mean], image_std=[value / 255 for value in norm.std],
        box_roi_pool=MultiScaleRoIAlign(["0"], head.grid if head else 7, sampling_ratio=2), box_batch_size_per_image=REGIONS,
        box_score_thresh=0.01, box_nms_thresh=0.3,
    )


def index(root: Path, name: str, classes: tuple[str, ...] | None) -> Split:
    files = [file for file in split_files(root, name) if (root / file).is_file()]
    digests = {file: hashlib.sha256((root / file).read_bytes()).hexdigest() for file in files}
    return read_split(root, name, classes, digests)


def load(root: Path, record: ImageRecord) -> Tensor:
    return torch.from_numpy(read_record(root, record).copy()).permute(2, 0, 1).float().div(255)


def batches(root: Path, split: Split, steps: int, device: torch.device) -> Iterator[tuple[list[Tensor], list[dict]]]:
    """Batches of images in random order, epoch after epoch. Images without objects are trained on as well."""
    rng = make_generator(0, "torchvision")
    order = np.concatenate([rng.permutation(len(split.images)) for _ in range(-(-steps * BATCH // len(split.images)))])
    for step in range(steps):
        images, targets = [], []
        for number in order[step * BATCH:(step + 1) * BATCH]:
            record = split.images[number]
            pixels, boxes = load(root, record), torch.from_numpy(record.boxes[record.counted])
            if split.mirror and rng.random() < 0.5:
                pixels = pixels.flip(2)
                boxes = torch.stack([record.width - boxes[:, 2], boxes[:, 1], record.width - boxes[:, 0], boxes[:, 3]], dim=1)
            labels = torch.from_numpy(record.labels[record.counted] + 1)
            images.append(pixels.to(device))
            targets.append({"boxes": boxes.to(device), "labels": labels.to(device)})
        yield images, targets


def train(model: FasterRCNN, steps: int, items: Iterator, device: torch.device, precision: str) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, RATE, momentum=0.9, weight_decay=0.0005)
    model.train()
    started = time.perf_counter()
    for step, (images, targets) in enumerate(items):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (0.1 if step >= 0.8 * steps else 1)
        with mixed_precision(device, precision):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP)  # without it, training diverges
        optimizer.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}, {time.perf_counter() - started:.0f} s", flush=True)


def detect(model: FasterRCNN, root: Path, split: Split, device: torch.device, precision: str) -> tuple[Detections, float]:
    """The detections, and the median seconds per image that is already in memory."""
    model.eval()
    outputs, seconds = [], []
    for record in split.images:
        pixels = load(root, record)
        started = time.perf_counter()
        with torch.inference_mode(), mixed_precision(device, precision):
            (output,) = model([pixels.to(device)])
            outputs.append({name: values.float().cpu().numpy() for name, values in output.items()})
        seconds.append(time.perf_counter() - started)
    image_index = np.repeat(np.arange(len(outputs)), [len(output["scores"]) for output in outputs])
    labels, scores, boxes = (np.concatenate([output[name] for output in outputs]) for name in ("labels", "scores", "boxes"))
    ids = tuple(record.id for record in split.images)
    return Detections(ids, split.classes, image_index, labels.astype(int) - 1, scores, boxes), float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="file with the backbone's weights, with torchvision's names")
    parser.add_argument("--train-split", default="trainval")
    parser.add_argument("--test-split", default="test")
    parser.add_argument("--scale", type=int, default=500, help="shorter side of an image in pixels")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--backbone", default="squeezenet1_0", choices=(*BACKBONES, *CONVOLUTIONAL))
    parser.add_argument("--precision", default="auto", choices=("auto", *DTYPES))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = prepare(options.device, available_cores())
    torch.set_deterministic_debug_mode("default")  # lets torchvision use its fast RoIAlign on a GPU
    best = "bfloat16" if has_fast_bfloat16(options.device) else "float32"
    precision = best if options.precision == "auto" else options.precision
    train_split = index(options.dataset, options.train_split, None)
    test_split = index(options.dataset, options.test_split, train_split.classes)

    torch.manual_seed(0)
    backbone = make_backbone(options.backbone)
    load_weights(backbone, options.weights)
    model = make_model(backbone, len(train_split.classes), options.scale).to(device)
    started = time.perf_counter()
    train(model, options.steps, batches(options.dataset, train_split, options.steps, device), device, precision)
    train_seconds = time.perf_counter() - started
    detections, seconds = detect(model, options.dataset, test_split, device, precision)

    result = evaluate(detections, test_split.images, test_split.classes)
    samples = bootstrap(result.matches, RESAMPLES, make_generator(0, "bootstrap"), "07")
    print(f"torchvision {options.backbone}, {precision}, {options.device}, {available_cores()} threads, scale {options.scale}, "
          f"{options.steps} steps: trained in {train_seconds:.0f} s, {seconds:.3f} s per image")
    print(ap_table(result, interval(samples), "07"))


if __name__ == "__main__":
    main()
