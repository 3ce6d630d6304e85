"""A segmenter's folder: `segmenter.json`, of which every value is checked before anything is built from it, and the network.

The folder may have come from anybody. The network's file lies beside `segmenter.json`, under a fixed name; no link leads out.
"""

from dataclasses import fields
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import check_own_file, parse_json, read_regular
from pipeline.text import shown

SETTINGS, NETWORK = "segmenter.json", "network.safetensors"
ADVICE = "give a folder that ExportSegmenter made"
PRECISIONS = ("float32", "bfloat16")
MOST_CLASSES = 255  # 255 itself is void


def read_settings(folder: Path | str) -> dict:
    """What `segmenter.json` in `folder` says: `names` of the label values, the network's `layout`, and `precision`.

    Raises PipelineError, naming the file and the value, unless each is of its type and within its range.
    """
    from pipeline.segmentation.network import Layout

    path = Path(folder) / SETTINGS
    settings = parse_json(path, read_regular(path, ADVICE), ADVICE)
    if not isinstance(settings, dict):
        raise _wrong(path, "it", settings, "an object")
    names, layout, precision = (settings.get(name) for name in ("names", "layout", "precision"))
    if not isinstance(names, list) or not _are_names(names):
        raise _wrong(path, "names", names, f"1 to {MOST_CLASSES} different names")
    if precision not in PRECISIONS:
        raise _wrong(path, "precision", precision, f"one of {', '.join(PRECISIONS)}")
    expected = {field.name for field in fields(Layout)}
    if not isinstance(layout, dict) or layout.keys() != expected:
        raise _wrong(path, "layout", layout, f"an object of {', '.join(sorted(expected))}")
    for name, value in layout.items():
        if type(value) not in (str, int, float, bool):
            raise _wrong(path, f"layout.{name}", value, "a text, a number or a switch")
    if layout["num_classes"] != len(names):
        raise _wrong(path, "layout.num_classes", layout["num_classes"], f"{len(names)}, as many as names")
    return settings


def network_path(folder: Path | str) -> Path:
    """The network's file in `folder`. Raises PipelineError for a link out of the folder and for what is no regular file."""
    path = Path(folder) / NETWORK
    check_own_file(path, Path(folder), "segmenter")
    return path


def _are_names(value: list) -> bool:
    if not 1 <= len(value) <= MOST_CLASSES or not all(isinstance(name, str) and name.strip() for name in value):
        return False
    return len(set(value)) == len(value)


def _wrong(path: Path, name: str, value, expected: str) -> PipelineError:
    return PipelineError(f"{path}: not that of a segmenter ({name} is {shown(value)}, expected {expected}); {ADVICE}")
