"""PASCAL VOC folders, read strictly and written.

    <root>/ImageSets/Main/<split>.txt    one image id per line
    <root>/Annotations/<id>.xml          the objects of one image
    <root>/JPEGImages/<id>.jpg           or .jpeg, .png; the first of them that exists

A `Place` (see `layouts`) names other folders, and says whether there is a list at all: without one, each XML file counts.

VOC gives corners in pixels, 1-based and inclusive (VOC2007 development kit, section 4.1). They become our 0-based boxes with
exclusive right and bottom edges here: (xmin - 1, ymin - 1, xmax, ymax); nothing else in the project sees VOC's.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from defusedxml.ElementTree import fromstring
from PIL import Image

from pipeline.boxes import from_inclusive, to_inclusive
from pipeline.datasets.faults import Faults, ObjectFaults
from pipeline.datasets.folder_tree import below
from pipeline.datasets.layouts import Place, voc_list_name
from pipeline.datasets.reading import (
    ADVICE,
    IMAGE_SUFFIXES,
    BadBox,
    Draft,
    Folder,
    Listing,
    check_size,
    is_plain_name,
    make_split,
    to_box,
)
from pipeline.datasets.records import Split
from pipeline.datasets.voc_lists import ids_of_folder, parse_list
from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS, read_regular
from pipeline.files.writing import write_file, write_image
from pipeline.text import shown

CORNERS = ("xmin", "ymin", "xmax", "ymax")
JPEG_QUALITY = 95
MISSING_IMAGE = f"no such file (nor {', '.join(IMAGE_SUFFIXES[1:3])}, in either case)"


def standard_place(split: str) -> Place:
    """Where VOC's own development kit has a split."""
    return Place(voc_list_name(split), ("JPEGImages",), "Annotations")


def split_files(root: Path, split: str, place: Place | None = None) -> list[str]:
    """Names below `root` of every file that defines a split: its list, then each id's annotation and image, in the list's order.

    Never raises: where the list cannot be read, its name is the only one. Files named by the list need not exist. Without a list,
    images without an annotation come last.
    """
    place, files = place or standard_place(split), Listing(root)
    ids, others = _ids(Path(root), place, files, Faults(), lambda name: read_regular(Path(root, name), ""))
    of_ids = (name for id in ids for name in (_annotation_name(place, id), files.first(_image_names(place, id))))
    return [*([place.index] if place.index else []), *of_ids, *others]


def read_split(
    root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[str, str], *, on_bad_annotation: str = "error",
    max_megapixels: float = MAX_MEGAPIXELS, place: Place | None = None,
) -> Split:
    """The images and objects that the list `split` names, in its order; or those in `place`.

    `classes` are the class names in label order; None takes the sorted names of the objects in this split. `digests` maps the
    names of `split_files` to the SHA-256 that the caller expects. Every image is decoded once, so that a broken one is
    not found in a later stage (about 1 ms for a photograph of 500 x 375). More than `max_megapixels` millions of pixels are a
    problem, found before decoding.

    With `on_bad_annotation="drop"`, objects whose class is unknown or whose box is no number, empty or not wholly inside the
    image are left out and listed in `Split.dropped`. Boxes are never clipped. Nothing else is tolerated.

    Raises DatasetError with all problems of the split at once.
    """
    folder, place = Folder(root, digests, on_bad_annotation, max_megapixels), place or standard_place(split)
    _read_images(folder, place, split, classes)
    return make_split(split, classes, folder, folder.root / (place.index or place.annotations))


@dataclass(frozen=True)
class AnnotatedImage:
    """One image for `write_split`: `pixels` uint8 [height x width x 3], `boxes` [n x 4] as in `ImageRecord`, a name for each."""

    id: str
    pixels: np.ndarray
    boxes: np.ndarray
    names: Sequence[str]
    difficult: Sequence[bool]


def write_split(root: Path, split: str, images: Iterable[AnnotatedImage]) -> None:
    """Writes a split that `read_split` reads: JPEGs of quality 95, annotations, and last the list. Takes one image at a time."""
    root = Path(root)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    ids = []
    for image in images:
        write_image(root / "JPEGImages" / f"{image.id}.jpg", Image.fromarray(image.pixels), quality=JPEG_QUALITY)
        write_file(root / _annotation_name(standard_place(split), image.id), _to_xml(image))
        ids.append(image.id)
    write_file(root / voc_list_name(split), "".join(f"{id}\n" for id in ids))


def _annotation_name(place: Place, id: str) -> str:
    return below(place.annotations, f"{id}.xml")


def _image_names(place: Place, id: str) -> list[str]:
    return [below(folder, f"{id}{suffix}") for folder in place.images for suffix in IMAGE_SUFFIXES]


