"""A detector's folder: `detector.json`, of which every value is checked before anything is built from it, and the files it names.

The folder may have come from anybody. Its files are those beside `detector.json`, found by plain names; no link leads out of it.
"""

import math
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import check_own_file, parse_json, read_regular
from pipeline.files.value_checks import (
    LONGEST_LIST,
    LONGEST_SIDE,
    NAME,
    OBJECT,
    PRECISION,
    SIDE,
    SWITCH,
    Wrong,
    check,
    list_of,
    number,
    one_of,
    whole,
)
from pipeline.later_detectors.names import ARCHITECTURES, is_later
from pipeline.proposals import METHODS

SETTINGS = "detector.json"
ADVICE = "give a folder that ExportDetector made"
MOST = 10**9  # of what is counted
MOST_SIDE = 2000  # of the square that the localiser sees, in pixels
MOST_LOOKS = 10  # of the localiser at an image
# What each part is read from. The parts that a chain has, and those that it may have.
SUFFIXES = {"backbone": ".safetensors", "network": ".safetensors", "rpn": ".safetensors", "svms": ".npz", "regressors": ".npz"}
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rcnn": (("backbone", "svms"), ("regressors",)), "spp-net": (("backbone", "svms"), ("regressors",)),
    "fast-rcnn": (("network",), ()), "faster-rcnn": (("network", "rpn"), ()),
    "r-fcn": (("network", "rpn"), ()), "sliding-window": (("network",), ()), "localisation": (("network",), ()),
    **{chain: (("network",), ()) for chain in ARCHITECTURES},
}
# The chains that propose their own regions, or need none.
WITHOUT_PROPOSALS = ("faster-rcnn", "r-fcn", "sliding-window", "localisation", *ARCHITECTURES)


_COUNT, _COUNT_OR_ALL = whole(1, MOST), whole(0, MOST)
_LIMITS = {
    "backbone": NAME, "precision": PRECISION, "max_per_image": _COUNT_OR_ALL,
    "nms_threshold": number(0, 1), "max_detections": _COUNT_OR_ALL,
}
# What detectors have that were exported before there was such a setting.
_LATER = {"max_detections": 0}
_SIDES = {**_LIMITS, "shorter_side": SIDE, "longest_side": SIDE}
_SHAPES = list_of(number(1e-3, LONGEST_SIDE))
_PROPOSING = {
    **_SIDES, "anchor_scales": _SHAPES, "anchor_ratios": _SHAPES, "before_nms": _COUNT_OR_ALL, "after_nms": _COUNT,
}
_SETTINGS = {
    "rcnn": {**_LIMITS, "layer": NAME, "context_padding": whole(0, LONGEST_SIDE), "batch_size": _COUNT},
    "spp-net": {
        **_LIMITS, "scales": list_of(SIDE), "longest_side": SIDE, "levels": list_of(whole(1, LONGEST_LIST)), "layer": NAME,
    },
    "fast-rcnn": _SIDES,
    "faster-rcnn": _PROPOSING,
    "r-fcn": _PROPOSING,
    "sliding-window": {
        **_LIMITS, "window_scales": list_of(number(0.05, LONGEST_LIST)), "window_min_score": number(0, 1),
        "window_merge": one_of("greedy", "nms"), "window_merge_threshold": number(0, LONGEST_LIST),
    },
    "localisation": {
        **_LIMITS, "side": whole(1, MOST_SIDE), "box_head": one_of("agnostic", "specific"), "head_after": one_of("conv", "fc"),
        "mirror": SWITCH, "looks": whole(1, MOST_LOOKS),
    },
}
_SETTINGS_OF_LATER = {
    **_LIMITS, "trunk": NAME, "size": whole(0, LONGEST_SIDE), "channels": whole(1, LONGEST_SIDE), "regions": _COUNT,
    "min_score": number(0, 1),
}
_PROPOSALS = {"method": one_of(*METHODS), "max_boxes": _COUNT, "image_width": whole(0, LONGEST_SIDE), "seed": whole(0)}


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
    except Wrong as error:
        raise PipelineError(f"{path}: not a detector's file ({error}); {ADVICE}") from error
    except PipelineError as error:
        fault = str(error).removeprefix(f"{path}: cannot be read (").removeprefix(f"{path}: ").removesuffix(f"; {ADVICE}")
        raise PipelineError(f"{path}: not a detector's file ({fault.removesuffix(')')}); {ADVICE}") from error
    return settings


