"""Semantic segmentation: the training of one method's network."""

import logging
from dataclasses import asdict

from pipeline.segmentation.layout import SKIPS, TRANSPOSED, UNPOOL, WAYS, WITHOUT_POOLING
from tasks.data.index_masks import IndexMasks
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.networks.base import (
    IMAGE_CACHE_MEGABYTES,
    SCRATCH,
    load_backbone,
    mirror_setting,
)
from tasks.networks.schedules import PlainTraining, lr_step_of, lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights
from tasks.segmentation.base import BEFORE, PATCHES, UNPOOLING, method_setting

logger = logging.getLogger("stages")

MODEL = "segmenter.safetensors"
TRAINED, LOSSES, BALANCE = ("all", "last"), ("mean", "sum"), ("auto", "none", "median")
AUTO, MEDIAN = "auto", "median"
# Ours, of the whole network with the mean over an image's pixels as loss; and how many times faster new layers learn.
LEARNING_RATES = {"tiny": 0.02, "efficientnet_lite0": 0.0002, "squeezenet1_0": 0.0003}
LEARNING_RATE = 0.0001
# Of unpooling, by whether the classes are balanced: on `digits` the weights of the background make losses ten times smaller.
UNPOOLING_RATES = {("tiny", "none"): 0.003, ("tiny", "median"): 0.03}
NEW_RATES = {"tiny": 1.0}
NEW_RATE = 10.0
# Of unpooling's decoder: values between zeros make its gradients small.
UNPOOLING_NEW_RATES = {"tiny": 10.0}
UNPOOLING_NEW_RATE = 200.0


