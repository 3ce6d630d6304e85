"""What the report says of how its results were made: trainings, settings, versions, times, the graph of the stages."""

import csv
import platform
from pathlib import Path

from tasks.engine.artefacts import Artefact
from tasks.engine.lineage import is_new, stage_rows, with_shards
from tasks.engine.package_versions import package_versions
from tasks.engine.task import all_stages
from tasks.networks.base import CURVE
from tasks.report.setting_sources import source_of

# Settings that tell the artefacts of one stage apart within a run.
DETAILS = {"split": "", "rpn_step": "step ", "fast_step": "step ", "region_features": "", "chain": "", "source": ""}
OF_ONE_ARTEFACT = (*DETAILS, "shard", "map_scales", "map_longest_side", "map_mirrored")
PATHS = ("dataset", "weights")


def training(lineage: list[Artefact]) -> list[tuple[str, str]]:
    """The losses of every training."""
    from pipeline.report.plots import curves, smoothed

    found, details = [], details_of(lineage)
    for artefact in lineage:
        if CURVE not in artefact.manifest["files"]:
            continue
        with open(artefact.path(CURVE), newline="") as file:
            header, *rows = csv.reader(file)
        step, _, *losses = zip(*rows)
        lines = {name.replace("_", " "): ([int(one) for one in step], smoothed(loss)) for name, loss in zip(header[2:], losses)}
        title = " ".join([artefact.stage, details[artefact.key]]).strip()
        found.append((title, curves(lines, title, "step", "loss", legend=len(lines) > 1)))
    return found


def details_of(lineage: list[Artefact]) -> dict[str, str]:
    """What tells each artefact from the others of its stage."""
    details = {}
    for artefact in lineage:
        settings = [other.manifest["settings"] for other in lineage if other.stage == artefact.stage]
        differ = [name for name in DETAILS if len({one.get(name) for one in settings}) > 1]
        details[artefact.key] = ", ".join(DETAILS[name] + artefact.manifest["settings"][name] for name in differ)
    return details


def run(report, lineage: list[Artefact]) -> dict:
    """How the results were made: settings, versions, times, and the graph of the stages."""
    settings = settings_of(lineage)
    return {
        "settings": settings, "changed": [one for one in settings if one["value"] != one["default"]],
        "versions": {"python": platform.python_version(), **package_versions(report.packages)}, "device": report.device,
        "threads": report.num_threads, "seed": report.seed, "stages": stage_rows(lineage), "graph": graph(lineage),
    }


def settings_of(lineage: list[Artefact]) -> list[dict]:
    """Each setting of the stages behind the results, as their manifests have it."""
    known = {stage.stage: stage for stage in all_stages()}
    found: dict[str, dict] = {}
    for artefact in lineage:
        stage, values = known[artefact.stage], artefact.manifest["settings"]
        for name in stage.own_parameters:
            if name in OF_ONE_ARTEFACT or name in found or name not in values:
                continue
            parameter = getattr(stage, name)
            found[name] = {
                "option": parameter.option, "default": parameter.default_text, "about": parameter.description,
                "source": source_of(name),
                "value": Path(values[name]).name if name in PATHS else values[name],
            }
    return sorted(found.values(), key=lambda one: one["option"])


def graph(lineage: list[Artefact]) -> dict:
    """The stages, a node each, and the ways between them."""
    from pipeline.report.graph import draw

    shards = {made["key"] for artefact in lineage for name, made in artefact.manifest["inputs"].items()
              if name.startswith("shard ")}
    stages = [artefact for artefact in lineage if artefact.key not in shards]
    drawing = draw({one.key: [made["key"] for made in one.manifest["inputs"].values()] for one in stages})
    details, nodes = details_of(stages), []
    for one in stages:
        made = [part.manifest for part in with_shards(one)]
        nodes.append({
            "place": drawing.boxes[one.key], "stage": one.stage, "detail": details[one.key],
            "seconds": sum(manifest["seconds"] for manifest in made), "new": any(map(is_new, made)),
        })
    return {"nodes": nodes, "drawing": drawing}