def _ids(root: Path, place: Place, files: Listing, faults: Faults, read: Callable[[str], bytes]) -> tuple[list[str], list[str]]:
    """The ids of a split, and the images without an annotation where there is no list. `read` reads the list."""
    ids: list[str] = []
    others: list[str] = []
    if not place.index:
        ids, others = ids_of_folder(root, place, files, faults)
    else:
        with faults.collected("lists that cannot be read"):
            content = read(place.index)

            def exists(id: str) -> bool:
                return files.has(_annotation_name(place, id)) or any(map(files.has, _image_names(place, id)))

            ids = parse_list(root / place.index, content, exists, faults)
    return (place.part.choose(ids) if place.part else ids), others


def _read_list(folder: Folder, place: Place, split: str) -> list[str]:
    """The ids of the split; none when images cannot be looked for."""
    root, faults = folder.root, folder.faults
    needed = [place.annotations, place.images[0], *([place.index.rpartition("/")[0]] if place.index else [])]
    folders = [root] if not root.is_dir() else [root / name for name in needed]
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        advice = "expected a data set in VOC layout, or in COCO's, with annotations/instances_<split>.json"
        faults.error("folders that are missing", f"{', '.join(map(str, missing))}: no such folder", advice)
        return []
    path = root / place.index
    if not is_plain_name(split) or not os.path.exists(path):
        existing = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        faults.error("lists that are missing", f"{path}: no such list", f"the splits of this data set are: {existing}")
        return []
    return _ids(root, place, Listing(root), faults, folder.read)[0]


def _read_images(folder: Folder, place: Place, split: str, classes: Sequence[str] | None) -> None:
    faults = folder.faults
    if not place.index:
        folder.take_out = "remove its annotation"
    for id in _read_list(folder, place, split):
        # An annotation is checked even when its image is unreadable.
        image = folder.draft_image(id, _image_names(place, id), MISSING_IMAGE)
        with faults.collected("annotation files that cannot be used"):
            path = folder.root / _annotation_name(place, id)
            annotation = _parse_annotation(path, folder.read(_annotation_name(place, id)))
            with faults.collected("sizes that are not the image's"):
                _check_size(path, annotation, image)
            for number, element in enumerate(annotation.findall("object"), 1):
                _read_object(f"{path}: object {number}", element, classes, image, faults)


def _parse_annotation(path: Path, content: bytes) -> ElementTree.Element:
    try:
        # A document type can name files to include and entities that grow without bound; VOC's files have none.
        root = fromstring(content, forbid_dtd=True)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise PipelineError(f"{path}: not readable as XML ({error}); correct the file") from error
    if root.tag != "annotation":
        raise PipelineError(f"{path}: its root element is <{root.tag}>; expected a VOC file with <annotation>")
    return root


def _check_size(path: Path, annotation: ElementTree.Element, image: Draft) -> None:
    sides = [annotation.findtext(f"size/{side}") for side in ("width", "height")]
    texts = [text for text in sides if text is not None]
    if len(texts) < len(sides):
        return
    try:
        width, height = map(float, texts)
    except ValueError:
        width = height = np.nan
    if not np.isfinite((width, height)).all():
        raise PipelineError(f"{path}: <size> is {shown(texts[0])} x {shown(texts[1])}; expected pixels")
    check_size(f"{path}: <size>", width, height, image)


def _read_object(where: str, element: ElementTree.Element, classes: Sequence[str] | None, image: Draft, faults: Faults) -> None:
    """Adds one object to `image`, or what is wrong with it to `faults`."""
    name, box = (element.findtext("name") or "").strip(), None
    here = ObjectFaults(faults, f"{where} ({name or 'unnamed'})")
    if not name:
        here.error("objects without a name", "has no <name>", "add it")
    elif classes is not None and name not in classes:
        here.bad_object("objects of no known class", f"is of no known class ({', '.join(classes)})", ADVICE)
    difficult = element.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        here.error("objects with another <difficult>", f"has <difficult> '{difficult}'", "expected 0 or 1")
    bndboxes = element.findall("bndbox")
    corners = [bndbox.findtext(corner) for bndbox in bndboxes for corner in CORNERS]
    texts = [text for text in corners if text is not None]
    if len(bndboxes) != 1 or len(texts) < len(CORNERS):
        here.error("objects without one <bndbox>", f"has {len(bndboxes)} <bndbox>", f"expected one with {', '.join(CORNERS)}")
    else:
        try:
            box = _to_box(texts, image.height, image.width)
        except BadBox as error:
            here.bad_object(error.kind, f"has the box ({', '.join(text.strip() for text in texts)}), {error}", ADVICE)
    if box is not None and not here.any:
        image.add(box, name, difficult == "1")


def _to_box(texts: Sequence[str], height: float, width: float) -> np.ndarray:
    """Our float32 box [4] of VOC's corners; BadBox says what is wrong with them."""
    try:
        corners = np.array([float(text) for text in texts])
    except ValueError:
        corners = np.full(4, np.nan)
    return to_box(from_inclusive(corners, first=1), height, width, f"(1, 1, {width}, {height})")


def _to_xml(image: AnnotatedImage) -> bytes:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{image.id}.jpg"
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
