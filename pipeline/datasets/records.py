"""What the rest of the pipeline knows of a data set: a split is a list of image records and the class names."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class ImageRecord:
    """One image and its objects.

    `path` is relative to the data set's folder; `digest` is the SHA-256 of the image file, so that a reader can tell that the
    file is still the one that was indexed. `boxes` float32 [n x 4] in pixels, 0-based, exclusive x2 and y2; `labels` int64 [n]
    index `Split.classes`; `difficult` bool [n] marks objects that the evaluation leaves out.
    """

    id: str
    path: str
    digest: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray

    def to_json(self) -> dict:
        return {
            "id": self.id, "path": self.path, "digest": self.digest, "width": self.width, "height": self.height,
            "boxes": self.boxes.tolist(), "labels": self.labels.tolist(), "difficult": self.difficult.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict) -> "ImageRecord":
        return cls(
            data["id"], data["path"], data["digest"], data["width"], data["height"],
            np.array(data["boxes"], np.float32).reshape(-1, 4), np.array(data["labels"], np.int64),
            np.array(data["difficult"], bool),
        )


@dataclass(frozen=True)
class Split:
    """A named list of images.

    `mirror` says whether a mirrored object is still one of its class: not so for digits. `dropped` lists the annotations left out
    at the user's wish, one line each.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    dropped: tuple[str, ...] = ()
    mirror: bool = True

    def select(self, numbers: Iterable[int]) -> "Split":
        """The part of the split that holds the images of these positions."""
        return replace(self, images=tuple(self.images[number] for number in numbers), dropped=())

    def to_json(self) -> dict:
        return {
            "name": self.name, "classes": list(self.classes), "images": [image.to_json() for image in self.images],
            "dropped": list(self.dropped), "mirror": self.mirror,
        }

    @classmethod
    def from_json(cls, data: dict) -> "Split":
        images = tuple(ImageRecord.from_json(image) for image in data["images"])
        return cls(data["name"], tuple(data["classes"]), images, tuple(data["dropped"]), data["mirror"])
