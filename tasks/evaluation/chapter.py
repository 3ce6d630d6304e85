"""ChainEvaluation: the last stage of a chain that is judged by figures of its own, not by the average precision of detections."""

import abc

from tasks.data.first import IndexesFirst
from tasks.engine.task import CachedTask


class ChainEvaluation(IndexesFirst):
    """The evaluation of one chain. It writes `evaluation.json` and `table.txt`, and says what other stages need to know.

    `Summarise` and `FullPipeline` know such a chain by this stage alone: the summary holds its figures, the printed results its
    table, and the report its section. `tasks/evaluation/chapters.py` lists these stages.
    """

    chain: str  # the name of the chain in `--chains`
    title: str  # in the report

    @classmethod
    def chains(cls) -> dict[str, dict]:
        """The chains that the stage evaluates, each with the settings that choose it."""
        return {cls.chain: {}}

    @abc.abstractmethod
    def training_tasks(self) -> dict[str, CachedTask]:
        """The last stages of the chain's training."""

    @abc.abstractmethod
    def timing(self) -> CachedTask:
        """The stage whose figure `test_seconds_per_image` is the time for an image."""

    @abc.abstractmethod
    def summary(self, evaluation: dict) -> dict:
        """The figures for `summary.json`, from what is in `evaluation.json`; `interval_95` holds the interval of each."""

    @abc.abstractmethod
    def section(self, album, number: int) -> dict:
        """The section of the report: `template`, a file in pipeline/report/templates, and the values that it names.

        `album` is that of the test images; the section shows `number` of them.
        """
