"""PASCAL VOC folders, read strictly; `voc_writing.py` writes them.

    <root>/ImageSets/Main/<split>.txt    one image id per line
    <root>/Annotations/<id>.xml          the objects of one image
    <root>/JPEGImages/<id>.jpg           or .jpeg, .png, .bmp, .webp; the first of them that exists
    <root>/SegmentationClass/<id>.png    and SegmentationObject: masks, where they exist (`masks.py`)
    <root>/classes.txt                   the names of the masks' values, where it exists (`mask_labels.py`)
    <root>/keypoints.json                keypoints of the objects, where it exists (`keypoints.py`)

A `Place` (see `layouts`) names other folders, and says whether there is a list at all: without one, each XML file counts.

VOC gives corners in pixels, 1-based and inclusive (VOC2007 development kit, section 4.1). They become our 0-based boxes with
exclusive right and bottom edges here: (xmin - 1, ymin - 1, xmax, ymax); nothing else in the project sees VOC's. Some tools write
such files 0-based: `Rules.voc_first_pixel` says so.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from defusedxml.ElementTree import fromstring

from pipeline.boxes import from_inclusive
from pipeline.datasets.drafts import Draft
from pipeline.datasets.edges import ADVICE, Edges, Extent
from pipeline.datasets.faults import Faults, ObjectFaults
from pipeline.datasets.folder_tree import below
from pipeline.datasets.keypoints import FILE as KEYPOINTS
from pipeline.datasets.keypoints import KeypointFile
from pipeline.datasets.layouts import Place, voc_list_name
from pipeline.datasets.mask_labels import CLASS_MASK, MaskLabels
from pipeline.datasets.mask_labels import FILE as CLASS_NAMES
from pipeline.datasets.masks import MASK_FOLDERS
from pipeline.datasets.reading import IMAGE_SUFFIXES, Folder, Listing, Rules, check_size, is_plain_name, make_split
from pipeline.datasets.records import Split
from pipeline.datasets.voc_lists import ids_of_folder, parse_list
from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.text import shown

CORNERS = ("xmin", "ymin", "xmax", "ymax")
MISSING_IMAGE = f"no such file (nor {', '.join(suffix for suffix in IMAGE_SUFFIXES[1:] if suffix.islower())}, in either case)"


def standard_place(split: str) -> Place:
    """Where VOC's own development kit has a split."""
    return Place(voc_list_name(split), ("JPEGImages",), "Annotations")


def split_files(root: Path, split: str, place: Place | None = None, masks: bool = False) -> list[str]:
    """Names below `root` of every file that defines a split: its list, then each id's annotation and image, in the list's order.

    Never raises: where the list cannot be read, its name is the only one. Files named by the list need not exist. Without a list,
    images without an annotation come last. With `masks` the split is read for its masks: images need no annotation.
    """
    place, files = place or standard_place(split), Listing(root)
    ids, others = _ids(Path(root), place, files, Faults(), lambda name: read_regular(Path(root, name), ""))
    keypoints = [KEYPOINTS] if ids and files.has(KEYPOINTS) else []
    names = [CLASS_NAMES] if masks and files.has(CLASS_NAMES) else []

    def image_of(id: str) -> str:
        usual = below(place.images[0], f"{id}{IMAGE_SUFFIXES[0]}")  # the first name of all, and nearly always the file's
        return usual if files.has(usual) else files.first(_image_names(place, id))

    mask_folders = [folder for folder in MASK_FOLDERS.values() if Path(root, folder).is_dir()]
    of_ids = (
        name for id in ids for name in (*_annotations(files, place, id, masks), image_of(id), *_masks(files, mask_folders, id))
    )
    return [*([place.index] if place.index else []), *names, *keypoints, *of_ids, *others]


def _annotations(files: Listing, place: Place, id: str, optional: bool) -> list[str]:
    """The annotation of an image; none where it is `optional` and does not exist."""
    name = annotation_name(place, id)
    return [name] if not optional or files.has(name) else []


def _masks(files: Listing, folders: Sequence[str], id: str) -> list[str]:
    """The masks that exist for an image."""
    return [name for folder in folders if files.has(name := f"{folder}/{id}.png")]


def read_split(
    root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[str, str], *, place: Place | None = None, **rules
) -> Split:
    """The images and objects that the list `split` names, in its order; or those in `place`.

    `classes` are the class names in label order; None takes the sorted names of the objects in this split. `digests` maps the
    names of `split_files` to the SHA-256 that the caller expects. Every image is decoded once, so that a broken one is
    not found in a later stage (about 1 ms for a photograph of 500 x 375). `rules` are those of `Rules`:

    - `on_bad_annotation`: an object whose class is unknown or whose box cannot be right is an error; with "drop" it is left out;
      with "clip" its box is cut to the image first, if a part of it is there. A box that passes the edge by at most a pixel is
      always cut. All that is left out or cut is counted in `Split.dropped` or `Split.notes`. Nothing else is tolerated.
    - `exif`: images with a mark of rotation are an error, or read "upright" or as "stored".
    - `voc_first_pixel`: what VOC's files count pixels from, 1 or 0.
    - `only_classes`: objects of other classes than `classes` are left out. `every_class`: each of `classes` must have an object.
    - `max_megapixels`: more millions of pixels than that are a problem, found before decoding.
    - `masks`: the split is read for its class masks (`MaskRules`). Images need no annotation, and objects no class but those of
      the masks; each value of a mask must have a name.

    Raises DatasetError with all problems of the split at once.
    """
    folder, place = Folder(root, digests, classes, Rules(**rules)), place or standard_place(split)
    labels = MaskLabels(folder) if folder.rules.masks else None
    _read_images(folder, place, split, labels)
    listed_in = folder.root / (place.index or place.annotations)
    return make_split(split, folder, listed_in, labels.finish() if labels else None)


