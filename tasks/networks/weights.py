"""The first weights of a backbone: loaded from a file, or trained from nothing."""

from pathlib import Path

from pipeline.networks.parts import BATCH_SIZE, parts_of
from pipeline.networks.variants import base_of
from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.digests import MISSING
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import (
    BACKBONE,
    IMAGE_CACHE_MEGABYTES,
    IMAGENET,
    SCRATCH,
    backbone_setting,
    mirror_setting,
    padding_setting,
    readers_setting,
    save_training,
)
from tasks.networks.defaults import defaults_of
from tasks.networks.ranks import RankedTraining
from tasks.stage import Stage

# How a backbone's tensors are kept, where that has changed: in keys, so that artefacts of before are built again.
KEPT_AS = {"efficientnet_lite0": {"norms": "apart"}}


class LoadWeights(Stage):
    """Loads the weights of a backbone: ImageNet weights, or the user's file."""

    version = 2
    computes = False
    resolved = ("weights",)

    backbone = backbone_setting()
    weights = parameters.text(SCRATCH, "network", "weights", "scratch, imagenet, or a file with a state dict")

    def resolve(self) -> dict:
        path = self.weights_file()
        if path is None:
            from pipeline.networks.weight_files import imagenet_file

            return {"file": imagenet_file(self.backbone), **kept_as(self.backbone)}  # its name contains its digest
        return {"digest": self.digest_memory.of([path])[path], **kept_as(self.backbone)}

    def weights_file(self) -> Path | None:
        """The user's file, or the one in an installed package; None for weights to download."""
        if self.weights != IMAGENET:
            return Path(self.weights)
        from pipeline.networks.weight_files import packaged_file

        return packaged_file(self.backbone)

    def build(self, workshop: Workshop) -> dict:
        from pipeline.errors import PipelineError
        from pipeline.files.reading import check_regular
        from pipeline.networks.backbones import make_backbone
        from pipeline.networks.weights import load_weights, save_tensors

        path = self.weights_file()
        if path is None:
            from pipeline.networks.weight_files import fetch_imagenet

            path = fetch_imagenet(self.backbone, Path(self.data_dir) / "weights", progress=self.progress("MB"))
        elif self.resolve()["digest"] == MISSING:
            check_regular(path)
            raise PipelineError(f"--weights {path}: no such file; give a file, or imagenet, or scratch")
        backbone = make_backbone(self.backbone)
        load_weights(backbone, path)
        save_tensors(backbone, workshop.files / BACKBONE)
        return {"parameters": sum(value.numel() for value in backbone.parameters())}


@parameters.inherits(IndexDataset, without=("split",))
class PretrainClassifier(RankedTraining):
    """Trains a backbone from nothing, to classify crops of the training objects."""

    version = 6

    backbone = backbone_setting()
    pretrain_iterations = parameters.integer(
        400, "pretrain", "iterations", "training steps, with 128 crops of objects each", minimum=1
    )
    pretrain_learning_rate = parameters.number(
        0.02, "pretrain", "learning_rate", "learning rate; a tenth of it in the last quarter of the steps", minimum=0
    )
    mirror = mirror_setting()
    context_padding = padding_setting()
    readers = readers_setting()
    seed = parameters.seed()

    @property
    def parts_a_step(self) -> int:
        return crop_parts(self.backbone)

    def resolve(self) -> dict:
        return {**super().resolve(), **kept_as(self.backbone)}

    def requires(self) -> dict[str, CachedTask]:
        return {"train": self.clone(IndexDataset, split=self.train_split)}

    def build(self, workshop: Workshop) -> dict:
        import torch

        from pipeline.images.reading import ImageCache
        from pipeline.networks.backbones import make_backbone
        from pipeline.networks.training import Schedule
        from pipeline.rcnn.finetune import pretrain
        from pipeline.seeding import derive_seed

        device = self.prepare()
        torch.manual_seed(derive_seed(self.seed, "pretrain", "weights"))
        backbone = make_backbone(self.backbone)
        schedule = Schedule(self.pretrain_iterations, self.pretrain_learning_rate, max(1, self.pretrain_iterations * 3 // 4))
        images = ImageCache(self.requires()["train"].root, IMAGE_CACHE_MEGABYTES)
        split = load_split(self.inputs()["train"])
        run = self.run_of(workshop, schedule, derive_seed(self.seed, "pretrain"), device)
        model, losses = pretrain(
            backbone, run, split=split, read=images.read, mirror=self.mirror and split.mirror, padding=self.context_padding,
            readers=self.readers,
        )
        return save_training(workshop, model, losses, schedule)


def crop_parts(backbone: str) -> int:
    """The parts of a batch of a backbone's crops."""
    return len(parts_of(BATCH_SIZE, defaults_of(backbone).pose_side))


def kept_as(backbone: str) -> dict:
    """What the key of a backbone's first weights says of their tensors."""
    return KEPT_AS.get(base_of(backbone), {})


def first_weights(task: CachedTask, **settings) -> CachedTask:
    """The task that makes the backbone's weights before fine-tuning, with the settings of `task` but for those given."""
    return task.clone(PretrainClassifier if task.weights == SCRATCH else LoadWeights, **settings)
