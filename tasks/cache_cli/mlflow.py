"""`mlflow`: writes the evaluations in the cache as runs into a folder that MLflow's tracking page shows.

The folder has the layout of MLflow's file store (`mlflow ui --backend-store-uri FOLDER`), and MLflow itself is not needed:

    EXPERIMENT/meta.yaml                one experiment, whose id is made from its name
    EXPERIMENT/RUN/meta.yaml            one run for each evaluation, whose id is the beginning of its key
    EXPERIMENT/RUN/params/NAME          each setting
    EXPERIMENT/RUN/metrics/NAME         lines `milliseconds value step`: figures, seconds, the curves of the trainings before it
    EXPERIMENT/RUN/tags/NAME            stage and key
    EXPERIMENT/RUN/artifacts/           copies of the evaluation's files

A run that is there already is written again, with the same id.
"""

import csv
import hashlib
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.files.writing import write_file
from tasks.cache_cli.text import say
from tasks.engine.catalogue import Catalogue, Entry, contents, is_plain

STAGES = re.compile("Evaluate[A-Za-z]*")
CURVE = "training.csv"
EXPERIMENT_DIGITS, RUN_DIGITS = 15, 32  # decimal and hexadecimal: ids as long as MLflow's own
LOCAL, FINISHED = 4, 3  # SourceType and RunStatus in MLflow's service.proto
LONGEST = 6000  # characters of a parameter: mlflow.utils.validation
UNNAMEABLE = re.compile(r"[^\w\-. :]")  # what names of parameters and metrics may not have
ADVICE = "see `rcnn-cache verify`"

Metrics = dict[str, list[tuple[int, float, int]]]  # by name: milliseconds, value, step


def export(catalogue: Catalogue, folder: Path, name: str) -> int:
    """Writes every evaluation into the file store `folder`, as runs of the experiment `name`."""
    entries = [entry for entry in catalogue.entries.values() if STAGES.fullmatch(entry.stage) and not entry.is_shard]
    if not entries:
        raise PipelineError(f"{catalogue.cache}: found no evaluation; `rcnn run` makes some")
    number = str(int(hashlib.sha256(name.encode()).hexdigest(), 16))[:EXPERIMENT_DIGITS]
    home = folder.absolute() / number
    home.mkdir(parents=True, exist_ok=True)
    first, last = min(map(_start, entries)), max(map(_end, entries))
    _write_yaml(home / "meta.yaml", {
        "artifact_location": home.as_uri(), "creation_time": first, "experiment_id": number, "last_update_time": last,
        "lifecycle_stage": "active", "name": name,
    })
    for entry in entries:
        _write_run(catalogue, entry, home)
    say(f"{len(entries)} runs are in {folder}; to see them: mlflow ui --backend-store-uri {folder}")
    return 0


def _write_run(catalogue: Catalogue, entry: Entry, home: Path) -> None:
    run_id, settings = entry.key[:RUN_DIGITS], entry.manifest["settings"]
    run_name = " ".join([settings.get("chain", entry.stage), entry.folder.name[:6]])
    folder = home / run_id
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("params", "metrics", "tags", "artifacts"):
        (folder / part).mkdir(parents=True)
    _write_yaml(folder / "meta.yaml", {
        "artifact_uri": (folder / "artifacts").as_uri(), "experiment_id": home.name, "lifecycle_stage": "active",
        "end_time": _end(entry), "entry_point_name": "", "run_id": run_id, "run_name": run_name, "run_uuid": run_id,
        "source_name": "", "source_type": LOCAL, "source_version": "", "start_time": _start(entry), "status": FINISHED,
        "tags": [], "user_id": "",
    })
    tags = {"mlflow.runName": run_name, "mlflow.user": "", "stage": entry.stage, "key": entry.key}
    for part, values in (("params", settings), ("tags", tags)):
        for name, value in values.items():
            write_file(folder / part / _file_name(name), str(value)[:LONGEST])
    for name, points in metrics_of(catalogue, entry).items():
        path = folder / "metrics" / name
        path.parent.mkdir(exist_ok=True)
        write_file(path, "".join(f"{time} {value!r} {step}\n" for time, value, step in points))
    for name, path in own_files(entry).items():
        target = folder / "artifacts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, read_regular(path, ADVICE))


def own_files(entry: Entry) -> dict[str, Path]:
    """The plain files that are both in the artefact's folder and in its manifest."""
    return {name: path for name, path in contents(entry.folder).items() if name in entry.manifest["files"] and is_plain(path)}


def metrics_of(catalogue: Catalogue, entry: Entry) -> Metrics:
    """The evaluation's figures, the seconds of all stages behind it, and the curves of its trainings."""
    behind = [catalogue.entries[name] for name in sorted(catalogue.closure([entry]))]
    figures = {name: value for name, value in entry.manifest["figures"].items() if _is_number(value)}
    figures["seconds"] = sum(artefact.manifest["seconds"] for artefact in behind)
    metrics: Metrics = {_file_name(name): [(_end(entry), float(value), 0)] for name, value in figures.items()}
    trainings = [training for training in behind if CURVE in own_files(training)]
    counts = Counter(training.stage for training in trainings)
    for training in trainings:
        title = training.stage if counts[training.stage] == 1 else f"{training.stage} {training.folder.name[:6]}"
        metrics |= {f"{title}/{name}": points for name, points in _curve(training)}
    return metrics


def _curve(entry: Entry) -> Iterator[tuple[str, list[tuple[int, float, int]]]]:
    """Each column of a training's curve."""
    text = read_regular(entry.folder / CURVE, ADVICE).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        for name in [name for name in rows[0] if name != "step"] if rows else ():
            yield _file_name(name), [(_end(entry), float(row[name]), int(row["step"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise PipelineError(f"{entry.folder / CURVE}: not a training's curve ({error}); {ADVICE}") from error


def _file_name(name: str) -> str:
    """The name of a file for a parameter or metric, as MLflow allows it."""
    return re.sub(r"^\.", "_", UNNAMEABLE.sub("_", name))


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _start(entry: Entry) -> int:
    return int(1000 * entry.started)


def _end(entry: Entry) -> int:
    return int(1000 * (entry.started + entry.manifest["seconds"]))


def _write_yaml(path: Path, values: dict) -> None:
    import yaml

    write_file(path, yaml.safe_dump(values))
