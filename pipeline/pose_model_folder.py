"""A pose model's folder: `pose.json`, of which every value is checked before anything is built from it, and a network per stage.

The folder may have come from anybody. The networks' files lie beside `pose.json`, under fixed names; no link leads out.
"""

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import check_own_file, parse_json, read_regular
from pipeline.files.value_checks import NAME, OBJECT, PRECISION, SWITCH, Wrong, check, list_of, number, whole

SETTINGS = "pose.json"
ADVICE = "give a folder that ExportPoseModel made"
LONGEST_SIDE, MOST_JOINTS, MOST_CLASSES = 2000, 1000, 100_000
FRAMING = {"context": number(0.1, 100), "square": SWITCH, "sigma": number(0.05, 100)}


def network_name(stage: int) -> str:
    """The name of the file with the network of a stage, which counts from 1."""
    return f"stage-{stage}.safetensors"


def read_settings(folder: Path | str) -> dict:
    """What `pose.json` in `folder` says.

    `names` of the joints, `limbs` as pairs of their numbers, `classes` that have joints, `backbone`, `sides` of the windows of
    each stage, `framing` as `pipeline.pose.estimate.Framing`, `precision`. Raises PipelineError, naming the file and the value,
    unless each is of its type and within its range.
    """
    path = Path(folder) / SETTINGS
    settings = parse_json(path, read_regular(path, ADVICE), ADVICE)
    try:
        _check_settings(settings)
    except Wrong as error:
        raise PipelineError(f"{path}: not that of a pose model ({error}); {ADVICE}") from error
    return settings


def _check_settings(settings) -> None:
    check(settings, "it", OBJECT)
    check(settings.get("names"), "names", list_of(NAME, MOST_JOINTS))
    check(settings.get("classes"), "classes", list_of(NAME, MOST_CLASSES))
    for name in "names", "classes":
        if len(set(settings[name])) < len(settings[name]):
            raise Wrong(f"{name} has a name twice")
    check(settings.get("limbs"), "limbs", _pairs_of(len(settings["names"])))
    check(settings.get("backbone"), "backbone", NAME)
    check(settings.get("sides"), "sides", list_of(whole(1, LONGEST_SIDE)))
    check(settings.get("precision"), "precision", PRECISION)
    check(settings.get("framing"), "framing", OBJECT)
    if settings["framing"].keys() != FRAMING.keys():
        raise Wrong(f"framing has {', '.join(sorted(settings['framing']))}, expected {', '.join(sorted(FRAMING))}")
    for name, kind in FRAMING.items():
        check(settings["framing"][name], f"framing.{name}", kind)


def _pairs_of(count: int):
    joint = whole(0, count - 1)[1]
    return f"a list of pairs of numbers from 0 to {count - 1}", lambda value: isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(joint, pair)) for pair in value
    )


def network_paths(folder: Path | str, stages: int) -> list[Path]:
    """The networks' files. Raises PipelineError for a link out of the folder and for what is no regular file."""
    paths = [Path(folder) / network_name(stage) for stage in range(1, stages + 1)]
    for path in paths:
        check_own_file(path, Path(folder), "pose model")
    return paths
