"""Fast R-CNN: the training of one network on regions of shared maps, and detection with it."""

import abc

from tasks.data.splits import load_split
from tasks.detection import validation_limits
from tasks.detection_views import DetectInViews
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.networks.base import load_backbone
from tasks.networks.class_weights import WeightedClasses
from tasks.networks.defaults import defaults_of
from tasks.networks.map_training import MapTraining, warn_of_unused
from tasks.networks.schedules import lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights
from tasks.proposals.regions import RegionProposals, load_proposals
from tasks.stage import Stage

MODEL = "fast_rcnn.safetensors"
RELEASE_LR_STEP = 30000  # models/*/solver.prototxt of rbgirshick/fast-rcnn
HARD_REGIONS = 128  # of an image: pipeline.fast_rcnn.hard_examples.HardExamples
BACKGROUND_OVERLAPS = (0.1, 0.5)  # lib/fast_rcnn/config.py of rbgirshick/fast-rcnn: BG_THRESH_LO, BG_THRESH_HI


def agnostic_setting():
    description = "whether Fast and Faster R-CNN move a region to one box for all classes (R-FCN always does)"
    return parameters.switch(False, "fast", "class_agnostic", description)


def agnostic_key(task) -> dict:
    """What the setting adds to a key: the default nothing, so that older keys stay valid."""
    return {"class_agnostic": True} if task.class_agnostic else {}


def outputs_key(task) -> dict:
    """What the place of the box layer adds to a key: nothing where boxes are made as they always were."""
    return {"boxes": "last map"} if defaults_of(task.backbone).boxes_on_map else {}


class FastRCNNTraining(WeightedClasses, MapTraining):
    """Trains a backbone, scores and boxes as one network, on regions of two images per step."""

    version = 6
    resolved = (
        *MapTraining.resolved, *WeightedClasses.resolved, "fast_learning_rate", "fast_lr_step", "fast_regions", "fast_ohem",
        "class_agnostic",
    )
    background_overlaps = BACKGROUND_OVERLAPS

    fast_iterations = parameters.integer(800, "fast", "iterations", "training steps of 128 regions of 2 images", minimum=1)
    fast_learning_rate = rate_setting("fast")
    fast_lr_step = lr_step_setting("fast", ", at most 30000")
    fast_images = parameters.integer(2, "fast", "images", "images per training step", minimum=1)
    fast_regions = parameters.integer(
        0, "fast", "regions", "regions per training step; 0: 128, or the backbone's default; with --fast-ohem 128 of each image"
    )
    fast_ohem = parameters.switch(
        False, "fast", "ohem", "whether Fast R-CNN is trained on the 128 regions of an image with the largest losses"
    )
    class_agnostic = agnostic_setting()

    @property
    def iterations(self) -> int:
        return self.fast_iterations

    @property
    def trained(self) -> dict[str, str]:
        return {"network": MODEL}

    def resolve(self) -> dict:
        rates = self.settle(self.iterations, self.fast_learning_rate, self.fast_lr_step, RELEASE_LR_STEP, "output_rate")
        hard = HARD_REGIONS * self.fast_images if self.fast_ohem else 0
        regions = self.fast_regions or hard or self.default_regions()
        # Defaults stay out of keys, so that older keys stay valid.
        chosen = {"ohem": True} if self.fast_ohem else {}
        return {**super().resolve(), **rates, "regions": regions, **chosen, **agnostic_key(self), **outputs_key(self)}

    def default_regions(self) -> int:
        return defaults_of(self.backbone).regions

    @abc.abstractmethod
    def sources(self) -> dict[str, CachedTask]:
        """The first `weights`, the `proposals` and, if the trunk is frozen, the cached `maps`."""

    def requires(self) -> dict[str, CachedTask]:
        return {"train": self.train_index(), **self.sources(), **self.validation_tasks()}

    def validation_tasks(self) -> dict[str, CachedTask]:
        tasks = super().validation_tasks()
        return {**tasks, "validation proposals": self.proposals_of(self.validate)} if tasks else {}

    @abc.abstractmethod
    def proposals_of(self, split: str) -> CachedTask:
        """The task that makes the proposals of `split`."""

    def first_backbone(self, weights: Artefact):
        return load_backbone(weights, self.backbone)

    def training_images(self, split):
        """The records of the split, with the objects to train on."""
        return split.images

    def build(self, workshop: Workshop) -> dict:
        from pipeline.fast_rcnn.losses import LOSSES
        from pipeline.fast_rcnn.training import freeze, train_fast_rcnn
        from pipeline.networks.weights import save_tensors
        from pipeline.seeding import derive_seed

        device, inputs = self.prepare(), self.inputs()
        split, seed = load_split(inputs["train"]), derive_seed(self.seed, "fast r-cnn")
        resolved, sampler = self.resolve(), self._sampler(split, seed)
        backbone = self.first_backbone(inputs["weights"])
        freeze(backbone, "all" if "maps" in inputs else self.freeze)
        validation = self.validation(lambda network: self._detector(network, device).detect)
        schedule = self.schedule(resolved)
        with self.training_run(workshop, schedule, seed, device, classes=split.classes, validation=validation) as run:
            model, losses = train_fast_rcnn(
                backbone, run, sampler=sampler, inputs=self.map_inputs(split, inputs.get("maps")),
                output_rate=resolved["output_rate"], light=resolved["light"],
                class_weights=self.weights_of_classes(split),
            )
        save_tensors(model, workshop.files / MODEL)
        figures = self.write_curve(workshop, run, losses, LOSSES)
        warn_of_unused(
            self.label, sampler.unused, len(split.images),
            f"no region in them has an IoU of {sampler.settings.background_overlaps[0]:g} or more with an object",
        )
        return {**figures, "targets": int(sampler.examples.sum()), "unused_images": sampler.unused}

    def _sampler(self, split, seed: int):
        from pipeline.fast_rcnn.sampling import RegionSampler, SamplingSettings

        overlaps = (0.0, self.background_overlaps[1]) if self.fast_ohem else self.background_overlaps
        settings = SamplingSettings(
            images=self.fast_images, regions=self.resolve()["regions"], background_overlaps=overlaps, hard=self.fast_ohem,
            scales=self.train_scales, agnostic=self.class_agnostic,
        )
        proposals = load_proposals(self.inputs()["proposals"])
        mirror = self.mirror and split.mirror
        return RegionSampler(
            self.training_images(split), split.classes, proposals.__getitem__, seed, mirror=mirror, settings=settings
        )

    def _detector(self, network, device):
        from pipeline.fast_rcnn.detect import FastRCNNDetector

        return FastRCNNDetector(network, device, *self.sides, validation_limits())


