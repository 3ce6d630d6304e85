"""One table of all chains: average precision and times, next to the published figures that belong to the run."""

import difflib
from pathlib import Path

from pipeline.later_detectors.names import TORCHVISION, is_later
from pipeline.text import printable
from tasks.data.first import IndexesFirst
from tasks.data.index import IndexDataset
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.lineage import with_shards
from tasks.engine.printing import TABLE
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.chapters import CHAPTERS, CHOSEN_BY_CHAIN, EVALUATIONS, chapters_of, detecting
from tasks.evaluation.evaluate import CHAINS, DEFAULT_CHAINS, SHARED, Evaluate, OfOneChain, TimeDetection, shared_text
from tasks.evaluation.published import PUBLISHED_GAIN, SPP_NET, published_map, published_times
from tasks.evaluation.results import SUMMARY, show_results
from tasks.features.stores import POOL5
from tasks.networks.finetune_pyramid import layer_of
from tasks.networks.parents import with_parents
from tasks.proposals.regions import RegionProposals
from tasks.segmentation.of_run import SegmentersOfRun, indexes_of, splits_of
from tasks.sliding_window.costs import WindowCosts, cost_figures, costs_text

SCOPE = "Training here includes region proposals and, from scratch, the first weights; the published hours include neither."
PUBLISHED_FOR = "Published mAP: VGG-16 on the same data, with the papers' lengths of training (docs/reproduce.md)."

WINDOW_COSTS = "window costs"
SLIDING_WINDOW = "sliding-window"
PYRAMID_NOTE = "Here SPP-net's SVMs read the pyramid itself; those of the paper read fine-tuned fully connected layers."


class ChainNames(parameters.Names):
    """Names of chains. An unknown name is an error."""

    def normalize(self, value) -> tuple[str, ...]:
        names = super().normalize(value)
        known = (*CHAINS, *CHAPTERS)
        unknown = [name for name in names if not is_later(name) and name not in known]
        if unknown or not names:
            nearest = {match for name in unknown for match in difflib.get_close_matches(name, known, n=1)}
            advice = f" (did you mean {', '.join(sorted(nearest))}?)" if nearest else ""
            raise parameters.SettingError(
                f"{self.option}: found {','.join(names)!r}{advice}, expected one or more of {', '.join(known)}"
            )
        return names


def chains_setting():
    description = f"chains to run, from {','.join((*CHAINS, *CHAPTERS))}, or {TORCHVISION}: and the name of one of its models"
    return ChainNames(default=DEFAULT_CHAINS, config_path={"section": "run", "name": "chains"}, description=description)


