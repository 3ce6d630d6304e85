"""A detector's folder: `detector.json`, of which every value is checked before anything is built from it, and the files it names.

The folder may have come from anybody. Its files are those beside `detector.json`, found by plain names; no link leads out of it.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import check_regular, parse_json, read_regular
from pipeline.later_detectors.names import ARCHITECTURES, is_later
from pipeline.proposals import METHODS
from pipeline.text import shown

SETTINGS = "detector.json"
ADVICE = "give a folder that ExportDetector made"
# Of an image that is resized, in pixels; of a list of sizes or shapes; a count. Beyond what any detector has, within what memory
# has.
LONGEST_SIDE, LONGEST_LIST, MOST = 20_000, 100, 10**9
# What each part is read from. The parts that a chain has, and those that it may have.
SUFFIXES = {"backbone": ".safetensors", "network": ".safetensors", "rpn": ".safetensors", "svms": ".npz", "regressors": ".npz"}
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rcnn": (("backbone", "svms"), ("regressors",)), "spp-net": (("backbone", "svms"), ("regressors",)),
    "fast-rcnn": (("network",), ()), "faster-rcnn": (("network", "rpn"), ()),
    "r-fcn": (("network", "rpn"), ()), "sliding-window": (("network",), ()),
    **{chain: (("network",), ()) for chain in ARCHITECTURES},
}
# The chains that propose their own regions, or need none.
WITHOUT_PROPOSALS = ("faster-rcnn", "r-fcn", "sliding-window", *ARCHITECTURES)


def _whole(minimum: int, maximum: float = math.inf) -> tuple[str, Callable]:
    text = f"a whole number from {minimum}" + (f" to {maximum}" if maximum < math.inf else "")
    return text, lambda value: type(value) is int and minimum <= value <= maximum


def _number(minimum: float, maximum: float) -> tuple[str, Callable]:
    return f"a number from {minimum} to {maximum}", lambda value: type(value) in (int, float) and minimum <= value <= maximum


def _one_of(*choices: str) -> tuple[str, Callable]:
    return f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices


def _list_of(kind: tuple[str, Callable], maximum: float = LONGEST_LIST) -> tuple[str, Callable]:
    text, is_right = kind
    return f"a list of 1 to {maximum}, each {text}", lambda value: (
        isinstance(value, list) and 1 <= len(value) <= maximum and all(map(is_right, value))
    )


_NAME = ("a name", lambda value: isinstance(value, str) and bool(value.strip()))
_SIDE = _whole(1, LONGEST_SIDE)
_COUNT, _COUNT_OR_ALL = _whole(1, MOST), _whole(0, MOST)
_LIMITS = {
    "backbone": _NAME, "precision": _one_of("float32", "bfloat16"), "max_per_image": _COUNT_OR_ALL,
    "nms_threshold": _number(0, 1), "max_detections": _COUNT_OR_ALL,
}
# What detectors have that were exported before there was such a setting.
_LATER = {"max_detections": 0}
_SIDES = {**_LIMITS, "shorter_side": _SIDE, "longest_side": _SIDE}
_SHAPES = _list_of(_number(1e-3, LONGEST_SIDE))
_PROPOSING = {
    **_SIDES, "anchor_scales": _SHAPES, "anchor_ratios": _SHAPES, "before_nms": _COUNT_OR_ALL, "after_nms": _COUNT,
}
_SETTINGS = {
    "rcnn": {**_LIMITS, "layer": _NAME, "context_padding": _whole(0, LONGEST_SIDE), "batch_size": _COUNT},
    "spp-net": {
        **_LIMITS, "scales": _list_of(_SIDE), "longest_side": _SIDE, "levels": _list_of(_whole(1, LONGEST_LIST)), "layer": _NAME,
    },
    "fast-rcnn": _SIDES,
    "faster-rcnn": _PROPOSING,
    "r-fcn": _PROPOSING,
    "sliding-window": {
        **_LIMITS, "window_scales": _list_of(_number(0.05, LONGEST_LIST)), "window_min_score": _number(0, 1),
        "window_merge": _one_of("greedy", "nms"), "window_merge_threshold": _number(0, LONGEST_LIST),
    },
}
_SETTINGS_OF_LATER = {
    **_LIMITS, "trunk": _NAME, "size": _whole(0, LONGEST_SIDE), "channels": _whole(1, LONGEST_SIDE), "regions": _COUNT,
    "min_score": _number(0, 1),
}
_PROPOSALS = {"method": _one_of(*METHODS), "max_boxes": _COUNT, "image_width": _whole(0, LONGEST_SIDE), "seed": _whole(0)}


def read_settings(folder: Path | str) -> dict:
    """What `detector.json` in `folder` says: `chain`, `classes`, `parts`, `settings`, and `proposals` or None.

    Where the training data had a COCO file, `category_ids` are the classes' ids in it. `thresholds` and `calibration` are as in
    `pipeline.detection.thresholds`, where the detector was exported with them.

    Raises PipelineError, naming the file and the value, unless each is of its type and within its range.
    """
    path = Path(folder) / SETTINGS
    try:
        settings = parse_json(path, read_regular(path, ADVICE), ADVICE)
        _check_settings(settings)
    except _Wrong as error:
        raise PipelineError(f"{path}: not that of a detector ({error}); {ADVICE}") from error
    except PipelineError as error:
        fault = str(error).removeprefix(f"{path}: cannot be read (").removeprefix(f"{path}: ").removesuffix(f"; {ADVICE}")
        raise PipelineError(f"{path}: not that of a detector ({fault.removesuffix(')')}); {ADVICE}") from error
    return settings


class _Wrong(ValueError):
    """What is wrong with a value."""


def _check_settings(settings) -> None:
    _check(settings, "it", ("an object", lambda value: isinstance(value, dict)))
    if not (isinstance(settings.get("chain"), str) and is_later(settings["chain"])):
        _check(settings.get("chain"), "chain", _one_of(*PARTS))
    _check(settings.get("classes"), "classes", _list_of(_NAME, math.inf))
    if len(set(settings["classes"])) < len(settings["classes"]):
        raise _Wrong("classes has a name twice")
    _check_category_ids(settings)
    _check_thresholds(settings)
    for name in "parts", "settings":
        _check(settings.get(name), name, ("an object", lambda value: isinstance(value, dict)))
    required, optional = _parts_of(settings["chain"])
    for part in (*required, *(part for part in optional if part in settings["parts"])):
        suffix = SUFFIXES[part]
        _check(settings["parts"].get(part), f"parts.{part}", (f"the plain name of a {suffix} file", _names_a(suffix)))
    settings["settings"] = _LATER | settings["settings"]
    if settings["chain"] == "spp-net":
        settings["settings"].setdefault("layer", "pool5")  # what detectors had before there was a choice
    for name, kind in _SETTINGS.get(settings["chain"], _SETTINGS_OF_LATER).items():
        _check(settings["settings"].get(name), f"settings.{name}", kind)
    _check_views(settings["settings"].get("views"))
    proposals = settings.setdefault("proposals", None)
    if settings["chain"] in WITHOUT_PROPOSALS or is_later(settings["chain"]):
        _check(proposals, "proposals", ("null: this chain makes its own", lambda value: value is None))
    else:
        expected = f"an object of {', '.join(_PROPOSALS)}"
        _check(proposals, "proposals", (expected, lambda value: isinstance(value, dict) and value.keys() == _PROPOSALS.keys()))
        for name, kind in _PROPOSALS.items():
            _check(proposals[name], f"proposals.{name}", kind)


def _check_views(views) -> None:
    """The views of each image, where they are not the one of `shorter_side`; see `pipeline.fast_rcnn.detect`."""
    if views is not None:
        _check(views, "settings.views", ("null or an object", lambda value: isinstance(value, dict)))
        kinds = {"scales": _list_of(_SIDE), "longest": _SIDE, "mirror": ("true or false", lambda value: type(value) is bool)}
        for name, kind in kinds.items():
            _check(views.get(name), f"settings.views.{name}", kind)


def _parts_of(chain: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return PARTS.get(chain, (("network",), ()))  # torchvision's models have one part


def _check_category_ids(settings: dict) -> None:
    if (ids := settings.get("category_ids")) is not None:
        _check(ids, "category_ids", ("null or a list", lambda value: isinstance(value, list)))
        for id in ids:
            _check(id, "an id in category_ids", ("a whole number or a text", lambda value: type(value) in (int, str)))
        if len(set(ids)) != len(settings["classes"]):
            raise _Wrong(f"category_ids has {len(set(ids))} different ids, for {len(settings['classes'])} classes")


def _check_thresholds(settings: dict) -> None:
    count = len(settings["classes"])
    if (thresholds := settings.get("thresholds")) is not None:
        _check(thresholds, "thresholds", ("null or an object", lambda value: isinstance(value, dict)))
        _check(thresholds.get("split"), "thresholds.split", _NAME)
        also = "null, training or test", lambda value: value in (None, "training", "test")
        _check(thresholds.get("also"), "thresholds.also", also)
        _check(thresholds.get("scores"), "thresholds.scores", _for_classes(count, "a finite number", _is_finite))
    if (calibration := settings.get("calibration")) is not None:
        kind = "two finite numbers", lambda line: isinstance(line, list) and len(line) == 2 and all(map(_is_finite, line))
        _check(calibration, "calibration", _for_classes(count, *kind))


def _for_classes(count: int, text: str, is_right: Callable) -> tuple[str, Callable]:
    return f"a list of {count}, each null or {text}", lambda value: (
        isinstance(value, list) and len(value) == count and all(item is None or is_right(item) for item in value)
    )


def _is_finite(value) -> bool:
    return type(value) in (int, float) and abs(value) < MOST


def _check(value, name: str, kind: tuple[str, Callable]) -> None:
    expected, is_right = kind
    if not is_right(value):
        raise _Wrong(f"{name} is {shown(value)}, expected {expected}")


def _names_a(suffix: str) -> Callable:
    return lambda value: isinstance(value, str) and value.endswith(suffix) and not set("/\\\0") & set(value)


def part_paths(folder: Path | str, settings: dict) -> dict[str, Path]:
    """The path of each part that `settings`, from `read_settings`, name.

    Raises PipelineError, naming it, for a link out of `folder` and for what is not a regular file; not for a missing file.
    """
    required, optional = _parts_of(settings["chain"])
    paths = {part: Path(folder) / settings["parts"][part] for part in (*required, *optional) if part in settings["parts"]}
    for path in paths.values():
        target = os.path.realpath(path)
        if os.path.dirname(target) != os.path.realpath(folder):
            raise PipelineError(f"{path}: a link to {target}, out of the detector's folder; put the file itself there")
        check_regular(path)
    return paths