@parameters.inherits(LoadWeights, PretrainClassifier, RegionProposals, without=("split",))
class TrainFastRCNN(FastRCNNTraining):
    """Trains Fast R-CNN on the region proposals of the training split."""

    def sources(self) -> dict[str, CachedTask]:
        return {"weights": first_weights(self), "proposals": self.proposals_of(self.train_split), **self.frozen_maps()}

    def proposals_of(self, split: str) -> CachedTask:
        return self.clone(RegionProposals, split=split)


def rank_setting(layer: str, released: int):
    description = f"rank of {layer} in detection (the release: {released}); 0: not compressed"
    return parameters.integer(0, "fast", f"svd_{layer}", description)


@parameters.inherits(TrainFastRCNN)
class CompressFastRCNN(Stage):
    """Compresses the network: each fully connected layer becomes the product of two smaller ones (section 3.1)."""

    svd_fc6 = rank_setting("fc6", 1024)
    svd_fc7 = rank_setting("fc7", 256)

    def requires(self) -> dict[str, CachedTask]:
        from pipeline.errors import PipelineError

        layers = defaults_of(self.backbone).fully_connected
        for layer in self.ranks.keys() - set(layers):  # an error before training, not after it
            has = f"has only {', '.join(layers)}" if layers else "has no fully connected layer"
            raise PipelineError(f"--svd-{layer}: backbone {self.backbone} {has}")
        return {"network": self.clone(TrainFastRCNN)}

    @property
    def ranks(self) -> dict[str, int]:
        return {layer: rank for layer, rank in (("fc6", self.svd_fc6), ("fc7", self.svd_fc7)) if rank}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.fast_rcnn.network import compress
        from pipeline.networks.compute import prepare
        from pipeline.networks.weights import save_tensors

        prepare(self.device, self.num_threads)
        model = load_model(self.inputs()["network"], self.backbone)
        before = sum(value.numel() for value in model.parameters())
        compress(model, self.ranks)
        save_tensors(model, workshop.files / MODEL)
        return {"parameters_before": before, "parameters": sum(value.numel() for value in model.parameters())}


@parameters.inherits(CompressFastRCNN)
class DetectFastRCNN(DetectInViews):
    """Detections of the test split by Fast R-CNN's network."""

    chain = "fast-rcnn"

    svd_fc6 = rank_setting("fc6", 1024)
    svd_fc7 = rank_setting("fc7", 256)

    def upstream(self) -> dict[str, CachedTask]:
        return {"network": self._network(), "proposals": self.clone(RegionProposals, split=self.test_split)}

    def _network(self) -> CachedTask:
        return self.clone(CompressFastRCNN if self.svd_fc6 or self.svd_fc7 else TrainFastRCNN)

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self._network()}

    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        return {"network": (self._network(), MODEL)}


def load_model(artefact: Artefact, backbone: str):
    """The network in an artefact of a stage that writes MODEL, in float32 on the CPU."""
    from pipeline.fast_rcnn.network import restore_fast_rcnn

    return restore_fast_rcnn(read_tensors(artefact, MODEL), backbone, repr(artefact))
