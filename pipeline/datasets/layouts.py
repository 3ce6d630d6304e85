"""The layouts of data sets that are read: what marks each, its splits, and where their files are.

A layout belongs to one of two formats, which say what the annotations mean: VOC's XML files (`voc`) or COCO's instances
files (`coco`). Files and folders are named below the data set's folder, with `/` between folders; "" is that folder itself.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.files.reading import open_regular

VOC, COCO = "voc", "coco"
ALL = "all"  # the split of a folder that has no lists
TRAIN, TEST = "train", "test"  # the parts of a split that --test-fraction divides
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "img", "data")
XML_FOLDERS = ("Annotations", "annotations", "annots", "xml", "xmls", "labels")
# Folders that are no split of their own, whatever is in them.
NO_SPLITS = {*IMAGE_FOLDERS, *XML_FOLDERS, "ImageSets", "SegmentationClass", "SegmentationObject", "__MACOSX"}
# The names that tools give to the one instances file of a folder.
WHOLE = ("_annotations.coco.json", "result.json", "labels.json", "annotations.json", "instances.json", "coco.json")
# COCO's other files about the same images.
NOT_OBJECTS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
# Text files that tools put beside annotations and that are no lists of images.
NO_LISTS = re.compile(r"(?i)readme.*|licen[cs]e.*|requirements|notes?|(predefined_|obj_?)?(classes|names|labels?)|label_?map")
SNIFFED = 1 << 16  # bytes at the start of a file that show what it is: one of COCO's lists begins there
MOST_JSON = 50  # more JSON files in one folder are one an image, as LabelMe's
MOST_XML = 20  # so many of a folder's XML files are looked at
NO_SPLIT = ""  # stands for the splits of a layout that has none


@dataclass(frozen=True)
class Part:
    """One of the two parts of a divided split. The digests of the images' names decide: the same names give the same parts."""

    fraction: float
    is_test: bool

    def choose(self, names: Iterable[str]) -> list[str]:
        """The names of this part, in their order; each part has at least one, where there are two."""
        names = list(names)
        count = min(max(round(self.fraction * len(names)), 1), max(len(names) - 1, 0))
        test = set(sorted(names, key=lambda name: hashlib.sha256(name.encode(errors="replace")).digest())[:count])
        return [name for name in names if (name in test) == self.is_test]


@dataclass(frozen=True)
class Place:
    """Where the files of one split are.

    `index` is COCO's instances file or VOC's list of ids; "" where every XML file in the folder `annotations` counts. Images are
    looked for in the folders `images`, one after the other.
    """

    index: str
    images: tuple[str, ...]
    annotations: str = ""
    part: Part | None = None


@dataclass(frozen=True)
class Layout:
    """A layout that a folder has: `mark` shows it, `splits` are its splits by name, `clashes` name two sources of one split."""

    format: str
    mark: str
    splits: Mapping[str, Place]
    clashes: tuple[str, ...] = ()


def below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


