"""Classification + localisation: the training of one network with two heads."""

import logging

from tasks.data.index import IndexDataset
from tasks.data.sources import DIGITS, SINGLE_DIGITS
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.networks.base import (
    CLASSIFIER,
    IMAGE_CACHE_MEGABYTES,
    load_backbone,
    mirror_setting,
)
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import PlainTraining, lr_step_of, lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights

logger = logging.getLogger("stages")

MODEL = "localiser.safetensors"
BOX_HEADS, PLACES, TRAINED = ("agnostic", "specific"), ("conv", "fc"), ("all", "heads")


@parameters.inherits(LoadWeights, PretrainClassifier, IndexDataset, without=("split",))
class TrainLocaliser(PlainTraining):
    """Trains a network that names the largest object of an image and gives its box.

    Images without objects are left out. First weights from nothing keep their softmax head: it knows the same classes.
    """

    resolved = (
        *PlainTraining.resolved, "localise_side", "localise_iterations", "localise_learning_rate", "localise_lr_step",
        "head_rate",
    )

    box_head = parameters.choice(
        "agnostic", BOX_HEADS, "localisation", "box_head", "one box for each image, or one for each class"
    )
    head_after = parameters.choice(
        "conv", PLACES, "localisation", "head_after", "what the box head reads: the last map, or the last fully connected layer"
    )
    localise_train = parameters.choice(
        "all", TRAINED, "localisation", "train", "what is trained: the whole network, or its two heads alone"
    )
    localise_side = parameters.integer(
        0, "localisation", "side", "side of the square that an image is resized to; 0: the backbone's default"
    )
    localise_iterations = parameters.integer(
        0, "localisation", "iterations", "training steps; 0: 1200, or the backbone's default"
    )
    localise_batch = parameters.integer(32, "localisation", "batch", "windows of images in a training step", minimum=1)
    localise_learning_rate = rate_setting("localisation")
    localise_lr_step = lr_step_setting("localisation")
    head_rate = parameters.number(
        0, "localisation", "head_rate", "learning rate of the heads over that of the rest; 0: the backbone's default", minimum=0
    )
    box_loss_weight = parameters.number(
        1, "localisation", "box_loss_weight",
        "weight of the box head's loss; targets have deviation 1, so at 1 both losses begin at about 2", minimum=0,
    )
    smallest_window = parameters.number(
        0.6, "localisation", "smallest_window", "shortest side of a training window, in sides of its image", minimum=0.05,
        maximum=1,
    )
    single_digits = parameters.switch(
        True, "localisation", "single_digits", "whether --dataset digits stands for its images with one digit, digits-single",
        significant=False,  # it is in the key of the index
    )
    mirror = mirror_setting()
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {"train": self.index(self.train_split), "weights": first_weights(self, dataset=self.own_dataset)}

    @property
    def own_dataset(self) -> str:
        """The data set of the chain. Few images of `digits` have one object; those of `digits-single` all have."""
        return SINGLE_DIGITS if self.dataset == DIGITS and self.single_digits else self.dataset

    def index(self, split: str) -> IndexDataset:
        """The index of a split of this data set."""
        return self.clone(IndexDataset, split=split, dataset=self.own_dataset)

    def resolve(self) -> dict:
        return {
            **super().resolve(), "side": self.side, "iterations": self.iterations,
            "lr_step": lr_step_of(self.localise_lr_step, self.iterations),
            "learning_rate": self.localise_learning_rate or defaults_of(self.backbone).localise_rate,
            "head_rate": self.head_rate or defaults_of(self.backbone).localise_head_rate,
        }

    @property
    def side(self) -> int:
        return self.localise_side or defaults_of(self.backbone).localise_side

    @property
    def iterations(self) -> int:
        return self.localise_iterations or defaults_of(self.backbone).localise_iterations

    def layout(self, num_classes: int):
        from pipeline.localisation.network import Layout

        return Layout(self.backbone, num_classes, self.side, self.box_head, self.head_after)

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.localisation.network import LOSSES
        from pipeline.localisation.training import HeadSettings, train_localiser
        from pipeline.localisation.windows import WindowSampler
        from pipeline.seeding import derive_seed

        device, inputs, seed = self.prepare(), self.inputs(), derive_seed(self.seed, "localiser")
        split, resolved = load_split(inputs["train"]), self.resolve()
        sampler = WindowSampler(
            split.images, split.classes, seed, batch_size=self.localise_batch, mirror=self.mirror and split.mirror,
            smallest=self.smallest_window, light=resolved["light"],
        )
        if sampler.unused:
            logger.warning("%s: %d images have no object and are not trained on", self.label, sampler.unused)
        run = self.new_run(workshop, seed, device, iterations=self.iterations, resolved=resolved)
        # First weights from a file have none, and without layers of its own a backbone's classifier reads `pool5`.
        keeps_head = CLASSIFIER in inputs["weights"].manifest["files"] and len(defaults_of(self.backbone).layers) > 1
        classifier = read_tensors(inputs["weights"], CLASSIFIER) if keeps_head else None
        settings = HeadSettings(self.localise_train, resolved["head_rate"], self.box_loss_weight, classifier)
        read = ImageCache(self.requires()["train"].root, IMAGE_CACHE_MEGABYTES).read
        backbone = load_backbone(inputs["weights"], self.backbone)
        model, losses = train_localiser(
            backbone, self.layout(len(split.classes)), run, sampler=sampler, read=read, settings=settings
        )
        figures = self.save_network(workshop, MODEL, model, run, losses, names=LOSSES)
        counts = {"images": len(sampler.numbers), "unused_images": sampler.unused}
        return {**figures, **counts}
