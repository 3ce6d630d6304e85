"""What a detector returns for a split: selection as in the R-CNN release, storage, and VOC and COCO result files.

R-CNN scores every region for every class, then suppresses class by class (Girshick et al. 2014, section 2.2); which candidates
take part in that follows `rcnn_test.m` of rbgirshick/rcnn.

Shape shorthand: n regions of one image, C classes, k candidates of one image, K detections of a split.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.boxes import nms
from pipeline.errors import PipelineError
from pipeline.files.npz import load_arrays
from pipeline.files.reading import read_regular
from pipeline.files.writing import create, write_arrays, write_file
from pipeline.text import flat

MAX_PER_IMAGE = 100  # rcnn_test.m: max_per_image, candidates of one class in one image
PER_IMAGE = 40  # rcnn_test.m: ceil(100000 / 2500), mean number of candidates of one class in an image over the split
NMS_THRESHOLD = 0.3  # imdb_eval_voc.m of rbgirshick/rcnn
KINDS = {
    "image_ids": ("U", ()), "classes": ("U", ()), "image_index": ("i", ()), "class_index": ("i", ()), "score": ("f", ()),
    "boxes": ("f", (4,)), "counts": ("i", ()), "survives": ("b", ()),
}  # of each array in the files: the kind of its type, and its shape after the first side
# Nine digits tell every float32 from its neighbours.
VOC_LINE = "%s" + 5 * " %.9g" + "\n"
COCO_ENTRY = '\n{"image_id": %d, "category_id": %d, "bbox": [%.9g, %.9g, %.9g, %.9g], "score": %.9g}'


@dataclass(frozen=True, eq=False)
class Detections:
    """All detections in the images of a split, by image, then class, then falling score; equal scores stay as handed in.

    `image_index` int32 [K] and `class_index` int32 [K] index `image_ids` and `classes`; `score` float32 [K] is comparable
    within a class; `boxes` float32 [K x 4] in pixels, 0-based, exclusive x2 and y2. The constructor converts and sorts; it
    raises PipelineError for lengths that differ, an index out of range, a number that is not finite or a repeated name.
    """

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    image_index: np.ndarray
    class_index: np.ndarray
    score: np.ndarray
    boxes: np.ndarray

    def __post_init__(self):
        image_index, class_index = np.asarray(self.image_index, np.int32), np.asarray(self.class_index, np.int32)
        score, boxes = np.asarray(self.score, np.float32), np.asarray(self.boxes, np.float32).reshape(-1, 4)
        if not len(image_index) == len(class_index) == len(score) == len(boxes):
            lengths = f"{len(image_index)} images, {len(class_index)} classes, {len(score)} scores, {len(boxes)} boxes"
            raise PipelineError(f"detections: lengths differ ({lengths}); give one of each for every detection")
        for what, index, names in ("image", image_index, self.image_ids), ("class", class_index, self.classes):
            if len(set(names)) < len(names):
                raise PipelineError(f"detections: a name occurs twice among the {len(names)} {what} names; make them differ")
            if len(index) and not 0 <= index.min() <= index.max() < len(names):
                found = f"{what} index {index.min()} to {index.max()}"
                raise PipelineError(f"detections: {found}, but there are {len(names)} names; count from 0")
        broken = np.flatnonzero(~(np.isfinite(score) & np.isfinite(boxes).all(axis=1)))
        if len(broken):
            where = f"image {self.image_ids[image_index[broken[0]]]}, class {self.classes[class_index[broken[0]]]}"
            found = f"score {score[broken[0]]}, box {boxes[broken[0]].tolist()}"
            raise PipelineError(f"detections: {where}: {found}: not finite; check the detector's weights")
        order = np.lexsort((-score, class_index, image_index))
        values = {"image_ids": tuple(self.image_ids), "classes": tuple(self.classes), "image_index": image_index[order],
                  "class_index": class_index[order], "score": score[order], "boxes": boxes[order]}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.score)

    def save(self, path: Path) -> None:
        """Writes the fields to the .npz file `path`; equal detections give equal bytes."""
        names = {"image_ids": np.array(self.image_ids, np.str_), "classes": np.array(self.classes, np.str_)}
        write_arrays(path, {**vars(self), **names})

    @classmethod
    def load(cls, path: Path) -> "Detections":
        """The detections that `save` wrote to `path`. Raises PipelineError for any other file."""
        arrays = _load_arrays(path, cls.__dataclass_fields__)
        arrays |= {name: tuple(arrays[name].tolist()) for name in ("image_ids", "classes")}
        try:
            return cls(**arrays)
        except PipelineError as error:
            raise PipelineError(f"{path}: {error}") from error


def join_detections(parts: Sequence[Detections]) -> Detections:
    """The detections of several sets of images, which have the same classes, as those of one set."""
    starts = np.cumsum([0, *(len(part.image_ids) for part in parts)])
    index = [part.image_index + start for part, start in zip(parts, starts)]
    columns = zip(*((part.class_index, part.score, part.boxes) for part in parts))
    ids = sum((part.image_ids for part in parts), ())
    return Detections(ids, parts[0].classes, np.concatenate(index), *map(np.concatenate, columns))


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best regions of one image for every class, of which the split's thresholds will still take some away.

    `class_index` int32 [k], `score` float32 [k], `boxes` float32 [k x 4], by class, then falling score. `survives` bool [k]
    marks those that non-maximum suppression within the class leaves.
    """

    class_index: np.ndarray
    score: np.ndarray
    boxes: np.ndarray
    survives: np.ndarray