class Tree:
    """The names in the folders of a data set; each folder is listed at most once. What cannot be listed is empty.

    Hidden files and folders, whose names begin with a dot, do not count: macOS puts a `._a.xml` beside `a.xml`.
    """

    def __init__(self, root: Path | str):
        self.root = os.path.abspath(root)
        self._entries: dict[str, tuple[list[str], set[str]]] = {}

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """The names of the files in a folder, sorted."""
        return sorted(name for name in self._list(folder)[0] if name.endswith(suffix))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted."""
        return sorted(self._list(folder)[1])

    def has_folder(self, name: str) -> bool:
        parent, _, last = name.rpartition("/")
        return not name or last in self._list(parent)[1]

    def _list(self, folder: str) -> tuple[list[str], set[str]]:
        if folder not in self._entries:
            files: list[str] = []
            folders: set[str] = set()
            try:
                with os.scandir(f"{self.root}/{folder}") as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if _is_folder(entry):
                            folders.add(entry.name)
                        else:
                            files.append(entry.name)
            except (OSError, ValueError):
                pass
            self._entries[folder] = files, folders
        return self._entries[folder]

    def instances(self, folder: str) -> list[str]:
        """The names of the JSON files in a folder that look like COCO's instances files."""
        names = self.files(folder, ".json")
        return [name for name in names if self._looks_like_instances(below(folder, name))] if len(names) <= MOST_JSON else []

    def _looks_like_instances(self, name: str) -> bool:
        head = self.head(name)
        lists = re.search(rb'"(images|annotations|categories)"\s*:\s*\[', head)
        return bool(re.match(rb"(\xef\xbb\xbf)?\s*\{", head) and lists and not re.search(rb'"(items|shapes)"\s*:\s*\[', head))

    def has_annotations(self, folder: str) -> bool:
        """Whether a folder has annotations in VOC's format: one of its first XML files has VOC's root element."""
        names = self.files(folder, ".xml")[:MOST_XML]
        return any(re.search(rb"<annotation[\s>/]", self.head(below(folder, name))) for name in names)

    def head(self, name: str) -> bytes:
        """The beginning of a file; empty where it cannot be read."""
        path = f"{self.root}/{name}"
        try:
            with open_regular(path) as file:
                return file.read(SNIFFED)
        except OSError:
            return b""


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def find_layouts(root: Path | str) -> list[Layout]:
    """The layouts that a folder has. More than one is ambiguous. Never raises."""
    tree, layouts = Tree(root), []
    for kind in KINDS:
        splits: dict[str, Place] = {}
        clashes = []
        for split, place in kind.find(tree):
            if split in splits:
                clashes.append(f"split '{split}' is in {_source(splits[split])} and in {_source(place)}")
            images = tuple(folder for folder in place.images if tree.has_folder(folder)) or place.images[:1]
            splits.setdefault(split, replace(place, images=images))
        if splits:
            splits.pop(NO_SPLIT, None)
            layouts.append(Layout(kind.format, kind.mark, splits, tuple(clashes)))
    return layouts


def _source(place: Place) -> str:
    return place.index or f"the XML files of {place.annotations or 'the folder itself'}"


def divided(layout: Layout, fraction: float) -> Layout:
    """The layout whose only split is divided: `fraction` of its images are the split `test`, the others `train`."""
    (place,) = layout.splits.values()
    parts = {TRAIN: Part(fraction, False), TEST: Part(fraction, True)}
    return replace(layout, splits={**layout.splits, **{name: replace(place, part=part) for name, part in parts.items()}})


def coco_images(split: str, folder: str = "") -> tuple[str, ...]:
    """Where the images of COCO's instances file in `folder` may be."""
    around = (folder, *(below(folder, name) for name in IMAGE_FOLDERS)) if folder else ()
    of_split = (split, *(below(name, split) for name in IMAGE_FOLDERS), below(split, "images")) if split else ()
    return tuple(dict.fromkeys((*around, *of_split, *IMAGE_FOLDERS, "")))


def voc_list_name(split: str) -> str:
    return f"ImageSets/Main/{split}.txt"


def instances_name(split: str) -> str:
    return f"annotations/instances_{split}.json"


def _split_of(name: str) -> str:
    """The split that an instances file is of, by its name."""
    if name in WHOLE:
        return ALL
    return re.sub(r"^(instances|annotations)_(?=.)|(?<=.)(_annotations|_instances|[._]coco)$", "", name.removesuffix(".json"))


Splits = Iterator[tuple[str, Place]]


def _coco_annotations(tree: Tree) -> Splits:
    """annotations/instances_SPLIT.json, or where there is none, other names."""
    folder, prefix = "annotations", "instances_"
    usual = [name for name in tree.files(folder, ".json") if name.startswith(prefix) and name != f"{prefix}.json"]
    other = [] if usual else [name for name in tree.instances(folder) if not name.startswith(NOT_OBJECTS)]
    for name in usual or other:
        split = name[len(prefix):-len(".json")] if usual else _split_of(name)
        yield split, Place(below(folder, name), coco_images("" if split == ALL else split))


def _coco_root(tree: Tree) -> Splits:
    """SPLIT.json or one of WHOLE in the folder itself."""
    for name in tree.instances(""):
        split = _split_of(name)
        yield split, Place(name, coco_images("" if split == ALL else split))


