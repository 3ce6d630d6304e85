"""The lines of YOLO's label files: one object each, in fractions of the image's width and height.

    class cx cy w h                           a box: its centre and its sides
    class x1 y1 x2 y2 x3 y3 ...               an outline of three or more points, read as the box around it
    class cx cy w h px py [v] px py [v] ...   a box and its keypoints, where data.yaml has `kpt_shape`
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.datasets.drafts import Draft
from pipeline.datasets.edges import ADVICE, Edges, Extent
from pipeline.datasets.faults import ObjectFaults
from pipeline.datasets.keypoints import parse_keypoints
from pipeline.datasets.reading import Folder
from pipeline.datasets.yolo_document import Document
from pipeline.text import shown

BOX = 4
# What six decimals round, and sums of them: such a value is inside.
ROUNDING = 2e-6
FRACTIONS = "expected fractions of the image's width and height; or leave such boxes out with --on-bad-annotation drop"
VISIBLE = 2  # COCO's mark of a keypoint that can be seen


def read_label(where: str, line: str, *, document: Document, folder: Folder, image: Draft, edges: Edges) -> None:
    """Adds the object of one line to `image`, or what is wrong with it to the faults of `folder`."""
    number, *values = map(_number, line.split())
    whole = math.isfinite(number) and number == int(number)
    name = document.names[int(number)] if whole and 0 <= number < len(document.names) else None
    if name is not None and folder.classes.leave_out(name):
        return
    here = ObjectFaults(folder.faults, f"{where} ({name})" if name is not None else where)
    if not whole:
        here.error("lines without a class number", f"begins with {shown(line.split()[0])}", "expected the number of a class")
    elif name is None:
        text = f"has the class {int(number)}, and names has {len(document.names)} (0 to {len(document.names) - 1})"
        here.bad_object("objects of no known class", text, ADVICE)
    else:
        folder.classes.check(here, name, ADVICE)
    if not _has_right_length(values, document):
        here.error("lines of another length", f"has {len(values)} values after the class", _expected(document))
        return
    is_outline = document.pose is None and len(values) != BOX
    corners = _around(values) if is_outline else _to_corners(values[:BOX])
    fractions = values if document.pose is None else values[:BOX]
    if all(map(math.isfinite, fractions)) and not all(-ROUNDING <= value <= 1 + ROUNDING for value in fractions):
        here.bad_object("boxes with a value outside 0 to 1", f"has the values {_quoted(values)}", FRACTIONS)
        return
    box = _fit(here, corners, image, edges, lambda: f"has the values {_quoted(values)}")
    if box is None or here.any or name is None:
        return
    image.add(box, name, False, keypoints=_keypoints_of(here, values[BOX:], document, folder, image))
    if is_outline:
        text = f"{where} ({name}) has an outline of {len(values) // 2} points"
        folder.faults.note("objects with an outline", text, "read as the box around it")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _has_right_length(values: Sequence[float], document: Document) -> bool:
    if document.pose:
        return len(values) == BOX + len(document.pose.skeleton.names) * document.pose.values
    return len(values) == BOX or (len(values) >= 6 and len(values) % 2 == 0)


def _expected(document: Document) -> str:
    if document.pose:
        count = BOX + len(document.pose.skeleton.names) * document.pose.values
        return f"expected {count}: a box, and the keypoints that kpt_shape declares"
    return "expected 4 for a box, or two for each point of an outline"


def _to_corners(values: Sequence[float]) -> list[float]:
    cx, cy, width, height = values
    return [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]


def _around(values: Sequence[float]) -> list[float]:
    """The corners of the box around an outline; no numbers where one of its points is none."""
    if not all(map(math.isfinite, values)):
        return [math.nan] * BOX
    return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]


def _fit(here: ObjectFaults, corners: Sequence[float], image: Draft, edges: Edges, quote: Callable[[], str]) -> np.ndarray | None:
    sides = image.width, image.height, image.width, image.height
    extent = Extent(image.height, image.width, f"the image of {image.width} x {image.height}")
    return edges.fit(here, [corner * side for corner, side in zip(corners, sides)], extent, quote)


def _keypoints_of(
    here: ObjectFaults, values: Sequence[float], document: Document, folder: Folder, image: Draft
) -> np.ndarray | None:
    """The keypoints [k x 3] of an object; None where it has none."""
    if document.pose is None:
        return None
    rows = np.array(values, np.float64).reshape(-1, document.pose.values)
    if document.pose.values == 2:  # a keypoint at (0, 0) is not labelled
        rows = np.column_stack([rows, np.where(rows.any(axis=1), VISIBLE, 0)])
    rows[:, :2] *= image.width, image.height
    keypoints = parse_keypoints(rows.tolist(), len(rows))
    if keypoints is None:
        here.error("keypoints that are not numbers", f"has the keypoints {_quoted(values)}", "correct the line")
    return folder.labelled_inside(here.where, keypoints, image)


def _quoted(values: Sequence[float]) -> str:
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    return " ".join(f"{value:.6g}" for value in values[:8]) + more
