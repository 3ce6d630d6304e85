"""R-CNN's fine-tuning of the backbone on warped windows."""

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import (
    IMAGE_CACHE_MEGABYTES,
    Training,
    load_backbone,
    mirror_setting,
    padding_setting,
    readers_setting,
    save_training,
)
from tasks.networks.class_weights import WeightedClasses
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import lr_step_of, lr_step_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights
from tasks.proposals.regions import RegionProposals, load_proposals

RELEASE_LR_STEP = 20000  # pascal_finetune_solver.prototxt of rbgirshick/rcnn


@parameters.inherits(LoadWeights, PretrainClassifier, RegionProposals, without=("split",))
class FineTune(WeightedClasses, Training):
    """Trains the backbone for detection on warped windows: per step 32 on objects and 96 on background."""

    version = 3
    resolved = (*Training.resolved, *WeightedClasses.resolved)

    finetune_iterations = parameters.integer(
        300, "finetune", "iterations", "training steps, with 128 windows each; 0: no fine-tuning"
    )
    finetune_learning_rate = parameters.number(
        0, "finetune", "learning_rate", "learning rate, ten times as high for the new layer; 0: the backbone's default",
        minimum=0,
    )
    finetune_lr_step = lr_step_setting("finetune", ", at most 20000")
    mirror = mirror_setting()
    context_padding = padding_setting()
    readers = readers_setting()
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {
            "train": self.clone(IndexDataset, split=self.train_split), "weights": first_weights(self),
            "proposals": self.clone(RegionProposals, split=self.train_split),
        }

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.networks.training import Schedule, TrainingRun
        from pipeline.rcnn.finetune import finetune
        from pipeline.rcnn.windows import label_windows
        from pipeline.seeding import derive_seed

        device = self.prepare()
        split = load_split(self.inputs()["train"])
        proposals = load_proposals(self.inputs()["proposals"])
        windows = label_windows(split.images, proposals.__getitem__)
        backbone = load_backbone(self.inputs()["weights"], self.backbone)
        rate = self.finetune_learning_rate or defaults_of(self.backbone).finetune_rate
        lr_step = lr_step_of(self.finetune_lr_step, self.finetune_iterations, RELEASE_LR_STEP)
        schedule = Schedule(self.finetune_iterations, rate, lr_step)
        images = ImageCache(self.requires()["train"].root, IMAGE_CACHE_MEGABYTES)
        run = TrainingRun(
            schedule, derive_seed(self.seed, "finetune"), device, self.arithmetic, workshop.checkpoint,
            progress=self.progress("step"),
        )
        model, losses = finetune(
            backbone, run, windows=windows, split=split, read=images.read, mirror=self.mirror and split.mirror,
            padding=self.context_padding, light=self.resolve()["light"],
            class_weights=self.weights_of_classes(split), readers=self.readers,
        )
        foreground = int((windows.labels > 0).sum())
        counts = {"foreground": foreground, "background": len(windows) - foreground}
        return {**counts, **save_training(workshop, model, losses, schedule)}


def trained_network(task: CachedTask) -> CachedTask:
    """The task whose backbone computes the features."""
    return task.clone(FineTune) if task.finetune_iterations else first_weights(task)
