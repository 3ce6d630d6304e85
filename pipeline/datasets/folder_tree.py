"""What is in the folders of a data set, and what its files look like at their beginning."""

import os
import re
from pathlib import Path

from pipeline.files.reading import open_regular

SNIFFED = 1 << 16  # bytes at the start of a file that show what it is: one of COCO's lists begins there
OBJECT = re.compile(rb"(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*\{")  # JSON's, perhaps behind a mark of its encoding
LISTS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
OTHER_LISTS = re.compile(rb'"(items|shapes)"\s*:\s*\[')  # of Datumaro and LabelMe
MOST_JSON = 50  # more JSON files in one folder are one an image, as LabelMe's
NOTES = "notes.json"  # Label Studio's, beside YOLO's files: it names the classes
MOST_XML = 20  # so many of a folder's XML files are looked at


def below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


class Tree:
    """The names in the folders of a data set; each folder is listed at most once. What cannot be listed is empty.

    Hidden files and folders, whose names begin with a dot, do not count: macOS puts a `._a.xml` beside `a.xml`.
    """

    def __init__(self, root: Path | str):
        self.root = os.path.abspath(root)
        self._entries: dict[str, tuple[list[str], set[str]]] = {}
        self._files: dict[str, frozenset[str]] = {}

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """The names of the files in a folder, sorted."""
        return sorted(name for name in self._list(folder)[0] if name.endswith(suffix))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted."""
        return sorted(self._list(folder)[1])

    def has_folder(self, name: str) -> bool:
        parent, _, last = name.rpartition("/")
        return not name or last in self._list(parent)[1]

    def has_file(self, name: str) -> bool:
        folder, _, last = name.rpartition("/")
        if folder not in self._files:
            self._files[folder] = frozenset(self._list(folder)[0])
        return last in self._files[folder]

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
        names = [name for name in self.files(folder, ".json") if name != NOTES]
        return [name for name in names if self._looks_like_instances(below(folder, name))] if len(names) <= MOST_JSON else []

    def _looks_like_instances(self, name: str) -> bool:
        head = self.head(name)
        has_lists, is_other = LISTS.search(head), OTHER_LISTS.search(head)
        return bool(OBJECT.match(head) and has_lists and not is_other)

    def has_annotations(self, folder: str) -> bool:
        """Whether a folder has annotations in VOC's format: one of its first XML files has VOC's root element."""
        names = self.files(folder, ".xml")[:MOST_XML]
        return any(re.search(rb"<annotation[\s>/]", self.head(below(folder, name))) for name in names)

    def head(self, name: str) -> bytes:
        """The beginning of a file, of UTF-16 without its zeros; empty where it cannot be read."""
        path = f"{self.root}/{name}"
        try:
            with open_regular(path) as file:
                return file.read(SNIFFED).replace(b"\0", b"")
        except OSError:
            return b""


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