def _check_settings(settings) -> None:
    check(settings, "it", OBJECT)
    if not (isinstance(settings.get("chain"), str) and is_later(settings["chain"])):
        check(settings.get("chain"), "chain", one_of(*PARTS))
    check(settings.get("classes"), "classes", list_of(NAME, math.inf))
    if len(set(settings["classes"])) < len(settings["classes"]):
        raise Wrong("classes has a name twice")
    _check_category_ids(settings)
    _check_thresholds(settings)
    for name in "parts", "settings":
        check(settings.get(name), name, OBJECT)
    required, optional = _parts_of(settings["chain"])
    for part in (*required, *(part for part in optional if part in settings["parts"])):
        suffix = SUFFIXES[part]
        check(settings["parts"].get(part), f"parts.{part}", (f"the plain name of a {suffix} file", _names_a(suffix)))
    settings["settings"] = _LATER | settings["settings"]
    if settings["chain"] == "spp-net":
        settings["settings"].setdefault("layer", "pool5")  # what detectors had before there was a choice
    if settings["chain"] == "localisation":
        settings["settings"] = {"mirror": False, "looks": 1, **settings["settings"]}  # as before there were these settings
    for name, kind in _SETTINGS.get(settings["chain"], _SETTINGS_OF_LATER).items():
        check(settings["settings"].get(name), f"settings.{name}", kind)
    _check_views(settings["settings"].get("views"))
    proposals = settings.setdefault("proposals", None)
    if settings["chain"] in WITHOUT_PROPOSALS or is_later(settings["chain"]):
        check(proposals, "proposals", ("null: this chain makes its own", lambda value: value is None))
    else:
        expected = f"an object of {', '.join(_PROPOSALS)}"
        check(proposals, "proposals", (expected, lambda value: isinstance(value, dict) and value.keys() == _PROPOSALS.keys()))
        for name, kind in _PROPOSALS.items():
            check(proposals[name], f"proposals.{name}", kind)


def _check_views(views) -> None:
    """The views of each image, where they are not the one of `shorter_side`; see `pipeline.fast_rcnn.detect`."""
    if views is not None:
        check(views, "settings.views", ("null or an object", lambda value: isinstance(value, dict)))
        kinds = {"scales": list_of(SIDE), "longest": SIDE, "mirror": SWITCH}
        for name, kind in kinds.items():
            check(views.get(name), f"settings.views.{name}", kind)


def _parts_of(chain: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return PARTS.get(chain, (("network",), ()))  # torchvision's models have one part


def _check_category_ids(settings: dict) -> None:
    if (ids := settings.get("category_ids")) is not None:
        check(ids, "category_ids", ("null or a list", lambda value: isinstance(value, list)))
        for id in ids:
            check(id, "an id in category_ids", ("a whole number or a text", lambda value: type(value) in (int, str)))
        if len(set(ids)) != len(settings["classes"]):
            raise Wrong(f"category_ids has {len(set(ids))} different ids, for {len(settings['classes'])} classes")


def _check_thresholds(settings: dict) -> None:
    count = len(settings["classes"])
    if (thresholds := settings.get("thresholds")) is not None:
        check(thresholds, "thresholds", ("null or an object", lambda value: isinstance(value, dict)))
        check(thresholds.get("split"), "thresholds.split", NAME)
        also = "null, training or test", lambda value: value in (None, "training", "test")
        check(thresholds.get("also"), "thresholds.also", also)
        check(thresholds.get("scores"), "thresholds.scores", _for_classes(count, "a finite number", _is_finite))
    if (calibration := settings.get("calibration")) is not None:
        kind = "two finite numbers", lambda line: isinstance(line, list) and len(line) == 2 and all(map(_is_finite, line))
        check(calibration, "calibration", _for_classes(count, *kind))


def _for_classes(count: int, text: str, is_right: Callable) -> tuple[str, Callable]:
    return f"a list of {count}, each null or {text}", lambda value: (
        isinstance(value, list) and len(value) == count and all(item is None or is_right(item) for item in value)
    )


def _is_finite(value) -> bool:
    return type(value) in (int, float) and abs(value) < MOST


def _names_a(suffix: str) -> Callable:
    return lambda value: isinstance(value, str) and value.endswith(suffix) and not set("/\\\0") & set(value)


def part_paths(folder: Path | str, settings: dict) -> dict[str, Path]:
    """The path of each part that `settings`, from `read_settings`, name.

    Raises PipelineError, naming it, for a link out of `folder` and for what is not a regular file; not for a missing file.
    """
    required, optional = _parts_of(settings["chain"])
    paths = {part: Path(folder) / settings["parts"][part] for part in (*required, *optional) if part in settings["parts"]}
    for path in paths.values():
        check_own_file(path, Path(folder), "detector")
    return paths