@parameters.inherits(Evaluate, TimeDetection, WindowCosts, *EVALUATIONS, without=("chain", *CHOSEN_BY_CHAIN))
class Summarise(IndexesFirst):
    """The table of all chains: their figures, such as average precision, and the recorded times of the stages that made them."""

    version = 3
    computes = False
    chains = chains_setting()

    def splits(self) -> dict[str, IndexDataset]:
        return splits_of(self)

    def deps(self) -> list[CachedTask]:
        return indexes_of(self)

    def requires(self) -> dict[str, CachedTask]:
        tasks: dict[str, CachedTask] = {}
        if any(map(self._needs_proposals, self.chains)):
            tasks["proposals"] = self.clone(RegionProposals, split=self.test_split)
        for chain in self.chains:
            tasks |= {f"evaluate {chain}": self._evaluation(chain), f"time {chain}": self._timing(chain)}
            # Training stages are required one by one, because their recorded times are read.
            tasks |= {f"{chain} training {number}": task for number, task in enumerate(self._training_stages(chain))}
        if SLIDING_WINDOW in self.chains:
            tasks[WINDOW_COSTS] = self.clone(WindowCosts)
        return tasks | SegmentersOfRun(self).requires()

    def _of(self, chain: str, stage: type[OfOneChain]) -> OfOneChain:
        return self.clone(stage, chain=chain)

    def _evaluation(self, chain: str) -> CachedTask:
        return chapters_of(self).get(chain) or self._of(chain, Evaluate)

    def _timing(self, chain: str) -> CachedTask:
        chapter = chapters_of(self).get(chain)
        return chapter.timing() if chapter else self._of(chain, TimeDetection)

    def _needs_proposals(self, chain: str) -> bool:
        return chain not in CHAPTERS and self._of(chain, Evaluate).detection().needs_proposals

    def resolve(self) -> dict:
        # The layers that SPP-net's SVMs may read are those of the backbone.
        return {"dataset": self._dataset_name(), **({"layer": layer_of(self)} if SPP_NET in self.chains else {})}

    def build(self, workshop: Workshop) -> dict:
        chains = {chain: self._summarise(chain) for chain in self.chains}
        shared = shared_text(self.inputs()[f"evaluate {self.chains[0]}"])
        summary = {"dataset": self._dataset_name(), "chains": chains, **({SHARED: shared} if shared else {})}
        workshop.write(SUMMARY, canonical_json(summary) + "\n")
        workshop.write(TABLE, self._table(chains) + (f"\n{shared}\n" if shared else ""))
        return {f"map {chain}": chains[chain]["map"] for chain in detecting(self)}

    def show(self) -> None:
        show_results(self.artefact)

    def _dataset_name(self) -> str:
        return Path(self.dataset).resolve().name

    def _summarise(self, chain: str) -> dict:
        inputs = self.inputs()
        evaluation = inputs[f"evaluate {chain}"].json("evaluation.json")
        if chapter := chapters_of(self).get(chain):
            return {**chapter.summary(evaluation), **SegmentersOfRun(self).summary(chain), **self._seconds(chain)}
        proposal_seconds = 0.0
        if self._needs_proposals(chain):
            proposal_seconds = inputs["proposals"].manifest["figures"]["core_seconds_per_image"]
        layer = {"layer": layer_of(self)} if chain == SPP_NET else {}
        costs = cost_figures(inputs[WINDOW_COSTS]) if chain == SLIDING_WINDOW else {}
        intervals = evaluation["interval_07"] | costs.pop("interval_95", {})
        return {
            **layer, **costs, "map": evaluation["map_07"], "map_area": evaluation["map_area"],
            "coco_ap": evaluation["coco"]["metrics"]["ap"],
            "published_map": published_map(chain, self, self._dataset_name()),
            "ap": {name: values["ap_07"] for name, values in evaluation["classes"].items()},
            "interval_95": intervals, **({"mask_ap": evaluation["masks"]["metrics"]["ap"]} if "masks" in evaluation else {}),
            "proposal_seconds_per_image": proposal_seconds, **self._seconds(chain),
        }

    def _seconds(self, chain: str) -> dict:
        finished = [part for task in self._training_stages(chain) for part in with_parents(task.artefact)]
        training = [part for artefact in finished for part in with_shards(artefact)]
        return {
            "train_seconds": sum(artefact.manifest["seconds"] for artefact in training),
            "test_seconds_per_image": self.inputs()[f"time {chain}"].manifest["figures"]["test_seconds_per_image"],
        }

    def _training_stages(self, chain: str) -> list[CachedTask]:
        """The stages that training needs, each once, inputs first."""
        by_key: dict[str, CachedTask] = {}

        def visit(task: CachedTask) -> None:
            if task.key not in by_key:
                for source in task.requires().values():
                    visit(source)
                by_key[task.key] = task

        last = chapters_of(self).get(chain) or self._of(chain, Evaluate).detection()
        for task in last.training_tasks().values():
            visit(task)
        return list(by_key.values())

    def _table(self, chains: dict) -> str:
        parts = [f"{self._title(chain, values)}\n{self._own_table(chain)}" for chain, values in chains.items()]
        costs = [f"{costs_text(self.inputs()[WINDOW_COSTS])}\n"] if SLIDING_WINDOW in chains else []
        compared = {chain: chains[chain] for chain in detecting(self)}
        own = {chain: chains[chain] for chain in chapters_of(self)}
        tables = ([comparison_table(compared)] if compared else []) + ([times_table(own)] if own else [])
        return "\n".join([*parts, *costs, *SegmentersOfRun(self).tables(chains), *tables])

    def _title(self, chain: str, values: dict) -> str:
        unit = "" if chain in CHAPTERS else ": AP in percent"
        return printable(f"{chain} on {values.get('dataset', self._dataset_name())}, split {self.test_split}{unit}")

    def _own_table(self, chain: str) -> str:
        return self.inputs()[f"evaluate {chain}"].path(TABLE).read_text()


