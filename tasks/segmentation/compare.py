"""Semantic segmentation: methods side by side, and whether the better one is better on the same images."""

import abc
from itertools import combinations

from pipeline.segmentation.layout import UNPOOL, WAYS, WITHOUT_POOLING
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.evaluate import EVALUATION
from tasks.segmentation.base import CHAINS, METHODS, UNPOOLING
from tasks.segmentation.evaluate import EvaluateSegmentation
from tasks.stage import Stage

GAINS = "gains.json"
SKIPS = ("fcn32s", "fcn16s", "fcn8s")  # each is compared with those before it


class MethodNames(parameters.Names):
    """Names of methods. An unknown name is an error."""

    def normalize(self, value) -> tuple[str, ...]:
        names = super().normalize(value)
        if not names or set(names) - set(METHODS) or len(set(names)) < len(names):
            expected = f"expected different ones of {', '.join(METHODS)}"
            raise parameters.SettingError(f"{self.option}: found {','.join(names)!r}, {expected}")
        return names


class Comparison(Stage):
    """The figures of several evaluations in one table, and the paired gains of some over others."""

    @abc.abstractmethod
    def evaluations(self) -> dict[str, EvaluateSegmentation]:
        """What is compared, by name."""

    @abc.abstractmethod
    def pairs(self) -> list[tuple[str, str]]:
        """Which names are compared in pairs: the second with the first."""

    def requires(self) -> dict[str, CachedTask]:
        return dict(self.evaluations())

    def build(self, workshop: Workshop) -> dict:
        from pipeline.segmentation.evaluation import methods_table, paired_gains

        tasks = self.evaluations()
        histograms = {name: tasks[name].histograms() for name in dict.fromkeys(name for pair in self.pairs() for name in pair)}
        gains = paired_gains(histograms, self.pairs(), self.bootstrap_resamples, self.seed)
        evaluations = {name: task.artefact.json(EVALUATION) for name, task in tasks.items()}
        workshop.write(GAINS, canonical_json(gains) + "\n")
        workshop.write(TABLE, methods_table(evaluations, gains, {}))
        return {f"mean_iu {name}": values["mean_iu"] for name, values in evaluations.items()}

    def show(self) -> None:
        tell(f"\n{self.artefact.path(TABLE).read_text()}")


@parameters.inherits(EvaluateSegmentation, without=("segment_method",))
class CompareSegmenters(Comparison):
    """The table of the methods, and what each finer skip gains over the coarser ones, by paired bootstrap."""

    bootstrap_resamples = EvaluateSegmentation.bootstrap_resamples
    seed = parameters.seed()
    segmenters = MethodNames(
        default=CHAINS, config_path={"section": "segmentation", "name": "compared"},
        description=f"methods in the table, from {','.join(METHODS)}",
    )

    def evaluations(self) -> dict[str, EvaluateSegmentation]:
        return {method: self.clone(EvaluateSegmentation, segment_method=method) for method in self.segmenters}

    def pairs(self) -> list[tuple[str, str]]:
        return list(combinations([method for method in SKIPS if method in self.segmenters], 2))


@parameters.inherits(EvaluateSegmentation, without=("segment_method", "upsampling"))
class CompareUpsampling(Comparison):
    """The table of the lecture's four ways to upsample inside a network, each on the same encoder."""

    bootstrap_resamples = EvaluateSegmentation.bootstrap_resamples
    seed = parameters.seed()

    def ways(self) -> tuple[str, ...]:
        """The ways that the backbone can have."""
        return tuple(way for way in WAYS if way != UNPOOL or self.backbone not in WITHOUT_POOLING)

    def evaluations(self) -> dict[str, EvaluateSegmentation]:
        return {way: self.clone(EvaluateSegmentation, segment_method=UNPOOLING, upsampling=way) for way in self.ways()}

    def pairs(self) -> list[tuple[str, str]]:
        first, *others = self.ways()
        return [(first, way) for way in others]

    def show(self) -> None:
        super().show()
        if self.backbone in WITHOUT_POOLING:
            tell(f"{UNPOOL} is not among them: {self.backbone} has no max pooling")