def annotation_name(place: Place, id: str) -> str:
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
                return files.has(annotation_name(place, id)) or any(map(files.has, _image_names(place, id)))

            ids = parse_list(root / place.index, content, exists, faults)
    return (place.part.choose(ids) if place.part else ids), others


def _read_list(folder: Folder, place: Place, split: str) -> list[str]:
    """The ids of the split; none when images cannot be looked for."""
    root, faults = folder.root, folder.faults
    needed = [place.images[0], *([place.index.rpartition("/")[0]] if place.index else [])]
    needed = needed if folder.rules.masks else [place.annotations, *needed]
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


def _read_images(folder: Folder, place: Place, split: str, labels: MaskLabels | None) -> None:
    faults, edges = folder.faults, folder.edges(folder.rules.voc_first_pixel)
    if not place.index:
        folder.take_out = "remove its annotation"
    ids, keypoints = _read_list(folder, place, split), _read_keypoints(folder)
    counts: dict[str, int] = {}
    for id in ids:
        # An annotation is checked even when its image is unreadable.
        image = folder.draft_image(id, _image_names(place, id), MISSING_IMAGE)
        elements = None
        if labels is None or annotation_name(place, id) in folder.digests:
            with faults.collected("annotation files that cannot be used"):
                path = folder.root / annotation_name(place, id)
                annotation = _parse_annotation(path, folder.read(annotation_name(place, id)))
                with faults.collected("sizes that are not the image's"):
                    _check_size(path, annotation, image)
                elements = annotation.findall("object")
                counts[id] = len(elements)
                for number, element in enumerate(elements, 1):
                    points = keypoints.of(id, number - 1) if keypoints else None
                    where = f"{path}: object {number}"
                    _read_object(where, element, folder=folder, image=image, edges=edges, keypoints=points)
        if labels:
            names = None if elements is None else {_name_of(element) for element in elements}
            labels.read(image, id, names, place.has_masks)
        for field, masks in MASK_FOLDERS.items():
            if (name := f"{masks}/{id}.png") in folder.digests and not (labels and masks == CLASS_MASK):
                folder.read_mask(image, field, name)
    if keypoints:
        keypoints.check_places(counts)
    edges.tell()


def _read_keypoints(folder: Folder) -> KeypointFile | None:
    """The keypoints of the data set's objects; None where it has no such file."""
    if KEYPOINTS in folder.digests:
        with folder.faults.collected("files of keypoints that cannot be used"):
            file = KeypointFile(folder.root / KEYPOINTS, folder.read(KEYPOINTS), folder.faults)
            folder.drafts.skeleton = file.skeleton
            return file
    return None


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


def _read_object(
    where: str, element: ElementTree.Element, *, folder: Folder, image: Draft, edges: Edges, keypoints: np.ndarray | None
) -> None:
    """Adds one object to `image`, or what is wrong with it to the faults of `folder`."""
    name, box = _name_of(element), None
    if name and folder.classes.leave_out(name):
        return
    here = ObjectFaults(folder.faults, f"{where} ({name or 'unnamed'})")
    if not name:
        here.error("objects without a name", "has no <name>", "add it")
    else:
        folder.classes.check(here, name, ADVICE)
    difficult = element.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        here.error("objects with another <difficult>", f"has <difficult> '{difficult}'", "expected 0 or 1")
    bndboxes = element.findall("bndbox")
    corners = [bndbox.findtext(corner) for bndbox in bndboxes for corner in CORNERS]
    texts = [text for text in corners if text is not None]
    if len(bndboxes) != 1 or len(texts) < len(CORNERS):
        here.error("objects without one <bndbox>", f"has {len(bndboxes)} <bndbox>", f"expected one with {', '.join(CORNERS)}")
    else:
        first = folder.rules.voc_first_pixel
        limits = f"({first}, {first}, {image.width - 1 + first}, {image.height - 1 + first})"
        extent, quoted = Extent(image.height, image.width, limits), ", ".join(text.strip() for text in texts)
        box = edges.fit(here, _to_corners(texts, first), extent, lambda: f"has the box ({quoted})")
    if box is not None and not here.any:
        image.add(box, name, difficult == "1", keypoints=folder.labelled_inside(here.where, keypoints, image))


def _name_of(element: ElementTree.Element) -> str:
    return (element.findtext("name") or "").strip()


def _to_corners(texts: Sequence[str], first: int) -> Sequence[float]:
    """VOC's corners in our convention; no numbers where they are none."""
    try:
        return from_inclusive(np.array([float(text) for text in texts]), first=first).tolist()
    except ValueError:
        return [math.nan] * 4
