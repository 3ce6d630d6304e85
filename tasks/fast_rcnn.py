"""Fast R-CNN: one network trained on regions of shared maps, and detections by it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks import parameters
from tasks.artefacts import Artefact, Workshop
from tasks.cache import CachedTask, load_split
from tasks.conv_features import ConvFeatures, open_maps
from tasks.data import DIGITS, IndexDataset
from tasks.detection import CANDIDATES, DetectSplit
from tasks.networks import (
    CURVE,
    LoadWeights,
    NetworkTask,
    PretrainClassifier,
    first_weights,
    load_backbone,
    mirror_setting,
    recent_loss,
)
from tasks.processes import run_ahead, start_pool
from tasks.proposals import RegionProposals, load_proposals

MODEL = "fast_rcnn.safetensors"
FULLY_CONNECTED = {"alexnet": ("fc6", "fc7"), "vgg16": ("fc6", "fc7"), "squeezenet1_0": ("fc6",), "tiny": ("fc6",)}
RELEASE_SCALE, RELEASE_LONGEST = 600, 1000  # lib/fast_rcnn/config.py of rbgirshick/fast-rcnn: SCALES, MAX_SIZE
SCALES = {"tiny": 480}  # ours, twice the size of the images of `digits`: objects of 36 pixels are two cells of their maps
RELEASE_LR_STEP = 30000  # models/*/solver.prototxt of rbgirshick/fast-rcnn
# Learning rate, and how many times as fast the output layers learn. AlexNet and VGG-16: models/*/solver.prototxt and
# train.prototxt of rbgirshick/fast-rcnn. The others are ours, chosen on validation images.
LEARNING_RATES = {"alexnet": (0.001, 1.0), "vgg16": (0.001, 1.0), "squeezenet1_0": (0.003, 3.0), "tiny": (0.01, 1.0)}


class ImageScale(NetworkTask):
    """A stage that runs the network on whole images, scaled."""

    outside = (*NetworkTask.outside, "fast_scale", "fast_longest_side")

    fast_scale = parameters.integer(0, "fast", "scale", "shorter side of images; 0: 600, or what suits the backbone")
    fast_longest_side = parameters.integer(0, "fast", "longest_side", "but the longer side at most this; 0: 5/3 of the scale")

    @property
    def sides(self) -> tuple[int, int]:
        shorter = self.fast_scale or SCALES.get(self.backbone, RELEASE_SCALE)
        return shorter, self.fast_longest_side or shorter * RELEASE_LONGEST // RELEASE_SCALE

    def outside_digests(self) -> dict:
        # What the defaults lead to, so that the key changes with them.
        return {**super().outside_digests(), "sides": self.sides}


@parameters.inherits(LoadWeights, PretrainClassifier, RegionProposals, without=("split",))
class TrainFastRCNN(ImageScale):
    """The backbone, scores and boxes in one network, trained on regions of two images a step."""

    version = 3
    outside = (*ImageScale.outside, "fast_learning_rate", "fast_lr_step")

    fast_iterations = parameters.integer(500, "fast", "iterations", "steps of 128 regions of 2 images", minimum=1)
    fast_learning_rate = parameters.number(0, "fast", "learning_rate", "learning rate; 0: what suits the backbone", minimum=0)
    fast_lr_step = parameters.integer(
        0, "fast", "lr_step", "steps after which the rate falls to a tenth; 0: three quarters of all, 30000 at most"
    )
    fast_images = parameters.integer(2, "fast", "images", "images a step", minimum=1)
    fast_regions = parameters.integer(128, "fast", "regions", "regions a step", minimum=1)
    freeze = parameters.choice(
        "first", ("none", "first", "all"), "fast", "freeze", "conv layers that are not trained; all: trains from cached maps"
    )
    mirror = mirror_setting()
    seed = parameters.seed()
    readers = parameters.integer(1, "run", "readers", "processes that read training images ahead", minimum=1, significant=False)
    tensorboard = parameters.text("", "run", "tensorboard", "folder for TensorBoard's logs; empty: none", significant=False)

    def outside_digests(self) -> dict:
        rate, faster = LEARNING_RATES[self.backbone]
        lr_step = self.fast_lr_step or min(RELEASE_LR_STEP, max(1, self.fast_iterations * 3 // 4))
        settled = {"learning_rate": self.fast_learning_rate or rate, "output_rate": faster, "lr_step": lr_step}
        return {**super().outside_digests(), **settled}

    def requires(self) -> dict[str, CachedTask]:
        required = {
            "train": self.clone(IndexDataset, split=self.train_split), "weights": first_weights(self),
            "proposals": self.clone(RegionProposals, split=self.train_split),
        }
        if self.freeze == "all":
            shorter, longest = self.sides
            mirrored = self.mirror and self.dataset != DIGITS
            settings = {"map_scales": (shorter,), "map_longest_side": longest, "map_mirrored": mirrored}
            required["maps"] = self.clone(ConvFeatures, split=self.train_split, **settings)
        return required

    def build(self, workshop: Workshop) -> dict:
        from pipeline.networks.fast_rcnn import LOSSES
        from pipeline.networks.fast_rcnn_training import freeze, train_fast_rcnn
        from pipeline.networks.sampling import RegionSampler, SamplingSettings
        from pipeline.networks.weights import save_tensors
        from pipeline.seeding import derive_seed
        from pipeline.training import Schedule, loss_table

        device = self.prepare()
        split, seed = load_split(self.inputs()["train"]), derive_seed(self.seed, "fast r-cnn")
        proposals = load_proposals(self.inputs()["proposals"])
        settings = SamplingSettings(images=self.fast_images, regions=self.fast_regions)
        mirror = self.mirror and split.mirror
        sampler = RegionSampler(split.images, split.classes, proposals.__getitem__, seed, mirror, settings)
        backbone = load_backbone(self.inputs()["weights"], self.backbone)
        freeze(backbone, self.freeze)
        settled = self.outside_digests()
        schedule = Schedule(self.fast_iterations, settled["learning_rate"], settled["lr_step"])
        with scalar_log(self.tensorboard, self.label) as log:
            model, losses = train_fast_rcnn(
                backbone, sampler, self._map_inputs(split), schedule, seed, self.arithmetic, device, workshop.checkpoint,
                self.progress("step"), log, settled["output_rate"],
            )
        save_tensors(model, workshop.files / MODEL)
        (workshop.files / CURVE).write_text(loss_table(losses, schedule, LOSSES))
        found = {"targets": int(sampler.examples.sum()), "unused_images": sampler.unused}
        return {"steps": len(losses), "loss": recent_loss(losses), **found}

    def _map_inputs(self, split) -> Callable[[Iterator], Iterator]:
        """What gives, for each sample, the pixels or the cached map of its image, read ahead."""
        from pipeline.networks.fast_rcnn_training import MapInput
        from pipeline.networks.whole_images import Scaling

        shorter, longest = self.sides
        if self.freeze == "all":
            maps = open_maps(self.inputs()["maps"], split.images)

            def from_cache(samples: Iterator) -> Iterator:
                for sample in samples:
                    stored = maps.read(sample.number, shorter, sample.mirrored)
                    yield MapInput(None, stored.cells, stored.scaling)

            return from_cache
        root = self.requires()["train"].root
        start_pool(self.readers)

        def from_pixels(samples: Iterator) -> Iterator:
            records = (split.images[sample.number] for sample in samples)
            for pixels in run_ahead(_read, ((root / record.path, record.digest) for record in records), self.readers):
                yield MapInput(pixels, None, Scaling.of(*pixels.shape[:2], shorter, longest))

        return from_pixels


def _read(job: tuple[Path, str]):
    from pipeline.images import read_image

    return read_image(*job)


@contextlib.contextmanager
def scalar_log(folder: str, label: str) -> Iterator[Callable | None]:
    """Writes scalars for TensorBoard into `folder`/`label`; None without a folder."""
    if not folder:
        yield None
        return
    from pipeline.errors import PipelineError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PipelineError(f"--tensorboard {folder}: TensorBoard is not installed ({error}); pip install tensorboard") from error
    with SummaryWriter(str(Path(folder) / label)) as writer:
        def log(step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        yield log


def rank_setting(layer: str, released: int):
    return parameters.integer(0, "fast", f"svd_{layer}", f"rank of {layer} in detection (the release: {released}); 0: as it is")


@parameters.inherits(TrainFastRCNN)
class CompressFastRCNN(CachedTask):
    """The network with its fully connected layers replaced by products of two smaller ones (section 3.1)."""

    svd_fc6 = rank_setting("fc6", 1024)
    svd_fc7 = rank_setting("fc7", 256)

    def requires(self) -> dict[str, CachedTask]:
        from pipeline.errors import PipelineError

        layers = FULLY_CONNECTED[self.backbone]
        for layer in self.ranks.keys() - set(layers):  # told before training
            raise PipelineError(f"--svd-{layer}: backbone {self.backbone} has {', '.join(layers)}")
        return {"network": self.clone(TrainFastRCNN)}

    @property
    def ranks(self) -> dict[str, int]:
        return {layer: rank for layer, rank in (("fc6", self.svd_fc6), ("fc7", self.svd_fc7)) if rank}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.networks.compute import prepare
        from pipeline.networks.fast_rcnn import compress
        from pipeline.networks.weights import save_tensors

        prepare(self.device, self.num_threads)
        model = load_model(self.inputs()["network"], self.backbone, {})
        before = sum(value.numel() for value in model.parameters())
        compress(model, self.ranks)
        save_tensors(model, workshop.files / MODEL)
        return {"parameters_before": before, "parameters": sum(value.numel() for value in model.parameters())}


@parameters.inherits(CompressFastRCNN)
class DetectFastRCNN(DetectSplit, ImageScale):
    """Detections of the test split by the one network."""

    outside = (*ImageScale.outside, *DetectSplit.outside)

    svd_fc6 = rank_setting("fc6", 1024)
    svd_fc7 = rank_setting("fc7", 256)

    def upstream(self) -> dict[str, CachedTask]:
        return {"network": self._network(), "proposals": self.clone(RegionProposals, split=self.test_split)}

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "digest": record.digest}

    def _network(self) -> CachedTask:
        return self.clone(CompressFastRCNN if self.svd_fc6 or self.svd_fc7 else TrainFastRCNN)

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.detections import save_candidates
        from pipeline.images import ImageCache
        from pipeline.prefetch import prefetch

        detector, proposals = self.load_detector(), load_proposals(self.inputs()["proposals"])
        pixels = prefetch(map(ImageCache(self.index_task().root, 0).read, split.images))
        pairs = self.progress()(zip(pixels, proposals, strict=True), len(split.images))
        candidates = [detector.detect(*pair) for pair in pairs]
        save_candidates(workshop.files / CANDIDATES, candidates)
        return {"images": len(candidates), "candidates": sum(len(image.score) for image in candidates)}

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self._network()}

    def detector_parts(self) -> dict[str, CachedTask]:
        return self.training_tasks()

    def load_detector(self):
        from pipeline.networks.compute import for_inference
        from pipeline.networks.fast_rcnn import FastRCNNDetector

        network, device = self._network(), self.prepare()
        model = load_model(network.artefact, self.backbone, getattr(network, "ranks", {}))
        return FastRCNNDetector(for_inference(model, device, self.arithmetic), device, *self.sides, *self.limits)


def load_model(artefact: Artefact, backbone: str, ranks: dict[str, int]):
    """The network in the artefact of one of the stages above, in float32 on the CPU; `ranks` are those of its compression."""
    from pipeline.networks.backbones import make_backbone
    from pipeline.networks.fast_rcnn import FastRCNN, compress
    from pipeline.networks.weights import load_tensors

    tensors = artefact.tensors(MODEL)
    model = FastRCNN(make_backbone(backbone), len(tensors["scores.bias"]) - 1)
    compress(model, ranks, decompose=False)
    load_tensors(model, tensors, repr(artefact))
    return model
