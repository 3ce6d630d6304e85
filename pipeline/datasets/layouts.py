"""The layouts of data sets that are read: what marks each, its splits, and where their files are.

A layout belongs to one of three formats, which say what the annotations mean: VOC's XML files (`voc`), COCO's instances files
(`coco`) or YOLO's text files (`yolo`). Files and folders are named below the data set's folder, with `/` between folders; "" is
that folder itself.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.datasets import yolo_places
from pipeline.datasets.folder_tree import Tree, below

VOC, COCO, YOLO = "voc", "coco", "yolo"
ALL = "all"  # the split of a folder that has no lists
TRAIN, TEST = "train", "test"  # the parts of a split that --test-fraction divides
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "img", "data")
XML_FOLDERS = ("Annotations", "annotations", "annots", "xml", "xmls", "labels")
MASK_LISTS = "ImageSets/Segmentation"
# Folders that are no split of their own, whatever is in them.
NO_SPLITS = {*IMAGE_FOLDERS, *XML_FOLDERS, "ImageSets", "SegmentationClass", "SegmentationObject", "__MACOSX"}
# The names that tools give to the one instances file of a folder.
WHOLE = ("_annotations.coco.json", "result.json", "labels.json", "annotations.json", "instances.json", "coco.json")
# COCO's other files about the same images.
NOT_OBJECTS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
# Text files that tools put beside annotations and that are no lists of images.
NO_LISTS = re.compile(r"(?i)readme.*|licen[cs]e.*|requirements|notes?|(predefined_|obj_?)?(classes|names|labels?)|label_?map")
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
    looked for in the folders `images`, one after the other. `has_masks` says that each image of the list must have a class mask.

    In YOLO's layout `index` is the file that names the classes, and `sources` are folders of images and lists of them. `fault`
    says why the split cannot be read.
    """

    index: str
    images: tuple[str, ...]
    annotations: str = ""
    part: Part | None = None
    sources: tuple[str, ...] = ()
    fault: str = ""
    has_masks: bool = False


@dataclass(frozen=True)
class Layout:
    """A layout that a folder has: `mark` shows it, `splits` are its splits by name, `clashes` name two sources of one split.

    `fault` says why no split can be read.
    """

    format: str
    mark: str
    splits: Mapping[str, Place]
    clashes: tuple[str, ...] = ()
    fault: str = ""

    @property
    def main_splits(self) -> list[str]:
        """The names of the splits, sorted, without VOC's lists for each class, such as cat_train beside train."""
        return sorted(name for name in self.splits if "_" not in name or name.rpartition("_")[2] not in self.splits)


def find_layouts(root: Path | str, masks: bool = False) -> list[Layout]:
    """The layouts that a folder has. More than one is ambiguous. Never raises.

    With `masks`, the lists of images with class masks count: they replace lists of the same name.
    """
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
            without = splits.pop(NO_SPLIT, None)
            layouts.append(Layout(kind.format, kind.mark, splits, tuple(clashes), without.fault if without else ""))
    # A YAML file that cannot be read may have nothing to do with a data set beside it.
    layouts = [layout for layout in layouts if not layout.fault] or layouts
    return _with_mask_lists(layouts, tree) if masks else layouts


def _with_mask_lists(layouts: list[Layout], tree: Tree) -> list[Layout]:
    """The layouts with the splits of ImageSets/Segmentation, which come before those of VOC's other layouts."""
    names = [name.removesuffix(".txt") for name in tree.files(MASK_LISTS, ".txt")]
    if not names:
        return layouts
    annotations = next(filter(tree.has_folder, XML_FOLDERS), XML_FOLDERS[0])
    images = tuple(filter(tree.has_folder, IMAGE_FOLDERS)) or IMAGE_FOLDERS[:1]
    lists = {name: Place(below(MASK_LISTS, f"{name}.txt"), images, annotations, has_masks=True) for name in names}
    of_boxes = next((layout.splits for layout in layouts if layout.mark == KINDS[0].mark), {})
    others = [layout for layout in layouts if layout.format != VOC]
    return [Layout(VOC, f"{MASK_LISTS}/SPLIT.txt", {**of_boxes, **lists}), *others]


def _source(place: Place) -> str:
    return place.index or f"the XML files of {place.annotations or 'the folder itself'}"


def divided(layout: Layout, fraction: float) -> Layout:
    """The layout whose only split is divided: `fraction` of its images are the split `test`, the others `train`."""
    place = layout.splits[layout.main_splits[0]]
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
    prefixed = [name for name in tree.files(folder, ".json") if name.startswith(prefix) and name != f"{prefix}.json"]
    unprefixed = [name for name in tree.instances(folder) if not name.startswith(NOT_OBJECTS)] if not prefixed else []
    for name in prefixed or unprefixed:
        split = name[len(prefix):-len(".json")] if prefixed else _split_of(name)
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
    names = [name.removesuffix(".txt") for name in tree.files("ImageSets/Main", ".txt")]
    for split in names or [NO_SPLIT]:
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


def _yolo(find: Callable) -> Callable[[Tree], Splits]:
    """What a function of `yolo_places` finds, as places."""
    def find_places(tree: Tree) -> Splits:
        for split, index, sources, fault in find(tree):
            yield split, Place(index, (), sources=sources, fault=fault)
    return find_places


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
    Kind(YOLO, "data.yaml", "Ultralytics, Roboflow, CVAT, FiftyOne, Datumaro", _yolo(yolo_places.by_yaml)),
    Kind(YOLO, "obj.data", "CVAT, Darknet", _yolo(yolo_places.by_darknet)),
    Kind(YOLO, "classes.txt", "Label Studio, labelImg", _yolo(yolo_places.by_classes)),
)