def top_scoring(
    scores: np.ndarray, boxes: np.ndarray, max_per_image: int = MAX_PER_IMAGE, nms_threshold: float = NMS_THRESHOLD
) -> Candidates:
    """For each class the `max_per_image` best regions of one image, and which of them survive suppression (`rcnn_test.m`).

    `scores` [n x C]; a region scored -inf is no candidate. `boxes` [n x 4], or [n x C x 4] where each class has moved them; clip
    them to the image first. Of equal scores the earlier region comes first. Raises PipelineError for a score of NaN or inf.
    """
    scores = np.asarray(scores, np.float32)
    boxes = np.asarray(boxes, np.float32)
    boxes = np.broadcast_to(boxes[:, None] if boxes.ndim == 2 else boxes, (*scores.shape, 4))
    wrong = np.argwhere(np.isnan(scores) | np.isposinf(scores))
    if len(wrong):
        region, label = wrong[0]
        found = f"region {region}, class {label}: score {scores[region, label]}"
        raise PipelineError(f"{found}; expected a number or -inf; check the detector's weights")
    order = np.argsort(-scores, axis=0, kind="stable")[:max_per_image]
    chosen = [best[scores[best, label] > -np.inf] for label, best in enumerate(order.T)]
    class_index = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(best) for best in chosen])
    region = np.concatenate(chosen)
    score, boxes = scores[region, class_index], boxes[region, class_index]
    survives = np.zeros(len(region), bool)
    for label in range(len(chosen)):
        of_class = np.flatnonzero(class_index == label)
        survives[of_class[nms(boxes[of_class], score[of_class], nms_threshold)]] = True
    return Candidates(class_index, score, boxes, survives)


def split_threshold(scores: np.ndarray, num_images: int, per_image: int = PER_IMAGE) -> float:
    """The score that `per_image` x `num_images` of one class's candidates reach, -inf where there are no more than that.

    `scores` [m] are those of all candidates of the class in the split, before suppression (`rcnn_test.m`: max_per_set).
    """
    surplus = len(scores) - per_image * num_images
    return float(np.partition(scores, surplus)[surplus]) if surplus > 0 else -np.inf


def select_detections(
    candidates: Iterable[Candidates], image_ids: Sequence[str], classes: Sequence[str], per_image: int = PER_IMAGE
) -> Detections:
    """The detections of a split: candidates that survive suppression and reach their class's `split_threshold`.

    `candidates`, one for each image, are gone through twice, so that they need not be held in memory. The release thresholds
    first and suppresses then. That is the same: a candidate is only ever suppressed by a better one.
    NOTE: the release raises its threshold as it walks the images and then asks for more than it, so that a candidate with
    exactly the final score stays or goes by its image's position; here it stays.
    Raises PipelineError when there is not one `Candidates` for each image, or no image at all.
    """
    class_index, score = [], []
    for image in candidates:
        class_index.append(image.class_index)
        score.append(image.score)
    if not score or len(score) != len(image_ids):
        raise PipelineError(f"candidates of {len(score)} images for a split of {len(image_ids)}; give one for each image")
    classes_of, scores = np.concatenate(class_index), np.concatenate(score)
    thresholds = np.array(
        [split_threshold(scores[classes_of == label], len(image_ids), per_image) for label in range(len(classes))], np.float32
    )
    kept = []
    for number, image in enumerate(candidates):
        keep = image.survives & (image.score >= thresholds[image.class_index])
        kept.append((np.full(keep.sum(), number), image.class_index[keep], image.score[keep], image.boxes[keep]))
    return Detections(tuple(image_ids), tuple(classes), *map(np.concatenate, zip(*kept, strict=True)))


def save_candidates(path: Path, candidates: Sequence[Candidates]) -> None:
    """Writes the candidates of several images, a shard, to the .npz file `path`; equal candidates give equal bytes."""
    names = Candidates.__dataclass_fields__
    arrays = {name: np.concatenate([getattr(image, name) for image in candidates]) for name in names}
    write_arrays(path, {"counts": np.array([len(image.score) for image in candidates], np.int32), **arrays})


def load_candidates(path: Path) -> list[Candidates]:
    """The candidates that `save_candidates` wrote to `path`, one for each image. Raises PipelineError for any other file."""
    arrays = _load_arrays(path, ("counts", *Candidates.__dataclass_fields__))
    counts = arrays.pop("counts")
    if (counts < 0).any() or {len(array) for array in arrays.values()} != {int(counts.sum())}:
        raise PipelineError(f"{path}: not a whole file of candidates (as many as it counts); make it anew")
    ends = np.cumsum(counts)[:-1]
    pieces = {name: np.split(array, ends) for name, array in arrays.items()}
    return [Candidates(**dict(zip(pieces, image, strict=True))) for image in zip(*pieces.values(), strict=True)]


