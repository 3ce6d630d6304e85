"""What `Summarise` and `FullPipeline` add for the segmenters of a run: their indexes, costs and paired comparisons."""

from collections.abc import Mapping

from tasks.data.index import IndexDataset
from tasks.data.index_masks import IndexMasks
from tasks.data.instances import drawn_indexes
from tasks.engine.task import CachedTask
from tasks.evaluation.evaluate import EVALUATION
from tasks.segmentation.base import CHAINS
from tasks.segmentation.compare import GAINS, CompareSegmenters
from tasks.segmentation.costs import SegmentationCosts, costs_text

COMPARISON, COSTS = "segmenters", "segmentation costs"


def splits_of(task: CachedTask) -> dict[str, IndexDataset]:
    """The index of each split of a run with `chains`: that of masks if all chains segment, so that no boxes are needed."""
    stage = IndexMasks if set(task.chains) <= set(CHAINS) else IndexDataset
    return {name: task.clone(stage, split=getattr(task, f"{name}_split")) for name in ("train", "test")}


def indexes_of(task: CachedTask) -> list[CachedTask]:
    """All indexes that a run with `chains` needs, so that a fault in any of them is told before hours of training."""
    indexes = list(splits_of(task).values())
    masks = [task.clone(IndexMasks, split=index.split) for index in indexes] if set(task.chains) & set(CHAINS) else []
    return list(dict.fromkeys([*indexes, *masks, *drawn_indexes(task, task.chains)]))


class SegmentersOfRun:
    """The segmenters among the chains of `task`, and the stages that compare them."""

    def __init__(self, task: CachedTask):
        self.task, self.chains = task, [chain for chain in task.chains if chain in CHAINS]

    def requires(self) -> dict[str, CachedTask]:
        if not self.chains:
            return {}
        return {COMPARISON: self.comparison(), COSTS: self.task.clone(SegmentationCosts)}

    def comparison(self) -> CompareSegmenters:
        return self.task.clone(CompareSegmenters, segmenters=tuple(self.chains))

    def gains(self) -> list[dict]:
        return self.task.inputs()[COMPARISON].json(GAINS)

    def summary(self, chain: str) -> dict:
        """What the summary of a segmenter says of its gains over those before it."""
        if chain not in self.chains:
            return {}
        gains = {gain["before"]: {name: gain[name] for name in ("gain", "interval_95", "share_above")}
                 for gain in self.gains() if gain["after"] == chain}
        return {"gain_over": gains} if gains else {}

    def tables(self, chains: Mapping[str, Mapping]) -> list[str]:
        """The table of the segmenters, with the times in `chains`, and that of their costs."""
        from pipeline.segmentation.evaluation import methods_table

        if not self.chains:
            return []
        evaluations = {chain: self.task.inputs()[f"evaluate {chain}"].json(EVALUATION) for chain in self.chains}
        seconds = {chain: (chains[chain]["train_seconds"], chains[chain]["test_seconds_per_image"]) for chain in self.chains}
        return [methods_table(evaluations, self.gains(), seconds), f"{costs_text(self.task.inputs()[COSTS])}\n"]
