"""What the trainings of detectors share: going on from a finished one, and validation."""

import abc
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from pipeline.errors import PipelineError
from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.task import CachedTask, describe
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.networks.base import CURVE, Training, recent_loss
from tasks.networks.parents import OPTION, PARENT, find_parent, with_parents
from tasks.networks.ranks import RankedTraining
from tasks.networks.scalar_log import scalar_log

logger = logging.getLogger("stages")

STATE, SCORES = "state.safetensors", "validation.csv"
# Values in keys that may differ between a training and the longer one that takes over its velocities.
OF_SCHEDULE = ("learning_rate", "lr_step", "iterations", "warm_up", "warm_up_start", "keep_state", PARENT)


class TrainingOptions(RankedTraining, Training):
    """A training that can go on from a shorter one, and that keeps the best of its networks if it is validated."""

    resolved = (*Training.resolved, "continue_from", "keep_state", "validate", "validate_every", "patience")
    validates = True  # whether its networks can be validated

    continue_from = parameters.names(
        (), "training", "continue_from", "keys of finished trainings, separated by commas; each is continued by its own stage"
    )
    keep_state = parameters.switch(
        False, "training", "keep_state", "whether velocities are kept too, so that a longer training goes on exactly"
    )
    validate = parameters.text(
        "", "training", "validate", "split on which a training validates its detector, to keep the best; empty: it keeps the last"
    )
    validate_every = parameters.integer(200, "training", "validate_every", "training steps between validations", minimum=1)
    patience = parameters.integer(
        0, "training", "patience", "validations without a gain after which a training ends; 0: it never ends early"
    )
    seed = parameters.seed()
    tensorboard = parameters.text("", "run", "tensorboard", "folder for TensorBoard's logs; empty: none", significant=False)

    @property
    @abc.abstractmethod
    def iterations(self) -> int:
        """The steps of the training."""

    @property
    @abc.abstractmethod
    def trained(self) -> dict[str, str]:
        """The files of the parts that are trained."""

    @property
    def is_validated(self) -> bool:
        return self.validates and bool(self.validate)

    def resolve(self) -> dict:
        # Defaults stay out of keys, so that older keys stay valid.
        chosen: dict[str, Any] = {PARENT: self.parent.key} if self.parent else {}
        if self.keep_state:
            chosen["keep_state"] = True
        if self.patience and not self.validate:
            raise PipelineError(f"--patience {self.patience}: needs a split to validate on; give --validate SPLIT as well")
        if self.is_validated:
            chosen["validation"] = {"every": self.validate_every, "patience": self.patience}
        return {**super().resolve(), **chosen}

    # Going on

    @cached_property
    def parent(self) -> Artefact | None:
        """The finished training that this one goes on from."""
        parent = find_parent(self, self.continue_from, TrainingOptions) if self.continue_from else None
        if parent and (steps := parent.manifest["figures"]["steps"]) >= self.iterations:
            raise PipelineError(
                f"{OPTION}: {parent!r} has made {steps} steps, and this training shall make {self.iterations} in all; give more"
            )
        return parent

    def describe_inputs(self) -> dict[str, dict]:
        return {**super().describe_inputs(), **({PARENT: describe(self.parent)} if self.parent else {})}

    def start(self, classes: Sequence[str]):
        """The `Start` of the training; None at the very beginning. Raises PipelineError where the parent does not fit."""
        from pipeline.networks.continuing import Start

        if not (parent := self.parent):
            if self.continue_from:
                logger.warning("%s: starts anew: %s names no training of this stage", self.label, OPTION)
            return None
        theirs = parent.inputs()
        if (train := theirs.get("train")) and train.exists() and (their_classes := load_split(train).classes) != tuple(classes):
            names, own_names = ", ".join(their_classes), ", ".join(classes)
            raise PipelineError(f"{OPTION}: {parent!r} is of other classes: {names}; here: {own_names}")
        maps = self.requires().get("maps")
        if maps and not ("maps" in theirs and theirs["maps"].key == maps.key):
            raise PipelineError(f"{OPTION}: {parent!r} was trained on maps of another trunk, so that its layers do not fit")
        state = parent.path(STATE) if STATE in parent.manifest["files"] and self._is_longer(parent) else None
        figures = parent.manifest["figures"]
        steps = figures["steps"] if state else figures.get("best_step", figures["steps"])
        what = "its weights and velocities" if state else "its weights alone"
        logger.info("%s: goes on from %r after %d steps, with %s", self.label, parent, steps, what)
        networks = {part: read_tensors(parent, name) for part, name in self.trained.items()}
        return Start(steps, networks, repr(parent), state)

    def _is_longer(self, parent: Artefact) -> bool:
        """Whether this training differs from `parent` in its schedule alone."""
        theirs = {name: source["key"] for name, source in parent.manifest["inputs"].items() if name != PARENT}
        ours = {name: task.key for name, task in self.requires().items()}

        def values(inputs: dict) -> str:
            settings = {name: value for name, value in inputs["parameters"].items() if not name.endswith("iterations")}
            return canonical_json([settings, {k: v for k, v in inputs["outside"].items() if k not in OF_SCHEDULE}])

        return theirs == ours and values(parent.manifest) == values(self.key_inputs())

    # Validation

    def validation_tasks(self) -> dict[str, CachedTask]:
        """The required tasks of the validation."""
        if not self.is_validated:
            return {}
        if self.validate == self.train_split:
            raise PipelineError(f"--validate {self.validate}: is the split that is trained on; give another")
        return {"validation": self.clone(IndexDataset, split=self.validate)}

    def validation(self, detector_of: Callable[[Any], Callable]):
        """The `Validation` by VOC's average precision; None without one.

        `detector_of(network)` gives a function from pixels, and proposals if there are any, to candidates.
        """
        if not self.is_validated:
            return None
        from pipeline.evaluation.validation import mean_ap
        from pipeline.images.reading import ImageCache
        from pipeline.networks.validation import Validation
        from pipeline.prefetch import prefetch
        from tasks.proposals.regions import load_proposals

        inputs = self.inputs()
        split = load_split(inputs["validation"])
        if not any(image.counted.any() for image in split.images):
            raise PipelineError(f"--validate {self.validate}: the split has no object to find")
        read = ImageCache(self.requires()["validation"].root, 0).read  # the training's images fill the memory that there is
        proposals = inputs.get("validation proposals")
        regions = [load_proposals(proposals)] if proposals else []

        def score(network) -> float:
            return mean_ap(detector_of(network), zip(prefetch(map(read, split.images)), *regions, strict=True), split)

        def tell(done: int, value: float, is_best: bool) -> None:
            best = "the best so far" if is_best else f"the best was {validation.best[1]:.4f} after {validation.best[0]}"
            logger.info("%s: after %d steps the mAP on %s is %.4f, %s", self.label, done, self.validate, value, best)

        validation = Validation(self.validate_every, self.patience, score, tell)
        return validation

    # The run

    @contextlib.contextmanager
    def training_run(
        self, workshop: Workshop, schedule, seed: int, device, *, classes: Sequence[str], validation=None
    ) -> Iterator:
        """The `TrainingRun` of this training."""
        start, keep = self.start(classes), workshop.files / STATE if self.keep_state else None
        with scalar_log(self.tensorboard if self.ranks.is_first else "", self.label) as log:
            yield self.run_of(workshop, schedule, seed, device, log=log, start=start, keep=keep, validation=validation)

    def write_curve(self, workshop: Workshop, run, losses, names: Sequence[str]) -> dict:
        """Writes the curves of the training; returns figures."""
        from pipeline.networks.training import loss_table

        first = run.start.steps if run.start else 0
        workshop.write(CURVE, loss_table(losses, run.schedule, names, first))
        figures = {"steps": len(losses), "loss": recent_loss(losses[first:])}
        if first:
            figures["continued_steps"] = first
        if validation := run.validation:
            workshop.write(SCORES, validation.table())
            step, score = validation.best
            figures |= {"best_step": step, "validation_map": score}
        return figures


def refuse_tested(task) -> None:
    """Raises PipelineError when the detection stage `task` shall test on a split that its networks were trained or chosen on."""
    chosen_by = getattr(task, "validate", "")
    if chosen_by and chosen_by == task.test_split:
        raise PipelineError(
            f"--validate {chosen_by}: is the split that is tested; networks that it chose do better on it than on new images. "
            "Give another split"
        )
    if not getattr(task, "continue_from", ()):
        return
    last = task.training_tasks().values()
    trainings = [*last, *(source for training in last for source in training.requires().values())]
    for parent in (training.parent for training in trainings if isinstance(training, TrainingOptions) and training.parent):
        for earlier in with_parents(parent):
            settings = earlier.manifest["settings"]
            if task.test_split in (settings.get("train_split"), settings.get("validate")):
                raise PipelineError(
                    f"{OPTION}: {earlier!r} was trained or validated on {task.test_split}, the split that is tested; give another"
                )
