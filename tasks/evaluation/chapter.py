"""ChainEvaluation: the last stage of a chain that is judged by figures of its own, not by the average precision of detections."""

import abc

from tasks.engine.task import CachedTask
from tasks.stage import Stage


class ChainEvaluation(Stage):
    """The evaluation of one chain. It writes `evaluation.json` and `table.txt`, and says what the other stages need to know.

    `FullPipeline` and `Summarise` know such a chain by this stage alone: the summary gets its figures, the printed table its table,
    and the report a section.
    """

    chain: str  # the name of the chain in `--chains`
    title: str  # in the report

    @abc.abstractmethod
    def training_tasks(self) -> dict[str, CachedTask]:
        """The last stages of the chain's training."""

    @abc.abstractmethod
    def timing(self) -> CachedTask:
        """The stage whose figure `test_seconds_per_image` is the time for an image."""

    @abc.abstractmethod
    def summary(self, evaluation: dict) -> dict:
        """The figures for `summary.json`, from what is in `evaluation.json`; with `interval_95` of each."""

    def section(self, report, album) -> dict:
        """The section of the report: `template`, the file in pipeline/report/templates, and the values that it names."""
        return {}