def comparison_table(chains: dict[str, dict]) -> str:
    """Times and mAP of the chains; then the speed of each as a multiple of R-CNN's, next to the published figures.

    A published mAP stands only beside a run that it belongs to.
    """
    from pipeline.tables import format_table

    rows = [[chain, *times(values), values["map"] and 100 * values["map"]] for chain, values in chains.items()]
    headers = ["chain", "training s", "detection s/image", "with proposals", "mAP"]
    published = [values["published_map"] for values in chains.values()]
    if any(published):
        headers, rows = [*headers, "published mAP"], [[*row, value] for row, value in zip(rows, published, strict=True)]
    if any("mask_ap" in values for values in chains.values()):  # COCO's, of boxes and of masks
        headers = [*headers, "box AP", "mask AP"]
        of_coco = [[value and 100 * value for value in (values["coco_ap"], values.get("mask_ap"))] for values in chains.values()]
        rows = [[*row, *values] for row, values in zip(rows, of_coco, strict=True)]
    text = format_table(headers, rows, decimals=2) + "\n" + (f"{PUBLISHED_FOR}\n" if any(published) else "")
    if "rcnn" not in chains or len(chains) == 1:
        return text
    rows = []
    for chain in chains:
        ratios = speed_ratios(chains, chain)
        rows.append([chain, *(f"{own:.1f} ({published:.1f})" if published else f"{own:.1f}" for own, published in ratios)])
    headers = ["times R-CNN's speed (published: VGG-16 on a GPU)", "training", "detection", "with proposals"]
    text += f"\n{format_table(headers, rows, decimals=1)}\n{scope_of(chains)}\n"
    if {"fast-rcnn", "faster-rcnn"} <= chains.keys():
        gain = times(chains["fast-rcnn"])[-1] / times(chains["faster-rcnn"])[-1]
        published_gain = f"(published, with VGG-16 on a GPU: {PUBLISHED_GAIN:.1f})"
        text += f"Proposals included, Faster R-CNN is {gain:.1f} times as fast as Fast R-CNN {published_gain}.\n"
    return text


def times_table(chains: dict[str, dict]) -> str:
    """The times of chains that have figures of their own."""
    from pipeline.tables import format_table

    rows = [[chain, values["train_seconds"], values["test_seconds_per_image"]] for chain, values in chains.items()]
    return format_table(["chain", "training s", "s/image"], rows, decimals=3) + "\n"


def speed_ratios(chains: dict[str, dict], chain: str) -> list[tuple[float, float | None]]:
    """The speed of `chain` as a multiple of R-CNN's, here and as published, for each of `times`; None if not published."""
    seconds, rcnn = times(chains[chain]), times(chains["rcnn"])
    published, published_rcnn = published_times(chain), published_times("rcnn")
    return [(base / own, published_base / published_own if published_base and published_own else None)
            for base, own, published_base, published_own in zip(rcnn, seconds, published_rcnn, published, strict=True)]


def times(values: dict) -> tuple[float, float, float]:
    """From one chain's summary: seconds of training, seconds per image without proposals, and with proposals."""
    test = values["test_seconds_per_image"]
    return values["train_seconds"], test, test + values["proposal_seconds_per_image"]


def scope_of(chains: dict[str, dict]) -> str:
    """What the comparison covers, for the reader."""
    return f"{SCOPE} {PYRAMID_NOTE}" if chains.get(SPP_NET, {}).get("layer") == POOL5 else SCOPE
