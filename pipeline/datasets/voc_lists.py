"""The ids of a split in VOC's format: from a list, or from a folder's XML files where there is no list.

An id is a file's name without suffix, perhaps with folders before it. What tools and people write instead is understood: a
suffix, `./`, backslashes between folders, the folder of the images, quotes around a name.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from pipeline.datasets.faults import Faults
from pipeline.datasets.folder_tree import below
from pipeline.datasets.layouts import IMAGE_FOLDERS, XML_FOLDERS, Place
from pipeline.datasets.reading import IMAGE_SUFFIXES, Listing, tidied

MARKS = ("-1", "0", "1")  # second column of a list for one class: whether the image has it
SUFFIXES = (*IMAGE_SUFFIXES, ".xml")
USUAL = re.compile(r"[\w-]+")  # an id that can be nothing else


def parse_list(path: Path, content: bytes, exists: Callable[[str], bool], faults: Faults) -> list[str]:
    """The ids of a list file, in its order. `exists` says whether there is an annotation or an image of an id."""
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        faults.error("lists that are no text", f"{path}: not UTF-8 text ({error})", "save it as UTF-8")
        return []
    rows = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not rows:
        faults.error("empty lists", f"{path}: lists no image", "put one image id on each line")
        return []
    marked = (line.split()[1:] for _, line in rows)
    if all(len(rest) == 1 and rest[0] in MARKS for rest in marked) and not any(exists(line) for _, line in rows):
        # Taking the ids and not the column would silently train on images without the class.
        message = f"{path}: a list for one class (its second column says which images have it)"
        faults.error("lists for one class", message, "use one with ids alone")
        return []
    seen: dict[str, int] = {}
    for number, line in rows:
        where = f"{path}: line {number}:"
        names = [line] if USUAL.fullmatch(line) else _names_of(line)
        id = names[0] if len(names) == 1 else next(filter(exists, names), names[-1] if names else "")
        if not names:
            message = f"{where} id '{line}' leads out of the folder"
            faults.error("ids that lead out of the folder", message, "expected a file name without suffix")
        elif len(columns := line.split()) > 1 and not exists(id):
            message = f"{where} '{line}' has {len(columns)} columns, and no file has this name"
            faults.error("lines of several columns", message, "expected one id alone")
        elif id in seen:
            faults.error("repeated ids", f"{where} id '{id}' is on line {seen[id]} already", "remove one of them")
        else:
            seen[id] = number
    return list(seen)


def _names_of(line: str) -> list[str]:
    """The ids that a line of a list can mean, as written first; none where it leads out of the folder."""
    quoted = [line[1:-1]] if len(line) > 2 and line[0] == line[-1] and line[0] in "\"'" else []
    names = [name for text in (line, *quoted) if (name := tidied(text))]
    for name in tuple(names):
        folder, _, rest = name.partition("/")
        names += [rest] if rest and folder in (*IMAGE_FOLDERS, *XML_FOLDERS) else []
    names += [stem for stem, suffix in map(os.path.splitext, names) if suffix in SUFFIXES]
    return names


def ids_of_folder(root: Path, place: Place, files: Listing, faults: Faults) -> tuple[list[str], list[str]]:
    """The ids of the XML files in a folder, sorted, and the names of the images beside theirs that have none.

    An image without an annotation may show no object, or nobody looked at it yet: it is left out, and told.
    """
    ids = sorted(name.removesuffix(".xml") for name in files.files(place.annotations) if name.endswith(".xml") and name[0] != ".")
    annotated, others = set(ids), []
    for folder in place.images:
        images = sorted(name for name in files.files(folder) if name.endswith(IMAGE_SUFFIXES) and name[0] != ".")
        unknown = [name for name in images if os.path.splitext(name)[0] not in annotated]
        if len(unknown) < len(images):
            others += [below(folder, name) for name in unknown]
    advice = "they are left out; if they show no object, save an annotation without objects for each"
    for name in others:
        faults.note("images without an annotation", f"{root / name}: has no annotation in {root / place.annotations}", advice)
    return ids, others
