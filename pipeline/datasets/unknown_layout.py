"""What to tell the user whose folder is in no layout that is read: what was found, and what it looks like."""

import contextlib
import difflib
import os
import re
from collections import Counter
from pathlib import Path

from pipeline.datasets.folder_tree import Tree, below
from pipeline.datasets.layouts import KINDS, MASK_LISTS, find_layouts
from pipeline.datasets.masks import MASK_FOLDERS

EXPORT = "which is not read; export it in COCO's or PASCAL VOC's format"
YOLO = "this looks like YOLO's layout, but no file names its classes; add data.yaml, or classes.txt with one name a line"
MASKS = (
    f"it has class masks and no boxes: use it with the chains of segmentation (its lists are in {MASK_LISTS}), or add boxes in "
    "Annotations/ and lists in ImageSets/Main"
)
MASKS_ALONE = f"it has class masks and no list of its images: write ids into {MASK_LISTS}/train.txt and test.txt, one a line"
MOST_NAMES = 8
MOST_FOLDERS = 50  # folders that are looked into
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def describe(root: Path, masks: bool = False) -> str:
    """Why there is no data set in the folder `root`, on one line; with `masks`, why none for segmentation."""
    if not os.path.lexists(root):
        expected = "expected a folder in VOC's, COCO's or YOLO's layout, or the name of a data set"
        return f"{root}: no such folder{_nearest(root)}; {expected}"
    if not root.is_dir():
        return f"{root}: is a file; give the folder of the data set"
    tree = Tree(root)
    layouts = f"expected {', '.join(kind.mark for kind in KINDS)} (docs/own-data.md shows where images belong)"
    message = f"{root}: no data set in a layout that is read; found {_found(tree)}"
    if inner := next((name for name in _inner(tree) if find_layouts(Path(root, name))), None):
        return f"{message}; there is one in its folder {inner}: give {root / inner}"
    guess = MASKS_ALONE if masks and _only_masks(tree, {}) else _guess(tree)
    return f"{message}; {guess}; {layouts}" if guess else f"{message}; {layouts}"


def _nearest(root: Path) -> str:
    """The folder beside `root` whose name is most like its name, as a question."""
    beside: list[str] = []
    with contextlib.suppress(OSError):  # no such folder either, or one that cannot be read: there is no advice
        beside = [entry.name for entry in os.scandir(root.parent) if entry.is_dir()]
    nearest = difflib.get_close_matches(root.name, beside, n=1, cutoff=0.7)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _inner(tree: Tree) -> list[str]:
    """The folders in the folder, and the folders in those."""
    folders = tree.folders("")[:MOST_FOLDERS]
    return folders + [below(folder, name) for folder in folders for name in tree.folders(folder)[:MOST_FOLDERS]]


def _found(tree: Tree) -> str:
    """The folders with what they and their folders hold, and the files by their suffixes."""
    parts = []
    for name in tree.folders(""):
        inside = [file for folder in ("", *tree.folders(name)) for file in tree.files(below(name, folder))]
        parts.append(f"{name}/ ({_counts(inside) or 'no files'})")
    files = _counts(tree.files(""))
    parts = [*parts[:MOST_NAMES], *(["..."] if len(parts) > MOST_NAMES else []), *([files] if files else [])]
    return ", ".join(parts) or "nothing: the folder is empty"


def _counts(names: list[str]) -> str:
    counts = Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in names if not name.startswith("."))
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(4))


def _guess(tree: Tree) -> str | None:
    """What the folder looks like, and what to do; None where it looks like nothing known."""
    files = {folder: tree.files(folder) for folder in ("", *_inner(tree))}
    for is_it, what in GUESSES:
        if is_it(tree, files):
            return what
    return None


def _named(pattern: str):
    """Whether a file has such a name."""
    return lambda tree, files: any(re.fullmatch(pattern, name) for names in files.values() for name in names)


def _json(pattern: bytes):
    """Whether the first JSON file of a folder has such a beginning."""
    def test(tree: Tree, files: dict[str, list[str]]) -> bool:
        first = [below(folder, name) for folder, names in files.items() for name in names if name.endswith(".json")][:20]
        return any(re.search(pattern, tree.head(name)) for name in first)
    return test


def _is_yolo(tree: Tree, files: dict[str, list[str]]) -> bool:
    """A text file beside each image, or in a folder `labels`; or the files that name classes."""
    texts = {os.path.splitext(name)[0] for names in files.values() for name in names if name.endswith(".txt")}
    pictures = {os.path.splitext(name)[0] for names in files.values() for name in names if name.lower().endswith(PICTURES)}
    labels = (names for folder, names in files.items() if "labels" in folder.split("/"))
    return bool(texts & pictures) or any(name.endswith(".txt") for names in labels for name in names)


def _only_pictures(tree: Tree, files: dict[str, list[str]]) -> bool:
    names = [name.lower() for names in files.values() for name in names]
    return bool(names) and all(name.endswith((*PICTURES, ".txt")) for name in names)


def _only_masks(tree: Tree, files: dict[str, list[str]]) -> bool:
    return bool(tree.files(MASK_LISTS, ".txt") or tree.files(MASK_FOLDERS["class_mask"], ".png"))


GUESSES = (
    (_only_masks, MASKS),
    (_is_yolo, YOLO), (_named(r"obj\.(data|names)|(data|dataset)\.ya?ml"), YOLO),
    (_named(r"annotations\.xml"), f"this looks like CVAT's own format (annotations.xml), {EXPORT}"),
    (_json(rb'"(shapes|imageData)"\s*:'), f"this looks like LabelMe's format (a JSON file per image), {EXPORT}"),
    (_json(rb'"items"\s*:\s*\['), f"this looks like Datumaro's own format, {EXPORT}"),
    (_json(rb'^\s*\[\s*\{'), f"this looks like Label Studio's own or another tool's JSON, {EXPORT}"),
    (_json(rb'"regions"\s*:'), f"this looks like the VGG Image Annotator's format, {EXPORT}"),
    (_named(r".*\.tfrecords?"), f"these look like TensorFlow's records, {EXPORT}"),
    (_named(r".*\.csv"), f"this looks like a table of boxes (CSV), {EXPORT}"),
    (_named(r".*\.(zip|tar|tgz|tar\.gz|7z|rar)"), "unpack the archive and give the folder with its content"),
    (_only_pictures, "there are images but no annotations; add XML files in VOC's format or a JSON file in COCO's"),
)
