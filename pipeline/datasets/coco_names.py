"""Ids and file names in COCO's instances files: what they mean to us, and how they are written, so that results say the same.

An id is a whole number, or a text where a tool writes texts. 3.0 and "3" are 3; "003" and "a" stay texts.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import unquote

from pipeline.datasets.faults import Faults
from pipeline.datasets.folder_tree import below
from pipeline.datasets.layouts import Place
from pipeline.datasets.reading import tidied
from pipeline.datasets.records import CocoNames
from pipeline.text import shown

# What a path of another machine begins with: the root, a drive, an address, or folders above.
ELSEWHERE = re.compile(r"(\w+:)?[/\\]+|(\.\.?[/\\])+(?!.*\.\.[/\\])")
USUAL = re.compile(r"\w[\w.-]*", re.ASCII)  # a file's name that can mean nothing else
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


def to_id(value) -> int | str | None:
    """The id that a value of JSON stands for; None for what can be none."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip():
        return int(value) if WHOLE.fullmatch(value) else value
    return None


def emptied(entries: list) -> Iterator:
    """The entries of a list, each removed from it when taken: what is made of them needs the memory."""
    entries.reverse()
    while entries:
        yield entries.pop()


def with_ids(where: str, entries: Iterable, faults: Faults, differ: bool = False) -> Iterator[tuple[int | str, dict]]:
    """The entries of a list with their ids; missing and repeated ids go to `faults`.

    With `differ` the ids are known to be different: a set of them takes more memory than the columns.
    """
    seen = set()
    for number, entry in enumerate(entries, 1):
        value = entry.get("id") if isinstance(entry, dict) else None
        id = to_id(value)
        if id is None:
            message = f"{where}: entry {number} has the id {shown(value)}"
            faults.error("entries without an id", message, "expected an object with a whole number or a text")
        elif id in seen:
            faults.error("repeated ids", f"{where}: entry {number} has the id {id}, as an entry before it", "make them differ")
        else:
            if not differ:
                seen.add(id)
            yield id, entry


def find_file(place: Place, name, find: Callable[[list[str]], str | None]) -> tuple[str | None, bool]:
    """The file of an image with this `file_name`, below the data set's folder, and whether it is where the name says.

    `find` gives the first file of a list that exists. A file that is not where the name says is looked for by the last part of
    its name in the folders of images: tools write folders of their own machines. None where the name leads out of the data set's
    folder, or is no name at all, and no such file is found.
    """
    if not isinstance(name, str):
        return None, False
    inside = [below(folder, variant) for variant in _variants(name) for folder in place.images]
    if file := find(inside):
        return file, True
    last = re.split(r"[/\\]", name)[-1]
    elsewhere = last != name and (inside or ELSEWHERE.match(name))
    if elsewhere and (file := find([below(folder, variant) for variant in _variants(last) for folder in place.images])):
        return file, False
    return (inside[0] if inside else None), True


def _variants(name: str) -> list[str]:
    """The name with `/` between folders, and as other systems write it; none where it leads out of the folder."""
    if USUAL.fullmatch(name):
        return [name]
    names = [name] if name.isascii() else [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    names += [unquote(name)] if "%" in name else []
    return list(dict.fromkeys(tidy for name in names if (tidy := tidied(name))))


class FileIds:
    """The ids and names in an instances file while it is read, as they are written there.

    With a divided split, the images of the other part are `elsewhere`.
    """

    def __init__(self, place: Place):
        self._part = place.part
        self._chosen: set[str] = set()
        self._images: list[int | str] = []
        self._names: list[str] = []
        self._categories: dict[int | str, tuple[int | str, str]] = {}
        self._objects: Counter = Counter()
        self.elsewhere: set[int | str] = set()

    def choose(self, entries: Iterable) -> None:
        """Chooses the images of the part, where the split is divided."""
        self._chosen = set(self._part.choose(names_of(entries))) if self._part else set()

    def leaves_out(self, id: int | str, name) -> bool:
        """Whether an image belongs to the other part; the image is remembered."""
        if self._part is None or name in self._chosen:
            return False
        self.elsewhere.add(id)
        return True

    def add_image(self, id: int | float | str, name) -> None:
        self._images.append(_written(id))
        self._names.append(name)

    def add_category(self, id: int | str, written: int | float | str, name: str) -> None:
        self._categories[id] = _written(written), name

    def count_object(self, category: int | str | None) -> None:
        self._objects[category] += 1

    def names(self, classes: Sequence[str]) -> CocoNames:
        """What the file calls the images and these classes.

        Of several categories of one name it is the one with the most objects, the first of them where equal. A class that the
        file does not have gets a number that it does not use.
        """
        best: dict[str, int | str] = {}
        for id, (_, name) in self._categories.items():
            if name not in best or self._objects[id] > self._objects[best[name]]:
                best[name] = id
        unused = max((id for id in self._categories if isinstance(id, int)), default=0) + 1
        categories = []
        for name in classes:
            categories.append(self._categories[best[name]][0] if name in best else unused)
            unused += name not in best
        return CocoNames(tuple(self._images), tuple(self._names), tuple(categories))


def names_of(entries: Iterable) -> list[str]:
    """The names of the files of a list of images."""
    return [name for entry in entries if isinstance(entry, dict) and isinstance(name := entry.get("file_name"), str)]


def _written(id: int | float | str) -> int | str:
    """An id as it is written in the file; 3.0 as 3, which is equal in JSON."""
    return int(id) if isinstance(id, float) else id
