"""The chains that bring an evaluation of their own."""

from tasks.engine.task import CachedTask
from tasks.evaluation.chapter import ChainEvaluation
from tasks.localisation.evaluate import EvaluateLocalisation
from tasks.pose.evaluate import EvaluatePose
from tasks.segmentation.evaluate import EvaluateSegmentation

EVALUATIONS: tuple[type[ChainEvaluation], ...] = (EvaluateLocalisation, EvaluatePose, EvaluateSegmentation)
# The stage of each chain, and the settings that choose the chain where a stage evaluates several.
CHAPTERS = {chain: (stage, settings) for stage in EVALUATIONS for chain, settings in stage.chains().items()}
CHOSEN_BY_CHAIN = tuple({name for _, settings in CHAPTERS.values() for name in settings})


def chapters_of(task: CachedTask) -> dict[str, ChainEvaluation]:
    """The evaluations of those chains of `task` that have their own, by chain."""
    return {chain: chapter_of(task, chain) for chain in task.chains if chain in CHAPTERS}


def chapter_of(task: CachedTask, chain: str) -> ChainEvaluation:
    """The evaluation of `chain`, with the settings of `task`."""
    stage, settings = CHAPTERS[chain]
    return task.clone(stage, **settings)


def detecting(task: CachedTask) -> list[str]:
    """The chains of `task` that make detections."""
    return [chain for chain in task.chains if chain not in CHAPTERS]
