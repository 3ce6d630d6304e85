"""FullPipeline: every chain on one data set, one table at the end."""

import os
from pathlib import Path

from tasks import parameters
from tasks.artefacts import SHARDS, Artefact, Workshop
from tasks.cache import RUN_STARTED, CachedTask
from tasks.digests import canonical_json
from tasks.evaluation import CHAINS, Evaluate, TimeRCNN
from tasks.proposals import RegionProposals
from tasks.rcnn import TrainBoxRegressors, TrainSVMs
from tasks.show import ShowResult

SUMMARY = "summary.json"
TABLE = "table.txt"
LATEST = "latest"


class ChainNames(parameters.Names):
    """Names of chains. An unknown one is an error."""

    def normalize(self, value) -> tuple[str, ...]:
        names = super().normalize(value)
        if not names or set(names) - set(CHAINS):
            raise parameters.SettingError(f"chains {','.join(names)!r}: choose one or more of {', '.join(CHAINS)}")
        return names


def chains_setting():
    return ChainNames(
        default=CHAINS, config_path={"section": "run", "name": "chains"}, description=f"chains to run, from {','.join(CHAINS)}"
    )


@parameters.inherits(Evaluate, TimeRCNN, without=("chain",))
class Summarise(CachedTask):
    """The table of all chains: average precision, and the recorded times of the stages behind it."""

    stage = "FullPipeline"
    numeric = False
    chains = chains_setting()

    def requires(self) -> dict[str, CachedTask]:
        tasks: dict[str, CachedTask] = {f"evaluate {chain}": self.clone(Evaluate, chain=chain) for chain in self.chains}
        # Training stages are required one by one, because their recorded times are read.
        tasks |= {f"training {number}": task for number, task in enumerate(self._training_stages())}
        return {**tasks, "time rcnn": self.clone(TimeRCNN), "proposals": self.clone(RegionProposals, split=self.test_split)}

    def outside_digests(self) -> dict:
        return {"dataset": self._dataset_name()}

    def build(self, workshop: Workshop) -> dict:
        chains = {chain: self._summarise(chain) for chain in self.chains}
        (workshop.files / SUMMARY).write_text(canonical_json({"dataset": self._dataset_name(), "chains": chains}) + "\n")
        (workshop.files / TABLE).write_text(self._table(chains))
        return {f"map {chain}": values["map"] for chain, values in chains.items()}

    def _dataset_name(self) -> str:
        return Path(self.dataset).resolve().name

    def _summarise(self, chain: str) -> dict:
        inputs = self.inputs()
        evaluation = inputs[f"evaluate {chain}"].json("evaluation.json")
        training = [part for task in self._training_stages() for part in with_shards(task.artefact)]
        return {
            "map": evaluation["map_07"], "map_area": evaluation["map_area"],
            "ap": {name: values["ap_07"] for name, values in evaluation["classes"].items()},
            "interval_95": evaluation["interval_07"],
            "train_seconds": sum(artefact.manifest["seconds"] for artefact in training),
            "proposal_seconds_per_image": inputs["proposals"].manifest["figures"]["core_seconds_per_image"],
            "test_seconds_per_image": inputs["time rcnn"].manifest["figures"]["test_seconds_per_image"],
        }

    def _training_stages(self) -> list[CachedTask]:
        """The stages that training needs, each once, sources first."""
        found: dict[str, CachedTask] = {}

        def visit(task: CachedTask) -> None:
            for source in task.requires().values():
                visit(source)
            found[task.key] = task

        for stage in (TrainSVMs, TrainBoxRegressors) if self.box_regression else (TrainSVMs,):
            visit(self.clone(stage))
        return list(found.values())

    def _table(self, chains: dict) -> str:
        from pipeline.evaluation.table import format_table

        shown = ("train_seconds", "proposal_seconds_per_image", "test_seconds_per_image")
        rows = [
            [chain, *(values[name] for name in shown), values["map"] and 100 * values["map"]]
            for chain, values in chains.items()
        ]
        headers = ["chain", "training s", "proposals s/image", "detection s/image", "mAP"]
        title = f"on {self._dataset_name()}, split {self.test_split}: AP in percent"
        parts = [f"{chain} {title}\n{self._ap_table(chain)}" for chain in chains]
        return "\n".join([*parts, format_table(headers, rows, decimals=2) + "\n"])

    def _ap_table(self, chain: str) -> str:
        return self.inputs()[f"evaluate {chain}"].path(TABLE).read_text()


@parameters.inherits(Summarise)
class FullPipeline(ShowResult):
    """Runs what is missing, then shows the table and points `latest` in the cache at it."""

    chains = chains_setting()

    def requires(self) -> Summarise:
        return self.clone(Summarise)

    def show(self, artefact: Artefact) -> None:
        point_latest(artefact)
        print(f"\n{artefact.path(TABLE).read_text()}\n{stage_table(with_inputs([artefact]))}\n")
        print(f"results: {artefact.folder}/ ({SUMMARY}, {TABLE}), also as {artefact.cache / LATEST}", flush=True)


def with_shards(artefact: Artefact) -> list[Artefact]:
    """`artefact` and, where it is a sharded stage's, its shards."""
    return [*(artefact.shards() if SHARDS in artefact.manifest["files"] else []), artefact]


def with_inputs(artefacts: list[Artefact]) -> list[Artefact]:
    """`artefacts` and all that is still there of what they were made from, shards included, each once, sources first."""
    found: dict[str, Artefact] = {}

    def visit(artefact: Artefact) -> None:
        if artefact.key not in found and artefact.exists():
            for made_from in artefact.manifest["inputs"].values():
                visit(Artefact(artefact.cache, made_from["stage"], made_from["key"]))
            found[artefact.key] = artefact

    for artefact in artefacts:
        visit(artefact)
    return list(found.values())


def stage_table(artefacts: list[Artefact]) -> str:
    """Time and size of each stage, and whether this command computed it."""
    from pipeline.evaluation.table import format_table

    stages: dict[str, list[dict]] = {}
    for artefact in artefacts:
        stages.setdefault(artefact.stage, []).append(artefact.manifest)
    rows = []
    for stage, manifests in stages.items():
        new = sum(manifest["started"] >= RUN_STARTED for manifest in manifests)
        size = sum(file["size"] for manifest in manifests for file in manifest["files"].values()) / 1e6
        state = "from the cache" if not new else "computed" if new == len(manifests) else f"{new} of {len(manifests)} computed"
        seconds = sum(manifest["seconds"] for manifest in manifests)
        memory = max(manifest["peak_memory"] for manifest in manifests) / 1e9
        rows.append([stage, len(manifests), seconds, memory, size, state])
    table = format_table(["stage", "artefacts", "seconds", "peak GB", "MB on disk", "this run"], rows, decimals=2)
    computed = any(manifest["started"] >= RUN_STARTED for manifests in stages.values() for manifest in manifests)
    return table if computed else f"{table}\n\nNothing to do: every stage was in the cache."


def point_latest(artefact: Artefact) -> None:
    """Makes the link `latest` in the cache point at `artefact`, in one step."""
    link, new = artefact.cache / LATEST, artefact.cache / f".latest.{os.getpid()}"
    new.unlink(missing_ok=True)
    new.symlink_to(artefact.folder.relative_to(artefact.cache))
    new.replace(link)
