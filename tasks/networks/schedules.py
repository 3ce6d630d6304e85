"""What the schedules of trainings have in common: their settings, and how a training of one network begins and is saved."""

from collections.abc import Sequence

from tasks.engine import parameters
from tasks.engine.workshop import Workshop
from tasks.networks.base import CURVE, Training, recent_loss


def rate_setting(section: str):
    return parameters.number(0, section, "learning_rate", "learning rate; 0: the backbone's default", minimum=0)


def lr_step_setting(section: str, limit: str = ""):
    """`limit` says of the default what else there is to say."""
    description = f"steps after which the rate falls to a tenth; 0: three quarters of all steps{limit}"
    return parameters.integer(0, section, "lr_step", description)


def lr_step_of(given: int, iterations: int, release: int | None = None) -> int:
    """The steps after which the rate falls: those `given`, or three quarters of all, but at most those of the `release`."""
    steps = max(1, iterations * 3 // 4)
    return given or (min(steps, release) if release else steps)


class PlainTraining(Training):
    """A training of one network that runs through its schedule: it goes on from no other, and is not validated."""

    def new_run(self, workshop: Workshop, seed: int, device, *, iterations: int, resolved: dict):
        """The `TrainingRun` of so many steps; `resolved` has the learning rate and `lr_step`."""
        from pipeline.networks.training import Schedule, TrainingRun

        schedule = Schedule(iterations, resolved["learning_rate"], resolved["lr_step"])
        return TrainingRun(schedule, seed, device, self.arithmetic, workshop.checkpoint, progress=self.progress("step"))

    @staticmethod
    def save_network(workshop: Workshop, file: str, model, run, losses, *, names: Sequence[str] = ()) -> dict:
        """Writes the network and the training curve; returns figures. `names` are those of the losses."""
        from pipeline.networks.training import loss_table
        from pipeline.networks.weights import save_tensors

        save_tensors(model, workshop.files / file)
        workshop.write(CURVE, loss_table(losses, run.schedule, names))
        return {"steps": len(losses), "loss": recent_loss(losses)}
