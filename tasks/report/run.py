"""The report's sections about how the results were made: trainings, settings, versions, times, the graph of the stages."""

import csv
import platform
from pathlib import Path

from tasks.engine.artefacts import Artefact
from tasks.engine.lineage import is_new, stage_rows, with_shards
from tasks.engine.package_versions import package_versions
from tasks.engine.task import all_stages
from tasks.networks.base import CURVE
from tasks.report.setting_sources import source_of

# Settings that distinguish the artefacts of one stage within a run, with the words put before their values.
DETAILS = {"split": "", "rpn_step": "step ", "fast_step": "step ", "region_features": "", "chain": "", "source": ""}
OF_ONE_ARTEFACT = (*DETAILS, "shard", "map_scales", "map_longest_side", "map_mirrored")
PATHS = ("dataset", "weights")


def training(lineage: list[Artefact]) -> list[tuple[str, str]]:
    """A plot of the losses for every training, with its title."""
    from pipeline.report.plots import curves, smoothed

    plots, details = [], details_of(lineage)
    for artefact in lineage:
        if CURVE not in artefact.manifest["files"]:
            continue
        with open(artefact.path(CURVE), newline="") as file:
            header, *rows = csv.reader(file)
        step, _, *losses = zip(*rows)
        lines = {name.replace("_", " "): ([int(text) for text in step], smoothed(loss)) for name, loss in zip(header[2:], losses)}
        title = " ".join([artefact.stage, details[artefact.key]]).strip()
        plots.append((title, curves(lines, title, "step", "loss", legend=len(lines) > 1)))
    return plots


def details_of(lineage: list[Artefact]) -> dict[str, str]:
    """For each artefact, by key, the settings that distinguish it from the others of its stage."""
    by_stage: dict[str, dict[str, dict]] = {}  # the settings in DETAILS of each artefact, by stage and key
    for artefact in lineage:
        settings = artefact.manifest["settings"]
        by_stage.setdefault(artefact.stage, {})[artefact.key] = {name: settings.get(name) for name in DETAILS}
    details = {}
    for artefacts in by_stage.values():
        differ = [name for name in DETAILS if len({settings[name] for settings in artefacts.values()}) > 1]
        details |= {key: ", ".join(f"{DETAILS[name]}{settings[name]}" for name in differ) for key, settings in artefacts.items()}
    return details


def run(report, lineage: list[Artefact]) -> dict:
    """How the results were made: settings, versions, times, and the graph of the stages."""
    settings = settings_of(lineage)
    return {
        "settings": settings, "changed": [setting for setting in settings if setting["value"] != setting["default"]],
        "versions": {"python": platform.python_version(), **package_versions(report.packages)}, "device": report.device,
        "threads": report.num_threads, "seed": report.seed, "graph": graph(lineage),
        "stages": stage_rows((artefact, artefact.manifest) for artefact in lineage),
    }


def settings_of(lineage: list[Artefact]) -> list[dict]:
    """The settings of the stages that made the results, with the values in their manifests.

    `lineage` has sources first. Where a stage asks for a source with another value, as SPP-net for its pyramid, the last counts.
    """
    stages = {stage.stage: stage for stage in all_stages()}
    settings: dict[str, dict] = {}
    for artefact in lineage:
        stage, values = stages[artefact.stage], artefact.manifest["settings"]
        for name in stage.own_parameters:
            if name in OF_ONE_ARTEFACT or name not in values:
                continue
            parameter = getattr(stage, name)
            settings[name] = {
                "option": parameter.option, "default": parameter.default_text, "about": parameter.description,
                "source": source_of(name),
                "value": Path(values[name]).name if name in PATHS else values[name],
            }
    return sorted(settings.values(), key=lambda setting: setting["option"])


def graph(lineage: list[Artefact]) -> dict:
    """The graph of the stages: one node per stage, and an edge from each input."""
    from pipeline.report.graph import draw

    shards = {source["key"] for artefact in lineage for name, source in artefact.manifest["inputs"].items()
              if name.startswith("shard ")}
    artefacts = [artefact for artefact in lineage if artefact.key not in shards]
    drawing = draw({artefact.key: [source["key"] for source in artefact.manifest["inputs"].values()] for artefact in artefacts})
    details, nodes = details_of(artefacts), []
    for artefact in artefacts:
        manifests = [part.manifest for part in with_shards(artefact)]
        nodes.append({
            "place": drawing.boxes[artefact.key], "stage": artefact.stage, "detail": details[artefact.key],
            "seconds": sum(manifest["seconds"] for manifest in manifests), "new": any(map(is_new, manifests)),
        })
    return {"nodes": nodes, "drawing": drawing}
