"""YOLO folders, read strictly.

    <root>/data.yaml                 names the classes, and for each split a folder or a list of images (`yolo_document.py`)
    <root>/images/<split>/<id>.jpg   or in other folders and in folders in them
    <root>/labels/<split>/<id>.txt   the objects of one image (`yolo_labels.py`); beside the image if no folder is called `images`

A box is (cx, cy, w, h) in fractions of the image's sides, so that ours is ((cx - w / 2) W, ..., (cy + h / 2) H) in an image of
W x H pixels. An image without a label file has no objects; such images are counted.

Darknet's `obj.data` or a `classes.txt` may stand in place of `data.yaml` (`yolo_places.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.datasets.faults import Faults
from pipeline.datasets.folder_tree import Tree, below
from pipeline.datasets.layouts import NO_LISTS, Place
from pipeline.datasets.reading import Folder, Rules, make_split
from pipeline.datasets.records import Split
from pipeline.datasets.yolo_document import Document, parse_darknet, parse_names, parse_text, read_document
from pipeline.datasets.yolo_labels import read_label
from pipeline.datasets.yolo_places import CLASSES, DARKNET, ids_of, images_in, label_names, locate
from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular

NAMES = "obj.names"
LIST = ".txt"


def split_files(root: Path, split: str, place: Place, masks: bool = False) -> list[str]:
    """Names below `root` of every file that defines a split: those that name classes and images, each image and its label file.

    Never raises. Images in a list need not exist. `masks` changes nothing: this layout has none.
    """
    tree = Tree(root)
    images = _images(tree, place, Faults(), lambda name: read_regular(Path(root, name), ""))
    files = (name for image in images for name in (image, _label_of(tree, image)) if name)
    return [*_index_files(tree, place), *(name for name in place.sources if _is_list(tree, name)), *files]


def read_split(
    root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[str, str], *, place: Place, **rules
) -> Split:
    """The images and objects of a split, in the order of its sources; arguments and errors as `voc.read_split`."""
    folder, path = Folder(root, digests, classes, Rules(**rules)), Path(root).absolute() / place.index
    with folder.faults.collected("files that cannot be read"):
        document = _read_document(folder, place)
        if len(set(document.names)) < len(document.names):
            folder.faults.note("classes of one name", f"{path}: names has a name twice", "they are one class")
        if document.pose:
            folder.drafts.skeleton = document.pose.skeleton
        _read_images(folder, place, document)
    return make_split(split, folder, path)


def class_names(root: Path, place: Place) -> tuple[str, ...]:
    """All class names, in the order of their numbers. Raises PipelineError."""
    return _parse_document(Path(root), place, lambda name: read_regular(Path(root, name), "correct it")).names


def _index_files(tree: Tree, place: Place) -> list[str]:
    return [place.index, *([name] if place.index == DARKNET and (name := _names_file(tree)) else [])]


def _names_file(tree: Tree) -> str | None:
    """The file that Darknet's `obj.data` names for the classes, or obj.names beside it."""
    path = Path(tree.root, DARKNET)
    try:
        text = parse_darknet(path, read_regular(path, "")).get("names", NAMES)
    except PipelineError:
        return None
    name, is_there = locate(tree, text, [])
    return name if name and is_there else NAMES


def _read_document(folder: Folder, place: Place) -> Document:
    return _parse_document(folder.root, place, folder.read)


def _parse_document(root: Path, place: Place, read) -> Document:
    path = root / place.index
    if place.index == DARKNET:
        name = _names_file(Tree(root)) or NAMES
        return Document(parse_names(root / name, read(name)), {})
    content = read(place.index)
    return Document(parse_names(path, content), {}) if place.index == CLASSES else read_document(path, content)


def _is_list(tree: Tree, source: str) -> bool:
    return source.endswith(LIST) and tree.has_file(source)


def _images(tree: Tree, place: Place, faults: Faults, read) -> list[str]:
    """The images of a split, each once; those of its part where it is divided. `read` reads a list."""
    images: dict[str, None] = {}
    for source in place.sources:
        if not _is_list(tree, source):
            names = list(images_in(tree, source))
        else:
            names = []
            with faults.collected("lists that cannot be read"):
                names = _listed(tree, source, read(source), faults)
        for image in names:
            if image in images:
                message = f"{Path(tree.root, source)}: {image} is in the split already"
                faults.note("images that are named twice", message, "they count once")
            images[image] = None
    return place.part.choose(images) if place.part else list(images)


def _listed(tree: Tree, source: str, content: bytes, faults: Faults) -> list[str]:
    """The images in a list, one a line."""
    path, images = Path(tree.root, source), []
    for number, line in enumerate(parse_text(path, content).splitlines(), 1):
        if not line.strip():
            continue
        name, _ = locate(tree, line, [source.rpartition("/")[0]])
        if name:
            images.append(name)
        else:
            message = f"{path}: line {number}: '{line.strip()}' leads out of the data set's folder"
            faults.error("lines that lead out of the folder", message, "expected an image's name below the folder")
    return images


def _label_of(tree: Tree, image: str) -> str | None:
    return next(filter(tree.has_file, label_names(image)), None)


def _read_images(folder: Folder, place: Place, document: Document) -> None:
    faults, edges, tree = folder.faults, folder.edges(), Tree(folder.root)
    images = _images(tree, place, faults, folder.read)
    if not images and not faults.errors:
        message = f"{folder.root}: {', '.join(place.sources) or 'the folder'} has no image"
        faults.error("splits without an image", message, "add some")
    for name, id in ids_of(images).items():
        image = folder.draft_image(id, [name], "no such file")
        # A label file that cannot be read has no digest, but it is not missing.
        label = next((path for path in label_names(name) if path in folder.digests or tree.has_file(path)), None)
        if label is None:
            message = f"{folder.root / name}: has no label file {folder.root / label_names(name)[0]}"
            faults.note("images without a label file", message, "they count as images without an object")
            continue
        with faults.collected("label files that cannot be used"):
            path = folder.root / label
            for number, line in enumerate(parse_text(path, folder.read(label)).splitlines(), 1):
                if line.strip():
                    read_label(f"{path}: line {number}", line, document=document, folder=folder, image=image, edges=edges)
    _note_strays(tree, place, images, faults)
    edges.tell()


def _note_strays(tree: Tree, place: Place, images: Sequence[str], faults: Faults) -> None:
    """Notes label files that have no image, where a split is whole folders of images."""
    if place.part or any(_is_list(tree, source) for source in place.sources):
        return
    expected = {name for image in images for name in label_names(image)}
    for folder in sorted({name.rpartition("/")[0] for name in expected}):
        names = (below(folder, name) for name in tree.files(folder, LIST) if not NO_LISTS.fullmatch(name.removesuffix(LIST)))
        for name in (name for name in names if name not in expected):
            message = f"{Path(tree.root, name)}: has no image"
            faults.note("label files without an image", message, "they are left out")
