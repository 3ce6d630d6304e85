"""The network of R-CNN: its first weights, and fine-tuning."""

from pathlib import Path

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import MISSING
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.networks.precision import has_fast_bfloat16
from tasks.proposals.regions import RegionProposals, load_proposals
from tasks.stage import Stage

BACKBONE = "backbone.safetensors"
CLASSIFIER = "classifier.safetensors"
CURVE = "training.csv"
SCRATCH, IMAGENET = "scratch", "imagenet"
IMAGE_CACHE_MEGABYTES = 512
RELEASE_LR_STEP = 20000  # pascal_finetune_solver.prototxt of rbgirshick/rcnn


class NetworkTask(Stage):
    """A stage that runs a network, in `precision`."""

    resolved = ("precision",)

    precision = parameters.choice(
        "auto", ("auto", "float32", "bfloat16"), "network", "precision",
        "arithmetic of the network; auto: bfloat16 where the processor is faster in it",
    )

    @property
    def arithmetic(self) -> str:
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if has_fast_bfloat16(self.device) else "float32"

    def resolve(self) -> dict:
        # What `auto` leads to, so that the same key is the same arithmetic on every machine.
        return {"arithmetic": self.arithmetic}

    def prepare(self):
        """The torch device, with threads and determinism set."""
        from pipeline.networks.compute import prepare

        return prepare(self.device, self.num_threads)


class Training(NetworkTask):
    """A stage that trains a trunk further, in changing light where that helps."""

    resolved = (*NetworkTask.resolved, "light")

    light = parameters.choice(
        "auto", ("auto", "true", "false"), "network", "light",
        "whether training changes light and inverts colours; auto: if the first weights are made from nothing",
    )

    @property
    def changes_light(self) -> bool:
        return self.light == "true" or (self.light == "auto" and self.weights == SCRATCH)

    def resolve(self) -> dict:
        return {**super().resolve(), "light": self.changes_light}


# The layers of each backbone, so that a wrong name is told before hours are spent; pipeline/networks/backbones.py makes them.
LAYERS = {
    "alexnet": ("pool5", "fc6", "fc7"), "vgg16": ("pool5", "fc6", "fc7"), "squeezenet1_0": ("pool5",), "tiny": ("pool5", "fc6"),
}


def backbone_setting():
    return parameters.choice("tiny", tuple(LAYERS), "network", "backbone", "the network")


def mirror_setting():
    description = "whether to train on mirrored images too; never for digits, whose mirror images are other signs"
    return parameters.switch(True, "network", "mirror", description)


def padding_setting():
    return parameters.integer(16, "network", "context_padding", "context around a region, in pixels of a crop of 227")


class LoadWeights(Stage):
    """Given weights of a backbone: torchvision's ImageNet ones, or a file."""

    version = 2
    computes = False
    resolved = ("weights",)

    backbone = backbone_setting()
    weights = parameters.text(SCRATCH, "network", "weights", "scratch, imagenet, or a file with torchvision's state dict")

    def resolve(self) -> dict:
        if self.weights == IMAGENET:
            from pipeline.networks.weight_files import imagenet_file

            return {"file": imagenet_file(self.backbone)}  # its name holds its digest
        return {"digest": self.digest_memory.of([Path(self.weights)])[Path(self.weights)]}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.errors import PipelineError
        from pipeline.files.reading import check_regular
        from pipeline.networks.backbones import make_backbone
        from pipeline.networks.weights import load_weights, save_tensors

        path = Path(self.weights)
        if self.weights == IMAGENET:
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
class PretrainClassifier(NetworkTask):
    """Weights made from nothing: a backbone that tells crops of the training objects apart."""

    version = 6

    backbone = backbone_setting()
    pretrain_iterations = parameters.integer(400, "pretrain", "iterations", "steps of 128 object crops", minimum=1)
    pretrain_learning_rate = parameters.number(
        0.02, "pretrain", "learning_rate", "learning rate; a tenth for the last quarter", minimum=0
    )
    mirror = mirror_setting()
    context_padding = padding_setting()
    seed = parameters.seed()

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
        model, losses = pretrain(
            backbone, split, images.read, schedule, derive_seed(self.seed, "pretrain"), self.mirror and split.mirror,
            self.context_padding, self.arithmetic, device, workshop.checkpoint, self.progress("step"),
        )
        return save_training(workshop, model, losses, schedule)


