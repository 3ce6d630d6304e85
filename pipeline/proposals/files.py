"""Region proposals in files: MATLAB's, as the releases' lists of selective search, and ours.

    .mat    cell arrays `images` (M ids) and `boxes` (M arrays [n x 4] of y1, x1, y2, x2 in pixels, 1-based, inclusive), as
            selective_search_data of rbgirshick/rcnn and rbgirshick/fast-rcnn (read in its lib/datasets/pascal_voc.py)
    .npz    `image_ids` [M], `boxes` [N x 4] as inside the project, `offsets` [M + 1]: image i has the rows from offsets[i] on

Shape shorthand: M images, N boxes, n boxes of one image.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.boxes import from_inclusive, to_inclusive
from pipeline.datasets.faults import Faults
from pipeline.datasets.records import ImageRecord
from pipeline.errors import DatasetError, PipelineError
from pipeline.files.npz import load_arrays
from pipeline.files.reading import open_regular
from pipeline.files.writing import write_arrays, write_file
from pipeline.proposals.matlab import NewerFormat, read_cells
from pipeline.text import flat

BoxesByFile = Mapping[Path, Mapping[str, np.ndarray]]  # the boxes of each image, by its id, in each file

MATLAB_COLUMNS = [1, 0, 3, 2]  # MATLAB's columns in our order
# savemat writes the time into its header; ours is fixed, so that equal proposals give equal bytes.
MATLAB_HEADER = b"MATLAB 5.0 MAT-file".ljust(116)


def read_proposals(path: Path) -> dict[str, np.ndarray]:
    """The boxes of each image in a .mat or .npz file, float32 [n x 4] as inside the project, in the file's order, by image id.

    Runs no code that the file may hold. Raises PipelineError for a file of another kind and for a repeated id;
    `boxes_of`, which knows the images, checks the boxes.
    """
    try:
        ids, boxes = _read_mat(path) if path.suffix == ".mat" else _read_npz(path)
        boxes_by_id = {id: rows.astype(np.float32, order="C") for id, rows in zip(ids, boxes, strict=True)}
    except NewerFormat as error:
        raise PipelineError(f"{path}: a file of MATLAB 7.3; save it there once more with save(..., '-v7')") from error
    except Exception as error:  # NumPy raises all kinds for a damaged file
        expected = "cell arrays `images` and `boxes`" if path.suffix == ".mat" else "arrays `image_ids`, `boxes` and `offsets`"
        raise PipelineError(f"{path}: not readable as {expected} of proposals ({type(error).__name__}: {flat(error)})") from error
    if len(boxes_by_id) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise PipelineError(f"{path}: image '{twice}' is there twice; leave one of them out")
    return boxes_by_id


def _read_mat(path: Path) -> tuple[list[str], list[np.ndarray]]:
    with open_regular(path) as file:
        cells = read_cells(file.read(), ("images", "boxes"))
    ids = [cell if isinstance(cell, str) else str(cell.item()) for cell in cells["images"]]
    if "" in ids:
        raise ValueError("an empty text in `images`")
    return ids, [from_inclusive(_rows_of_four(cell)[:, MATLAB_COLUMNS], first=1) for cell in cells["boxes"]]


def _read_npz(path: Path) -> tuple[list[str], list[np.ndarray]]:
    ids, boxes, offsets = load_arrays(path, ("image_ids", "boxes", "offsets")).values()
    if (offsets.size and offsets.dtype.kind not in "iu") or offsets.ndim != 1 or ids.dtype.kind not in "US" or ids.ndim != 1:
        raise ValueError(f"`offsets` of {offsets.dtype} {list(offsets.shape)}, `image_ids` of {ids.dtype} {list(ids.shape)}")
    offsets = offsets.astype(np.int64)  # differences of unsigned numbers are never below 0
    if [*offsets[:1], *offsets[-1:]] != [0, len(boxes)] or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets do not lead from 0 to {len(boxes)}")
    return ids.astype(str).tolist(), np.split(_rows_of_four(boxes), offsets[1:-1])


def _rows_of_four(boxes: np.ndarray) -> np.ndarray:
    if isinstance(boxes, str) or boxes.dtype.kind not in "biuf":
        raise ValueError("boxes that are no numbers")
    if boxes.size and boxes.shape[1:] != (4,):
        raise ValueError(f"boxes of shape {boxes.shape}, expected n x 4")
    return boxes.reshape(-1, 4).astype(np.float64)


def boxes_of(image: ImageRecord, files: BoxesByFile) -> np.ndarray:
    """The boxes of one image in the one of `files` (what `read_proposals` gives for each path) that has it.

    Raises PipelineError, naming file and image, when none or several of them have it, when it has no box, and for a box that is
    empty, not a number or not wholly inside the image.
    """
    if fault := _fault(image, files):
        _, message, advice = fault
        raise PipelineError(f"{message}; {advice}")
    return next(boxes[image.id] for boxes in files.values() if image.id in boxes)


def check_boxes(images: Iterable[ImageRecord], files: BoxesByFile) -> None:
    """Raises DatasetError with all that `boxes_of` would refuse of these images, one line for each kind."""
    faults = Faults()
    for image in images:
        if fault := _fault(image, files):
            faults.error(*fault)
    if remarks := faults.errors.all:
        summary = f"proposals in {', '.join(map(str, files))}"
        raise DatasetError(summary, list(map(str, remarks)), sum(remark.count for remark in remarks))


def _fault(image: ImageRecord, files: BoxesByFile) -> tuple[str, str, str] | None:
    """What is wrong with the boxes of an image: the kind of fault, the fault itself, and what to do."""
    paths = [path for path, boxes in files.items() if image.id in boxes]
    if not paths:
        message = f"proposals of image '{image.id}' are not in {', '.join(map(str, files))}"
        return "images without proposals", message, "give the files of this split; ids have to be those of the data set"
    if len(paths) > 1:
        message = f"proposals of image '{image.id}' are in {' and in '.join(map(str, paths))}"
        return "images in several files of proposals", message, "leave it out of one"
    path, boxes = paths[0], files[paths[0]][image.id]
    if not len(boxes):
        return "images with no box", f"{path}: image '{image.id}' has no box", "propose some, or take the image out of the list"
    x1, y1, x2, y2 = boxes.T
    right = (x1 >= 0) & (y1 >= 0) & (x2 <= image.width) & (y2 <= image.height) & (x1 < x2) & (y1 < y2)  # not so for NaN
    if right.all():
        return None
    number = np.argmin(right)
    corners = ", ".join(f"{value:g}" for value in boxes[number])
    message = (
        f"{path}: image '{image.id}', box {number + 1} of {len(boxes)}: ({corners}) as (x1, y1, x2, y2) from 0 on is empty, "
        f"no number or outside the image of {image.width} x {image.height} pixels"
    )
    return "images with a proposal that cannot be right", message, "propose in the images as they are in the data set"


def write_mat(path: Path, image_ids: Sequence[str], boxes: Iterable[np.ndarray]) -> None:
    """Writes the proposals of each image [n x 4] as the releases' .mat files have them."""
    from scipy.io import savemat

    corners = (to_inclusive(rows.astype(np.float64), first=1) for rows in boxes)
    cells: dict[str, list] = {"images": list(image_ids), "boxes": [rows[:, MATLAB_COLUMNS] for rows in corners]}
    columns = {name: np.empty((len(values), 1), object) for name, values in cells.items()}
    for name, values in cells.items():
        columns[name][:, 0] = values
    content = io.BytesIO()
    savemat(content, columns, do_compression=True)
    content.seek(0)
    content.write(MATLAB_HEADER)
    write_file(path, content.getbuffer())


def write_npz(path: Path, image_ids: Sequence[str], boxes: Sequence[np.ndarray]) -> None:
    """Writes the proposals of each image [n x 4] as an .npz file."""
    offsets = np.cumsum([0, *map(len, boxes)])
    write_arrays(path, {"boxes": np.concatenate(boxes), "offsets": offsets, "image_ids": np.array(image_ids)})