def _coco_folders(tree: Tree) -> Splits:
    """SPLIT/_annotations.coco.json and the like: a folder per split."""
    for folder in _split_folders(tree):
        names = tree.instances(folder)
        for name in (name for name in WHOLE if name in names):
            yield folder.rpartition("/")[2], Place(below(folder, name), coco_images(folder.rpartition("/")[2], folder))


def _voc_lists(tree: Tree) -> Splits:
    """ImageSets/Main/SPLIT.txt."""
    if not tree.has_folder("ImageSets/Main"):
        return
    annotations = next(filter(tree.has_folder, XML_FOLDERS), XML_FOLDERS[0])
    names = {name.removesuffix(".txt") for name in tree.files("ImageSets/Main", ".txt")}
    # VOC has lists for each class too: cat_train.txt beside train.txt.
    names -= {name for name in names if name.rpartition("_")[2] in names and "_" in name}
    for split in sorted(names) or [NO_SPLIT]:
        yield split, Place(voc_list_name(split), IMAGE_FOLDERS, annotations)


def _voc_flat(tree: Tree) -> Splits:
    """XML files without ImageSets/Main: beside the images, or in a folder of their own, which may have a folder per split."""
    if tree.has_folder("ImageSets/Main"):
        return
    for annotations in _xml_folders(tree, ""):
        yield ALL, Place("", _voc_images(""), annotations)
        stems = {name.removesuffix(".xml") for name in tree.files(annotations, ".xml")}
        for lists in ("ImageSets", ""):
            names = [name.removesuffix(".txt") for name in tree.files(lists, ".txt")]
            for split in (name for name in names if name not in stems and not NO_LISTS.fullmatch(name)):
                yield split, Place(below(lists, f"{split}.txt"), _voc_images(""), annotations)
    for parent in XML_FOLDERS:
        mixed = tree.has_annotations(parent)  # in the folder itself and in folders in it: a clash
        for split in (name for name in tree.folders(parent) if tree.has_annotations(below(parent, name))):
            images = (*(below(folder, split) for folder in IMAGE_FOLDERS), below(parent, split), split, *IMAGE_FOLDERS)
            yield ALL if mixed else split, Place("", images, below(parent, split))


def _voc_folders(tree: Tree) -> Splits:
    """A folder per split, with its images and XML files."""
    for folder in _split_folders(tree):
        for annotations in _xml_folders(tree, folder):
            yield folder.rpartition("/")[2], Place("", _voc_images(folder), annotations)


def _split_folders(tree: Tree) -> list[str]:
    """Folders that may be splits: not those with a whole VOC data set in them."""
    of_root = [name for name in tree.folders("") if name not in NO_SPLITS]
    folders = [*of_root, *(below("images", name) for name in tree.folders("images"))]
    return [folder for folder in folders if "ImageSets" not in tree.folders(folder)]


def _xml_folders(tree: Tree, folder: str) -> list[str]:
    """The folders with XML files: `folder` itself, or one in it."""
    return [place for place in (folder, *(below(folder, name) for name in XML_FOLDERS)) if tree.has_annotations(place)]


def _voc_images(folder: str) -> tuple[str, ...]:
    return (*(below(folder, name) for name in IMAGE_FOLDERS), folder)


@dataclass(frozen=True)
class Kind:
    """A row of the table of layouts: its format, what marks it, which tools write it, and how its splits are found."""

    format: str
    mark: str
    tools: str
    find: Callable[[Tree], Iterable[tuple[str, Place]]]


# The table in docs/own-data.md has the same rows.
KINDS: Sequence[Kind] = (
    Kind(VOC, "ImageSets/Main/SPLIT.txt", "PASCAL VOC, CVAT, Datumaro", _voc_lists),
    Kind(VOC, "XML files without lists", "labelImg, Label Studio", _voc_flat),
    Kind(VOC, "SPLIT/*.xml", "Roboflow", _voc_folders),
    Kind(COCO, "annotations/instances_SPLIT.json", "COCO, CVAT, Datumaro, Ultralytics", _coco_annotations),
    Kind(COCO, "SPLIT.json", "Label Studio (result.json), FiftyOne (labels.json)", _coco_root),
    Kind(COCO, "SPLIT/_annotations.coco.json", "Roboflow", _coco_folders),
)