@parameters.inherits(LoadWeights, PretrainClassifier, RegionProposals, without=("split",))
class FineTune(Training):
    """The backbone trained for detection on warped windows, 32 on objects and 96 on background a step."""

    version = 3

    finetune_iterations = parameters.integer(300, "finetune", "iterations", "steps of 128 windows; 0: no fine-tuning")
    finetune_learning_rate = parameters.number(
        0, "finetune", "learning_rate", "learning rate, ten times that for the new layer; 0: what suits the backbone", minimum=0
    )
    finetune_lr_step = parameters.integer(
        0, "finetune", "lr_step", "steps after which the rate falls to a tenth; 0: three quarters of all, 20000 at most"
    )
    mirror = mirror_setting()
    context_padding = padding_setting()
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {
            "train": self.clone(IndexDataset, split=self.train_split), "weights": first_weights(self),
            "proposals": self.clone(RegionProposals, split=self.train_split),
        }

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.networks.training import Schedule
        from pipeline.rcnn.finetune import finetune, finetune_rate
        from pipeline.rcnn.windows import label_windows
        from pipeline.seeding import derive_seed

        device = self.prepare()
        split = load_split(self.inputs()["train"])
        proposals = load_proposals(self.inputs()["proposals"])
        windows = label_windows(split.images, proposals.__getitem__)
        backbone = load_backbone(self.inputs()["weights"], self.backbone)
        rate = self.finetune_learning_rate or finetune_rate(self.backbone)
        lr_step = self.finetune_lr_step or min(RELEASE_LR_STEP, max(1, self.finetune_iterations * 3 // 4))
        schedule = Schedule(self.finetune_iterations, rate, lr_step)
        images = ImageCache(self.requires()["train"].root, IMAGE_CACHE_MEGABYTES)
        model, losses = finetune(
            backbone, windows, split, images.read, schedule, derive_seed(self.seed, "finetune"), self.mirror and split.mirror,
            self.context_padding, self.arithmetic, device, workshop.checkpoint, self.progress("step"), self.changes_light,
        )
        foreground = int((windows.labels > 0).sum())
        counts = {"foreground": foreground, "background": len(windows) - foreground}
        return {**counts, **save_training(workshop, model, losses, schedule)}


def first_weights(task: CachedTask) -> CachedTask:
    """The task that gives the backbone its weights before fine-tuning."""
    return task.clone(PretrainClassifier if task.weights == SCRATCH else LoadWeights)


def trained_network(task: CachedTask) -> CachedTask:
    """The task whose backbone the features are computed with."""
    return task.clone(FineTune) if task.finetune_iterations else first_weights(task)


def save_training(workshop: Workshop, model, losses, schedule) -> dict:
    """Writes the backbone, the classifier on it and the training curve; returns figures."""
    from pipeline.networks.training import loss_table
    from pipeline.networks.weights import save_tensors

    save_tensors(model.backbone, workshop.files / BACKBONE)
    save_tensors(model.scores, workshop.files / CLASSIFIER)
    workshop.write(CURVE, loss_table(losses, schedule))
    return {"steps": len(losses), "loss": recent_loss(losses)}


def recent_loss(losses) -> float:
    """The mean loss of the last tenth of the steps; `losses` [steps x L]."""
    return float(losses[-max(1, len(losses) // 10) :].sum(axis=1).mean())


def load_backbone(artefact: Artefact, name: str):
    """The backbone in the artefact of one of the tasks above, in float32 on the CPU."""
    from pipeline.networks.backbones import make_backbone
    from pipeline.networks.weights import load_tensors

    backbone = make_backbone(name)
    load_tensors(backbone, read_tensors(artefact, BACKBONE), repr(artefact))
    return backbone
