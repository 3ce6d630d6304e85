"""The chains that bring an evaluation of their own."""

from tasks.engine.task import CachedTask
from tasks.evaluation.chapter import ChainEvaluation
from tasks.localisation.evaluate import EvaluateLocalisation
from tasks.pose.evaluate import EvaluatePose

EVALUATIONS: tuple[type[ChainEvaluation], ...] = (EvaluateLocalisation, EvaluatePose)
CHAPTERS = {stage.chain: stage for stage in EVALUATIONS}


def chapters_of(task: CachedTask) -> dict[str, ChainEvaluation]:
    """The evaluations of those chains of `task` that have their own, by chain."""
    return {chain: task.clone(CHAPTERS[chain]) for chain in task.chains if chain in CHAPTERS}


def detecting(task: CachedTask) -> list[str]:
    """The chains of `task` that make detections."""
    return [chain for chain in task.chains if chain not in CHAPTERS]
