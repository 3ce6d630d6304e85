"""Finished trainings that a longer one goes on from: how a key names one, and what has to be the same."""

import re
from pathlib import Path

from pipeline.errors import PipelineError
from tasks.engine.artefacts import KEY_DIGITS, Artefact
from tasks.engine.manifest import read_manifest
from tasks.engine.task import CachedTask, all_stages

OPTION = "--continue-from"
PARENT = "continued"  # the name of the input
LEAST_DIGITS = 4
# Settings that say which of several trainings an artefact of a stage is.
OF_ONE_TRAINING = ("rpn_step", "fast_step", "architecture")
# Settings that the weights depend on by more than their shapes.
SAME = (
    "backbone", "anchor_scales", "anchor_ratios", "rfcn_k", "class_agnostic", "detector_trunk", "detector_size",
    "detector_channels",
)


def find_artefact(cache: Path, text: str) -> Artefact:
    """The artefact that `text`, a key's first digits or STAGE/KEY, names. Raises PipelineError unless there is just one."""
    stage, _, digits = text.rpartition("/")
    if not re.fullmatch(f"[0-9a-f]{{{LEAST_DIGITS},64}}", digits) or not re.fullmatch(r"\w*", stage):
        raise PipelineError(f"{OPTION} {text}: expected a key or STAGE/KEY, such as TrainFastRCNN/0123456789ab")
    artefacts = []
    for folder in sorted(cache.glob(f"{stage or '[!.]*'}/{digits[:KEY_DIGITS]}*")):
        manifest = read_manifest(folder) if folder.is_dir() and not folder.parent.is_symlink() else None
        if manifest and manifest["key"].startswith(digits):
            artefacts.append(Artefact(cache, folder.parent.name, manifest["key"]))
    if not artefacts:
        raise PipelineError(f"{OPTION} {text}: no artefact in {cache} has this key; `rcnn-cache` lists them")
    if len(artefacts) > 1:
        raise PipelineError(f"{OPTION} {text}: {', '.join(map(repr, artefacts))} begin so; give more digits")
    return artefacts[0]


def find_parent(task: CachedTask, texts: tuple[str, ...], kind: type) -> Artefact | None:
    """The finished training among `texts` that `task` goes on from; None if all are of other stages.

    `kind` is the class of all stages that can go on. Raises PipelineError for an artefact of another stage, and for one of
    another network.
    """
    stages = {stage.stage for stage in all_stages(kind)}
    own = []
    for text in texts:
        artefact = find_artefact(Path(task.cache_dir), text)
        if artefact.stage not in stages:
            raise PipelineError(f"{OPTION} {text}: {artefact!r} cannot be continued, only {', '.join(sorted(stages))} can")
        if artefact.stage == task.stage and not _differences(task, artefact, OF_ONE_TRAINING):
            own.append((text, artefact))
    if len(own) > 1:
        raise PipelineError(f"{OPTION}: {' and '.join(repr(training) for _, training in own)} are of one stage; give one of them")
    if not own:
        return None
    (text, parent), = own
    if different := _differences(task, parent, SAME):
        name, theirs, ours = different[0]
        setting = f"--{name.replace('_', '-')}"
        raise PipelineError(f"{OPTION} {text}: {parent!r} has {setting} {theirs or '(empty)'}, this training {ours or '(empty)'}")
    return parent


def _differences(task: CachedTask, artefact: Artefact, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Those settings of `names` in which `artefact` differs from `task`: name, its value, the task's."""
    settings, ours = artefact.manifest["settings"], task.to_str_params()
    defaults = {name: parameter.default_text for name, parameter in type(task).get_params() if name in names}
    pairs = ((name, settings.get(name, defaults[name]), ours[name]) for name in names if name in ours)
    return [pair for pair in pairs if pair[1] != pair[2]]


def with_parents(artefact: Artefact) -> list[Artefact]:
    """`artefact`, and the finished trainings that it went on from, as far as the cache has them."""
    chain = [artefact]
    while (parent := chain[-1].inputs().get(PARENT)) and parent.exists():
        chain.append(parent)
    return chain
