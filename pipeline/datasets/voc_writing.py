"""PASCAL VOC folders, written: `voc.py` reads them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pipeline.boxes import to_inclusive
from pipeline.datasets.layouts import voc_list_name
from pipeline.datasets.masks import MASK_FOLDERS, write_mask
from pipeline.datasets.voc import CORNERS, annotation_name, standard_place
from pipeline.files.writing import write_file, write_image

JPEG_QUALITY = 95


@dataclass(frozen=True)
class AnnotatedImage:
    """One image for `write_split`: `pixels` uint8 [height x width x 3], `boxes` [n x 4] as in `ImageRecord`, a name for each.

    Masks are uint8 [height x width]. `write_split` leaves `keypoints` [n x k x 3] to its caller: one file serves all splits.
    """

    id: str
    pixels: np.ndarray
    boxes: np.ndarray
    names: Sequence[str]
    difficult: Sequence[bool]
    keypoints: np.ndarray | None = None
    class_mask: np.ndarray | None = None
    instance_mask: np.ndarray | None = None


def write_split(root: Path, split: str, images: Iterable[AnnotatedImage]) -> None:
    """Writes a split that `read_split` reads: JPEGs of quality 95, annotations, and last the list. Takes one image at a time."""
    root = Path(root)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    ids = []
    for image in images:
        write_image(root / "JPEGImages" / f"{image.id}.jpg", Image.fromarray(image.pixels), quality=JPEG_QUALITY)
        write_file(root / annotation_name(standard_place(split), image.id), to_xml(image, f"{image.id}.jpg"))
        for name, folder in MASK_FOLDERS.items():
            if (mask := getattr(image, name)) is not None:
                write_mask(root / folder / f"{image.id}.png", mask)
        ids.append(image.id)
    write_file(root / voc_list_name(split), "".join(f"{id}\n" for id in ids))


def to_xml(image: AnnotatedImage, filename: str) -> bytes:
    """The annotation of an image, of whose pixels only the shape is used."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = filename
    size = ElementTree.SubElement(root, "size")
    for side, value in zip(("height", "width", "depth"), image.pixels.shape, strict=True):
        ElementTree.SubElement(size, side).text = str(value)
    for box, name, difficult in zip(image.boxes, image.names, image.difficult, strict=True):
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = name
        ElementTree.SubElement(element, "difficult").text = str(int(difficult))
        bndbox = ElementTree.SubElement(element, "bndbox")
        for corner, value in zip(CORNERS, to_inclusive(np.asarray(box, np.float64), first=1), strict=True):
            ElementTree.SubElement(bndbox, corner).text = f"{value:.12g}"
    ElementTree.indent(root)
    return ElementTree.tostring(root) + b"\n"
