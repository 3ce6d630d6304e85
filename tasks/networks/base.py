"""What all stages that run or train a network share: arithmetic, settings, files."""

from pipeline.errors import PipelineError
from pipeline.networks.variants import NAMES, Variant, base_of
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.networks.precision import has_fast_bfloat16
from tasks.stage import Stage

BACKBONE = "backbone.safetensors"
CLASSIFIER = "classifier.safetensors"
CURVE = "training.csv"
SCRATCH, IMAGENET = "scratch", "imagenet"
IMAGE_CACHE_MEGABYTES = 512


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
        # The value chosen by `auto`: so the same key means the same arithmetic on every machine.
        return {"arithmetic": self.arithmetic}

    def prepare(self):
        """The torch device, with threads and determinism set."""
        from pipeline.networks.compute import prepare

        return prepare(self.device, self.num_threads)


class Training(NetworkTask):
    """A stage that trains a trunk, and changes the light of its images if `light` says so."""

    resolved = (*NetworkTask.resolved, "light")

    light = parameters.choice(
        "auto", ("auto", "true", "false"), "network", "light",
        "whether training changes light and inverts colours; auto: if the first weights are trained from nothing",
    )

    @property
    def changes_light(self) -> bool:
        return self.light == "true" or (self.light == "auto" and self.weights == SCRATCH)

    def resolve(self) -> dict:
        return {**super().resolve(), "light": self.changes_light}

class BackboneName(parameters.Choice):
    """A backbone or, after a `+`, a variant of it; equal variants are the same text."""

    def normalize(self, value) -> str:
        if base_of(value) == value:
            return super().normalize(value)
        try:
            return Variant.of(value).name
        except PipelineError as error:
            raise parameters.SettingError(f"{self.option}: {error}") from None


def backbone_setting():
    return BackboneName(
        default="tiny", choices=NAMES, config_path={"section": "network", "name": "backbone"},
        description=f"the network ({', '.join(NAMES)}), or a variant of it such as resnet50+grid14",
    )


def mirror_setting():
    description = "whether to train on mirrored images too; never for digits, since a mirrored digit is another sign"
    return parameters.switch(True, "network", "mirror", description)


def readers_setting():
    description = "what reads images ahead: processes in training on maps, threads in training on crops and for their features"
    return parameters.integer(1, "run", "readers", description, minimum=1, significant=False)


def padding_setting():
    return parameters.integer(16, "network", "context_padding", "context around a region, in pixels of a 227 x 227 crop")


def save_training(workshop: Workshop, model, losses, schedule) -> dict:
    """Writes the backbone, its classifier and the training curve; returns figures."""
    from pipeline.networks.training import loss_table
    from pipeline.networks.weights import save_tensors

    save_tensors(model.backbone, workshop.files / BACKBONE)
    save_tensors(model.scores, workshop.files / CLASSIFIER)
    workshop.write(CURVE, loss_table(losses, schedule))
    return {"steps": len(losses), "loss": recent_loss(losses)}


def recent_loss(losses) -> float | None:
    """The mean loss of the last tenth of the steps, None without steps; `losses` [steps x L]."""
    return None if not len(losses) else float(losses[-max(1, len(losses) // 10) :].sum(axis=1).mean())


def load_backbone(artefact: Artefact, name: str):
    """The backbone in an artefact of a stage that writes BACKBONE, in float32 on the CPU."""
    from pipeline.networks.backbones import make_backbone
    from pipeline.networks.weights import load_tensors

    backbone = make_backbone(name)
    load_tensors(backbone, read_tensors(artefact, BACKBONE), repr(artefact))
    return backbone
