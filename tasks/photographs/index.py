"""Which images a user means by `--images`, and what is in them."""

import glob
import os
import re
from collections.abc import Container, Sequence
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from pipeline.files.reading import is_regular
from tasks.data.splits import write_index
from tasks.engine import parameters
from tasks.engine.digests import MISSING, digest_json
from tasks.engine.workshop import Workshop
from tasks.stage import Stage

# What counts as an image in a folder. Those that cannot be read (HEIC, TIFF) are told of, not passed over.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
DRAWN_AS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")  # pictures are saved by their names as well
# Of a path and of a name in it: Linux and macOS take 4096 (with the folders above) or 1024, and 255.
MOST_BYTES, MOST_PART_BYTES, KEPT_BYTES = 700, 255, 150
IRREGULAR = "no regular file"  # in a digest's place: a named pipe, a device, or a link to one
WHAT = "give a folder, an image, or a pattern in quotes such as 'photos/*.jpg'"


def find_images(text: str) -> dict[str, Path]:
    """The images that `text` names, by their names below the folder given or below the fixed part of a pattern.

    Of folders those with one of SUFFIXES, in subfolders too; not what is hidden, as its name begins with a dot. Raises
    PipelineError when there is none, or a folder cannot be read.
    """
    path = Path(text).expanduser()
    if text and path.is_dir():
        root, found = path, _in_folder(path)
    elif text and os.path.lexists(path):
        return _by_text({path.name: path})
    else:
        root = Path(*takewhile(lambda part: not re.search(r"[*?[]", part), path.parts))
        matches = map(Path, glob.glob(str(path), recursive=True)) if text else []
        found = [file for match in matches for file in (_in_folder(match) if match.is_dir() else [match])]
    if not found:
        raise PipelineError(f"--images {text}: no file there; {WHAT}")
    images = {_name(file, root): file for file in found if file.suffix.lower() in SUFFIXES}
    if not images:
        raise PipelineError(f"--images {text}: no image among {len(found)} file(s); expected {', '.join(SUFFIXES)}")
    return dict(sorted(_by_text(images).items()))


def _in_folder(folder: Path) -> list[Path]:
    def fail(error: OSError):
        raise PipelineError(f"--images: folder {error.filename} cannot be read ({error.strerror}); change its permissions")

    found = []
    for inside, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(inside) / name for name in names if not name.startswith(".")]
    return found


def _name(file: Path, root: Path) -> str:
    name = Path(os.path.relpath(file, root)).as_posix()
    if name.startswith("../"):
        raise PipelineError(f"--images: {file} is not below {root}; write a pattern without '..' behind its first wildcard")
    return name


def _by_text(images: dict[str, Path]) -> dict[str, Path]:
    """The same files by names that can be written to results: bytes that are no text are told by their numbers."""
    named = {}
    for name in sorted(images, key=lambda name: (not _is_text(name), name)):
        named[_another(name.encode(errors="backslashreplace").decode(), named)] = images[name]
    return named


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _another(name: str, taken: Container[str]) -> str:
    """`name`, or if it is taken one with a number before its suffix."""
    stem, suffix = os.path.splitext(name)
    numbered = (f"{stem}-{number}{suffix}" for number in count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def picture_names(images: Sequence[str]) -> list[str]:
    """Where the picture of each image goes: by the image's name, in a format of DRAWN_AS.

    A name that a file system does not take is cut, and ends with a digest of the whole; one that another image has gets a number.
    """
    is_drawn = {image: os.path.splitext(image)[1].lower() in DRAWN_AS for image in images}
    taken, names = set(), {}
    for image in sorted(images, key=lambda image: not is_drawn[image]):  # who has a suffix of its own keeps its name
        name = _another(_cut(image if is_drawn[image] else f"{image}.jpg"), taken)
        names[image] = name
        taken |= {name, *map(str, PurePosixPath(name).parents)}
    return [names[image] for image in images]


def _cut(name: str) -> str:
    if len(name.encode()) <= MOST_BYTES and all(len(part.encode()) <= MOST_PART_BYTES for part in name.split("/")):
        return name
    stem, suffix = os.path.splitext(name.rpartition("/")[2])
    kept = stem.encode()[:KEPT_BYTES].decode(errors="ignore")
    return f"{kept}-{digest_json(name)[:16]}{suffix}"


class IndexImages(Stage):
    """The names of a user's images and the digests of their files."""

    computes = False
    resolved = ("images",)

    images = parameters.text("", "detect", "images", f"images to detect in: {WHAT}")

    @cached_property
    def files(self) -> dict[str, Path]:
        return find_images(self.images)

    def digests(self) -> dict[str, str]:
        """The digest of each image's file, as it is now, by the image's name.

        MISSING for one that cannot be read, IRREGULAR for what is there and no file, which is not opened.
        """
        digests = self.digest_memory.of(self.files.values())
        irregular = {path for path, digest in digests.items() if digest == MISSING and path.exists() and not is_regular(path)}
        return {name: IRREGULAR if path in irregular else digests[path] for name, path in self.files.items()}

    def resolve(self) -> dict:
        return {"images": len(self.files), "digest": digest_json(self.digests())}

    def records(self) -> list:
        """One ImageRecord an image, without size and objects."""
        import numpy as np

        from pipeline.datasets.records import ImageRecord

        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        return [ImageRecord(name, name, digest, 0, 0, *nothing) for name, digest in self.digests().items()]

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.records import Split

        split = Split("photographs", (), tuple(self.records()))
        write_index(workshop.files / "index.json", split)
        return {"images": len(split.images)}
