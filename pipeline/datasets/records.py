"""A data set as the rest of the pipeline sees it: a split is a list of image records and the class names."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np

from pipeline.datasets.faults import Remark
from pipeline.datasets.keypoints import Skeleton
from pipeline.datasets.label_names import LabelNames

NO_CLASS = -1  # the label of a region to ignore whose class is none of the split's
MASKS = "class_mask", "instance_mask"
UPRIGHT = 1  # the orientation of an image whose stored pixels are not turned


@dataclass(frozen=True)
class MaskFile:
    """A palette PNG as large as its image: `path` relative to the data set's folder, and the file's SHA-256."""

    path: str
    digest: str


@dataclass(frozen=True)
class ImageRecord:
    """One image and its objects.

    `path` is relative to the data set's folder; `digest` is the SHA-256 of the image file, so that a reader can tell that the
    file is still the one that was indexed. `boxes` float32 [n x 4] in pixels, 0-based, exclusive x2 and y2; `labels` int64 [n]
    index `Split.classes`; `difficult` bool [n] marks objects that the evaluation leaves out. `ignored` bool [n] marks regions to
    ignore, such as COCO's crowds; without it there are none. They are no objects: nothing is trained on them, and the evaluation
    leaves them out. The label of such a region may be `NO_CLASS`. `orientation` is EXIF's mark of rotation, 1 to 8, if the stored
    pixels are turned by it when they are read: width, height and boxes are those of the turned image.

    `keypoints` float32 [n x k x 3], where the split has them: x and y in pixels as boxes are, and whether the point is labelled
    (0: it is not). `class_mask` says the class of each pixel and `instance_mask` its object, where the image has such files.
    """

    id: str
    path: str
    digest: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    ignored: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    orientation: int = UPRIGHT
    keypoints: np.ndarray | None = None
    class_mask: MaskFile | None = None
    instance_mask: MaskFile | None = None

    def __post_init__(self):
        if not len(self.ignored):
            object.__setattr__(self, "ignored", np.zeros(len(self.labels), bool))

    @property
    def counted(self) -> np.ndarray:
        """Which objects the evaluation counts: bool [n]."""
        return ~(self.difficult | self.ignored)

    @property
    def ignored_boxes(self) -> np.ndarray:
        """The boxes of the regions to ignore: [r x 4]."""
        return self.boxes[self.ignored]

    def select(self, rows: np.ndarray) -> "ImageRecord":
        """The record with these of its objects; `rows` are a mask or indices."""
        columns = {name: getattr(self, name)[rows] for name in ("boxes", "labels", "difficult", "ignored")}
        keypoints = None if self.keypoints is None else self.keypoints[rows]
        return replace(self, **columns, keypoints=keypoints)

    def without_ignored(self) -> "ImageRecord":
        """The record with its objects alone."""
        return self.select(~self.ignored) if self.ignored.any() else self

    def pixels_key(self) -> dict:
        """What the pixels depend on, as JSON."""
        # Images that are not turned keep the keys and bytes of versions that turned none.
        turned = {"orientation": self.orientation} if self.orientation != UPRIGHT else {}
        return {"digest": self.digest, **turned}

    def to_json(self) -> dict:
        """The record as JSON. What few images have is only in theirs: the others keep the bytes that they always had."""
        values = {
            "id": self.id, "path": self.path, **self.pixels_key(), "width": self.width, "height": self.height,
            "boxes": self.boxes.tolist(), "labels": self.labels.tolist(), "difficult": self.difficult.tolist(),
        }
        if self.ignored.any():
            values["ignored"] = self.ignored.tolist()
        if self.keypoints is not None:
            values["keypoints"] = self.keypoints.tolist()
        # As lists: a dictionary with a digest is an image (`ImageTable.take`).
        masks = {name: mask for name in MASKS if (mask := getattr(self, name))}
        return {**values, **{name: [mask.path, mask.digest] for name, mask in masks.items()}}

    @classmethod
    def from_json(cls, data: dict) -> "ImageRecord":
        return cls(
            data["id"], data["path"], data["digest"], data["width"], data["height"],
            np.array(data["boxes"], np.float32).reshape(-1, 4), np.array(data["labels"], np.int64),
            np.array(data["difficult"], bool), np.array(data.get("ignored", []), bool), data.get("orientation", UPRIGHT),
            _keypoints(data["keypoints"]) if "keypoints" in data else None,
            **{name: MaskFile(*data[name]) for name in MASKS if name in data},
        )


def _keypoints(rows: list) -> np.ndarray:
    """Keypoints float32 [n x k x 3] in JSON's lists; [0 x 0 x 3] without objects, which do not say how many keypoints one has."""
    return np.array(rows, np.float32).reshape(len(rows), len(rows[0]) if rows else 0, 3)


class ImageShape(NamedTuple):
    """What the size of an image's results depends on. `objects` counts regions to ignore, too."""

    width: int
    height: int
    objects: int