def write_voc(folder: Path, split: str, detections: Detections) -> None:
    """Writes VOC's result files, one for every class: `<folder>/comp4_det_<split>_<class>.txt`.

    A line is `id score x1 y1 x2 y2`, corners 1-based and inclusive. NOTE: the release prints three decimals of a score and one
    of a coordinate; nine digits keep every float32 score, and so the ranking, and corners to 1e-6 px.
    Raises PipelineError for an image id with a space or a class name with a slash, which the format cannot hold.
    """
    for image_id in detections.image_ids:
        if image_id.split() != [image_id]:
            raise PipelineError(f"image id '{image_id}': VOC result files have no room for spaces; rename the image")
    for label, name in enumerate(detections.classes):
        of_class = detections.class_index == label
        corners = detections.boxes[of_class] + np.array([1, 1, 0, 0], np.float64)
        numbers = np.column_stack([detections.score[of_class], corners]).tolist()
        ids = (detections.image_ids[image] for image in detections.image_index[of_class].tolist())
        with create(_voc_path(folder, split, name)) as file:
            file.writelines((VOC_LINE % (image_id, *row)).encode() for image_id, row in zip(ids, numbers, strict=True))


def read_voc(folder: Path, split: str, image_ids: Sequence[str], classes: Sequence[str]) -> Detections:
    """The detections in VOC's result files, as `write_voc` or a release wrote them.

    Raises PipelineError, naming file and line, for a missing file, a malformed line or an image that is not in `image_ids`.
    """
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    image_index, class_index, numbers = [], [], []
    for label, name in enumerate(classes):
        path = _voc_path(folder, split, name)
        advice = "every class needs a file, if an empty one"
        try:
            lines = read_regular(path, advice).decode().splitlines()
        except UnicodeDecodeError as error:
            raise PipelineError(f"{path}: cannot be read ({error}); {advice}") from error
        for count, line in enumerate(lines, start=1):
            image_id, *values = line.split() or [""]
            if image_id not in position:
                raise PipelineError(f"{path}:{count}: image '{image_id}' is not in the split; detect on the same split")
            try:
                score, x1, y1, x2, y2 = map(float, values)
            except ValueError as error:
                raise PipelineError(f"{path}:{count}: '{line}' is not `id score x1 y1 x2 y2`; correct the line") from error
            image_index.append(position[image_id])
            class_index.append(label)
            numbers.append((score, x1 - 1, y1 - 1, x2, y2))
    numbers = np.array(numbers, np.float64).reshape(-1, 5)
    return Detections(tuple(image_ids), tuple(classes), image_index, class_index, numbers[:, 0], numbers[:, 1:])


def coco_image_ids(image_ids: Sequence[str]) -> list[int]:
    """COCO's integer ids: the names themselves where all are numbers and stay different, otherwise positions from 1."""
    if all(image_id.isascii() and image_id.isdecimal() for image_id in image_ids):
        numbers = [int(image_id) for image_id in image_ids]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(image_ids) + 1))


def write_coco(path: Path, detections: Detections) -> None:
    """Writes COCO's results, a JSON list of image_id, category_id, bbox (x, y, width, height; 0-based) and score, to `path`.

    A category is the class's position from 1, an image as `coco_image_ids` says. Beside `x.json` lies `x.names.json` with
    `images` (id, file_name: the id in the split) and `categories` (id, name), as in a COCO annotation file.
    """
    ids = coco_image_ids(detections.image_ids)
    boxes = detections.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    columns = detections.image_index, detections.class_index, boxes, detections.score
    rows = zip(*(column.tolist() for column in columns), strict=True)
    entries = (COCO_ENTRY % (ids[image], label + 1, *box, score) for image, label, box, score in rows)
    with create(path) as file:
        file.write(f"[{next(entries, '')}".encode())
        file.writelines(f",{entry}".encode() for entry in entries)
        file.write(b"\n]\n")
    names = {
        "images": [{"id": number, "file_name": name} for number, name in zip(ids, detections.image_ids, strict=True)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(detections.classes, start=1)],
    }
    write_file(Path(path).with_suffix(".names.json"), json.dumps(names, indent=1) + "\n")


def _voc_path(folder: Path, split: str, name: str) -> Path:
    if any(sign in name for sign in "/\\\0"):
        raise PipelineError(f"class '{name}': a slash or a NUL cannot be part of a result file's name; rename the class")
    return Path(folder) / f"comp4_det_{split}_{name}.txt"


def _load_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        arrays = load_arrays(path, tuple(names))
        for name, array in arrays.items():
            kind, inner = KINDS[name]
            if array.dtype.kind != kind or array.ndim != 1 + len(inner) or array.shape[1:] != inner:
                raise ValueError(f"{name} of {array.dtype} {list(array.shape)}")
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: not a whole file of {', '.join(names)} ({flat(error)}); make it anew") from error
    return arrays