@parameters.inherits(LoadWeights, PretrainClassifier, IndexMasks, without=("split",))
class TrainSegmenter(PlainTraining):
    """Trains the network of one method on the label maps of whole images; `patches` on windows around single pixels.

    `fcn16s` starts from the trained `fcn32s`, and `fcn8s` from the trained `fcn16s`, or at once from the first weights.
    """

    # What a method does not use is not in its key: `--upsampling` leaves `fcn32s` as it is.
    resolved = (
        *PlainTraining.resolved, "segment_iterations", "segment_skip_iterations", "segment_learning_rate", "segment_skip_rate",
        "segment_new_rate", "segment_lr_step", "upsampling", "segment_learned", "segment_at_once", "segment_window",
        "segment_patch_stride", "segment_patches", "segment_patch_images", "segment_images", "segment_balance",
    )

    segment_method = method_setting()
    upsampling = parameters.choice(
        AUTO, (AUTO, *WAYS), "segmentation", "upsampling",
        "how the method unpooling goes back up; auto: unpool, or transposed where the backbone has no max pooling",
    )
    segment_learned = parameters.switch(
        False, "segmentation", "learned", "whether the FCNs' transposed convolutions are trained; they are bilinear at the start"
    )
    segment_at_once = parameters.switch(
        False, "segmentation", "at_once", "whether fcn16s and fcn8s are trained from the first weights, not stage after stage"
    )
    segment_window = parameters.integer(0, "segmentation", "window", "side of the windows of patches; 0: the backbone's crops'")
    segment_patch_stride = parameters.integer(
        0, "segmentation", "patch_stride", "pixels from one window of patches to the next; 0: the backbone's default"
    )
    segment_patches = parameters.integer(8, "segmentation", "patches", "windows of an image in a step of patches", minimum=1)
    segment_patch_images = parameters.integer(
        8, "segmentation", "patch_images", "images in a step of patches; one alone shows few classes", minimum=1
    )
    segment_train = parameters.choice(
        "all", TRAINED, "segmentation", "train", "what is trained: all layers that are not frozen, or the new ones alone"
    )
    segment_iterations = parameters.integer(1200, "segmentation", "iterations", "training steps", minimum=1)
    segment_skip_iterations = parameters.integer(
        0, "segmentation", "skip_iterations", "training steps of fcn16s and fcn8s after the stage before; 0: as the first stage"
    )
    segment_images = parameters.integer(1, "segmentation", "images", "images in a training step", minimum=1)
    segment_learning_rate = rate_setting("segmentation")
    segment_skip_rate = parameters.number(
        0.5, "segmentation", "skip_rate", "rate of fcn16s over that of fcn32s, and of fcn8s over that of fcn16s", minimum=0
    )
    segment_new_rate = parameters.number(
        0, "segmentation", "new_rate", "rate of new layers as a multiple of the others'; 0: the backbone's default", minimum=0
    )
    segment_lr_step = lr_step_setting("segmentation")
    segment_momentum = parameters.number(0.9, "segmentation", "momentum", "momentum", minimum=0, maximum=0.9999)
    segment_loss = parameters.choice(
        "mean", LOSSES, "segmentation", "loss", "whether the loss of an image is the mean over its pixels or their sum"
    )
    segment_balance = parameters.choice(
        AUTO, BALANCE, "segmentation", "balance",
        "weights of the classes in the loss; median: by median frequency, as SegNet; auto: that if the first weights are trained "
        "from nothing, else none",
    )
    mirror = mirror_setting()
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        train = {"train": self.clone(IndexMasks, split=self.train_split)}
        return {**train, "before": self.before()} if self.before() else {**train, "weights": first_weights(self)}

    def before(self) -> "TrainSegmenter | None":
        """The training that this one starts from, if it is not the first."""
        method = BEFORE.get(self.segment_method)
        return None if method is None or self.segment_at_once else self.clone(TrainSegmenter, segment_method=method)

    def resolve(self) -> dict:
        # Unpooling of before had kept statistics: its keys are others.
        own = {PATCHES: {"patches": self.segment_patches}, UNPOOLING: {"normalisation": "by image"}}
        return {
            **super().resolve(), **own.get(self.segment_method, {}), "layout": asdict(self.layout_of(1)),
            "images": self.images, "iterations": self.iterations, "learning_rate": self.learning_rate,
            "lr_step": lr_step_of(self.segment_lr_step, self.iterations),
            "new_rate": self.segment_new_rate or self._default_new_rate(), "balance": self.balance,
        }

    @property
    def parts_a_step(self) -> int:
        return self.images

    @property
    def images(self) -> int:
        """Images in a training step."""
        return self.segment_patch_images if self.segment_method == PATCHES else self.segment_images

    @property
    def balance(self) -> str:
        if self.segment_balance != AUTO:
            return self.segment_balance
        return MEDIAN if self.weights == SCRATCH else "none"

    @property
    def iterations(self) -> int:
        return self.segment_skip_iterations or self.segment_iterations if self.before() else self.segment_iterations

    @property
    def learning_rate(self) -> float:
        before = self.before()
        if before:
            return before.learning_rate * self.segment_skip_rate
        default = LEARNING_RATES.get(self.backbone, LEARNING_RATE)
        if self.segment_method == UNPOOLING:
            default = UNPOOLING_RATES.get((self.backbone, self.balance), default)
        return self.segment_learning_rate or default

    def _default_new_rate(self) -> float:
        """How many times faster new layers learn than the backbone's."""
        if self.segment_method == UNPOOLING:
            return UNPOOLING_NEW_RATES.get(self.backbone, UNPOOLING_NEW_RATE)
        return NEW_RATES.get(self.backbone, NEW_RATE)

    def layout_of(self, num_classes: int):
        """The network's layout. Raises PipelineError where the backbone cannot have it."""
        from pipeline.segmentation.layout import Layout

        method, has_skips = self.segment_method, self.segment_method in BEFORE
        window = {"window": self.segment_window, "patch_stride": self.segment_patch_stride} if method == PATCHES else {}
        return Layout(
            self.backbone, num_classes, method, self._way() if method == UNPOOLING else TRANSPOSED,
            learned=self.segment_learned and method in SKIPS, at_once=self.segment_at_once and has_skips, **window,
        )

    def _way(self) -> str:
        """How `unpooling` goes back up."""
        if self.upsampling != AUTO:
            return self.upsampling
        return TRANSPOSED if self.backbone in WITHOUT_POOLING else UNPOOL

    def names(self) -> tuple[str, ...]:
        """The names of the K labels."""
        from pipeline.segmentation.label_maps import label_names

        return label_names(load_split(self.inputs()["train"])).names

    def layout(self):
        return self.layout_of(len(self.names()))

    def load_network(self):
        """The trained network, in float32 on the CPU."""
        from pipeline.segmentation.network import restore_network

        return restore_network(read_tensors(self.artefact, MODEL), self.layout(), repr(self.artefact))

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.seeding import derive_seed
        from pipeline.segmentation.label_maps import LabelMaps, label_names
        from pipeline.segmentation.training import train_segmenter

        device, seed, index = self.prepare(), derive_seed(self.seed, "segmenter", self.segment_method), self.requires()["train"]
        split, resolved = load_split(index.artefact), self.resolve()
        images, maps = self._images(split), LabelMaps(index.mask_root, label_names(split))
        run = self.new_run(workshop, seed, device, iterations=self.iterations, resolved=resolved)
        model, losses = train_segmenter(
            self._backbone(), self.layout(), run, images=images, read=ImageCache(index.root, IMAGE_CACHE_MEGABYTES).read,
            read_labels=maps.read, settings=self._settings(split, images, maps, resolved),
        )
        figures = self.save_network(workshop, MODEL, model, run, losses)
        counts = {"images": len(images), "without_mask": len(split.images) - len(images)}
        return {**figures, "learning_rate": resolved["learning_rate"], **counts}

    def _images(self, split) -> list:
        """The images that have a mask. Says how many have none; raises PipelineError when none is left."""
        from pipeline.errors import PipelineError
        from pipeline.segmentation.label_maps import usable

        numbers = usable(split)
        if not numbers:
            raise PipelineError(f"split '{split.name}': none of its images has a class mask; add masks to SegmentationClass")
        if without := len(split.images) - len(numbers):
            logger.warning("%s: %d of %d images have no mask and are not trained on", self.label, without, len(split.images))
        return [split.images[number] for number in numbers]

    def _backbone(self):
        """The backbone to begin with; that of the stage before comes with its other tensors."""
        from pipeline.networks.backbones import make_backbone

        return make_backbone(self.backbone) if self.before() else load_backbone(self.inputs()["weights"], self.backbone)

    def _settings(self, split, images: list, maps, resolved: dict):
        from pipeline.segmentation.training import SegmenterSettings

        before = self.before()
        return SegmenterSettings(
            trained=self.segment_train, rate=resolved["new_rate"], loss=self.segment_loss, momentum=self.segment_momentum,
            images_a_step=self.images, weights=self._weights(images, maps), mirror=self.mirror and split.mirror,
            light=resolved["light"], patches=self.segment_patches,
            first=read_tensors(before.artefact, MODEL) if before else None,
        )

    def _weights(self, images: list, maps):
        """The weights of the classes in the loss, or None."""
        import numpy as np

        from pipeline.segmentation.scores import label_counts, median_frequency_weights

        if self.balance != MEDIAN:
            return None
        counts = np.stack([label_counts(maps.read(record), len(maps.names.names)) for record in images])
        return median_frequency_weights(counts)