class ImageTable(Sequence):
    """Image records in columns: some 300 bytes for each image, a tenth of its record's. A record is made when it is read."""

    def __init__(self, records: Iterable[ImageRecord] = ()):
        self._names: list[str] = []  # id, path and digest of the first image, of the second, ...
        self._sizes = array("q")  # width and height of each image
        self._orientations = bytearray()
        self._ends = array("q", [0])  # 0, then the number of objects up to and with each image
        self._boxes, self._labels, self._difficult, self._ignored = array("f"), array("i"), bytearray(), bytearray()
        self._extras: dict[int, tuple] = {}  # keypoints, class mask and instance mask of the images that have any
        self._num_keypoints = 0  # of an object
        for record in records:
            self.add(record)

    def add(self, record: ImageRecord) -> None:
        """Adds an image at the end. ValueError when it has not one label, one `difficult` and one `ignored` for each box."""
        boxes = np.asarray(record.boxes, np.float32).reshape(-1, 4)
        if not len(boxes) == len(record.labels) == len(record.difficult) == len(record.ignored):
            raise ValueError(f"image {record.id} has {len(boxes)} boxes, {len(record.labels)} labels and "
                             f"{len(record.difficult)} marks of difficult objects, {len(record.ignored)} of regions to ignore; "
                             "expected as many of each")
        self._names += (record.id, record.path, record.digest)
        self._sizes.extend((record.width, record.height))
        self._orientations.append(record.orientation)
        self._boxes.frombytes(boxes.tobytes())
        self._labels.extend(np.asarray(record.labels, np.int64).tolist())
        self._difficult += np.asarray(record.difficult, bool).tobytes()
        self._ignored += np.asarray(record.ignored, bool).tobytes()
        extras = record.keypoints, record.class_mask, record.instance_mask
        if any(extra is not None for extra in extras):
            self._extras[len(self)] = extras
        if record.keypoints is not None:
            self._num_keypoints = max(self._num_keypoints, record.keypoints.shape[1])
        self._ends.append(len(self._labels))

    def digests(self) -> Iterator[tuple[str, str]]:
        """The id and digest of each image; quicker than from its record."""
        return zip(self._names[::3], self._names[2::3], strict=True)

    def shapes(self) -> Iterator[ImageShape]:
        """The shape of each image; quicker than from its record."""
        return map(ImageShape, self._sizes[::2], self._sizes[1::2], map(int.__sub__, self._ends[1:], self._ends))

    def take(self, value: dict) -> dict | None:
        """Adds what `ImageRecord.to_json` made, and returns None; returns any other `value`. For JSON's `object_hook`."""
        if "digest" not in value:
            return value
        self.add(ImageRecord.from_json(value))
        return None

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, key):
        place = range(len(self))[key]
        if isinstance(place, range):
            return tuple(self._record(number) for number in place)
        return self._record(place)

    def _record(self, number: int) -> ImageRecord:
        start, end = self._ends[number], self._ends[number + 1]
        id, path, digest = self._names[3 * number:3 * number + 3]
        width, height = self._sizes[2 * number:2 * number + 2]
        difficult, ignored = (np.frombuffer(marks[start:end], bool).copy() for marks in (self._difficult, self._ignored))
        keypoints, *masks = self._extras.get(number, (None,))
        if keypoints is not None and not len(keypoints):
            keypoints = np.zeros((0, self._num_keypoints, 3), np.float32)
        return ImageRecord(
            id, path, digest, width, height,
            np.array(self._boxes[4 * start:4 * end], np.float32).reshape(-1, 4), np.array(self._labels[start:end], np.int64),
            difficult, ignored, self._orientations[number], keypoints, *masks,
        )


@dataclass(frozen=True)
class CocoNames:
    """What COCO's files call the images and classes of a split, in its order: ids as they are written, and names of files."""

    image_ids: tuple[int | str, ...]
    file_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]

    def to_json(self) -> dict:
        return {name: list(values) for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, data: dict) -> "CocoNames":
        return cls(*(tuple(data[field.name]) for field in fields(cls)))


@dataclass(frozen=True)
class Split:
    """A named list of images.

    `mirror` says whether a mirrored object still belongs to its class; mirrored digits do not. `dropped` are the objects
    that were left out because the user wanted it, and `notes` is what else was found: a remark for each kind. `coco` is what the
    data set's own COCO file calls images and classes; None for other data sets. `skeleton` names the keypoints, where objects
    have them. `labels` are those of the class masks, where the split was read for its masks.
    """

    name: str
    classes: tuple[str, ...]
    images: Sequence[ImageRecord]
    dropped: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()
    mirror: bool = True
    coco: CocoNames | None = None
    skeleton: Skeleton | None = None
    labels: LabelNames | None = None

    def select(self, numbers: Iterable[int]) -> "Split":
        """The part of the split that holds the images of these positions."""
        return replace(self, images=tuple(self.images[number] for number in numbers), dropped=(), notes=(), coco=None)

    def to_json(self) -> dict:
        return {
            "name": self.name, "classes": list(self.classes), "images": [image.to_json() for image in self.images],
            "dropped": [remark.to_json() for remark in self.dropped], "notes": [remark.to_json() for remark in self.notes],
            "mirror": self.mirror, **({"coco": self.coco.to_json()} if self.coco else {}),
            **({"skeleton": self.skeleton.to_json()} if self.skeleton else {}),
            **({"labels": self.labels.to_json()} if self.labels else {}),
        }

    @classmethod
    def from_json(cls, data: dict, images: ImageTable | None = None) -> "Split":
        """The split of what `to_json` made. `images` are its images where `ImageTable.take` took them from the JSON."""
        if images is None:
            images = ImageTable(map(ImageRecord.from_json, data["images"]))
        dropped, notes = (tuple(map(Remark.from_json, data[name])) for name in ("dropped", "notes"))
        coco = CocoNames.from_json(data["coco"]) if "coco" in data else None
        skeleton = Skeleton.from_json(data["skeleton"]) if "skeleton" in data else None
        labels = LabelNames.from_json(data["labels"]) if "labels" in data else None
        return cls(data["name"], tuple(data["classes"]), images, dropped, notes, data["mirror"], coco, skeleton, labels)
