"""Which images a user means by `--images`, and the digests of their files."""

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

# Files that count as images in a folder. Formats that cannot be read (HEIC, TIFF) are reported, not skipped.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
DRAWN_AS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")  # pictures can be saved in these formats
# Limits of a whole path and of one name in it. A path, with the folders above, may have 4096 bytes on Linux and 1024 on macOS; a
# name may have 255.
MOST_BYTES, MOST_PART_BYTES, KEPT_BYTES = 700, 255, 150
IRREGULAR = "no regular file"  # instead of a digest: a named pipe, a device, or a link to one
WHAT = "give a folder, an image, or a pattern in quotes such as 'photos/*.jpg'"


def find_images(text: str) -> dict[str, Path]:
    """The images that `text` names, by their names relative to the folder, or to the fixed part of a pattern.

    In folders and their subfolders, files with one of SUFFIXES count, except hidden ones, whose names begin with a dot. Raises
    PipelineError when there is no image, or a folder cannot be read.
    """
    path = Path(text).expanduser()
    if text and path.is_dir():
        root, files = path, _in_folder(path)
    elif text and os.path.lexists(path):
        return _by_text({path.name: path})
    else:
        root = Path(*takewhile(lambda part: not re.search(r"[*?[]", part), path.parts))
        matches = map(Path, glob.glob(str(path), recursive=True)) if text else []
        files = [file for match in matches for file in (_in_folder(match) if match.is_dir() else [match])]
    if not files:
        raise PipelineError(f"--images {text}: no file there; {WHAT}")
    images = {_name(file, root): file for file in files if file.suffix.lower() in SUFFIXES}
    if not images:
        raise PipelineError(f"--images {text}: no image among {len(files)} file(s); expected {', '.join(SUFFIXES)}")
    return dict(sorted(_by_text(images).items()))


def _in_folder(folder: Path) -> list[Path]:
    def fail(error: OSError):
        raise PipelineError(f"--images: folder {error.filename} cannot be read ({error.strerror}); change its permissions")

    files = []
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place) / name for name in names if not name.startswith(".")]
    return files


def _name(file: Path, root: Path) -> str:
    name = Path(os.path.relpath(file, root)).as_posix()
    if name.startswith("../"):
        raise PipelineError(f"--images: {file} is not below {root}; write a pattern without '..' after its first wildcard")
    return name


def _by_text(images: dict[str, Path]) -> dict[str, Path]:
    """The same files, by names that can be written to results: bytes that are not text become escapes."""
    by_text = {}
    for name in sorted(images, key=lambda name: (not _is_text(name), name)):
        by_text[_unused(name.encode(errors="backslashreplace").decode(), by_text)] = images[name]
    return by_text


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _unused(name: str, used: Container[str]) -> str:
    """`name`; if it is used already, with a number before its suffix."""
    stem, suffix = os.path.splitext(name)
    numbered = (f"{stem}-{number}{suffix}" for number in count(2))
    return name if name not in used else next(candidate for candidate in numbered if candidate not in used)


def picture_names(images: Sequence[str]) -> list[str]:
    """The file name of each image's picture: the image's name, with a suffix of DRAWN_AS.

    A name that is too long for a file system is cut, and ends with a digest of the whole name. A name that is used already gets a
    number.
    """
    keeps_suffix = {image: os.path.splitext(image)[1].lower() in DRAWN_AS for image in images}
    used, names = set(), {}
    for image in sorted(images, key=lambda image: not keeps_suffix[image]):  # those that keep their suffix keep their name
        name = _unused(_cut(image if keeps_suffix[image] else f"{image}.jpg"), used)
        names[image] = name
        used |= {name, *map(str, PurePosixPath(name).parents)}
    return [names[image] for image in images]


def _cut(name: str) -> str:
    if len(name.encode()) <= MOST_BYTES and all(len(part.encode()) <= MOST_PART_BYTES for part in name.split("/")):
        return name
    stem, suffix = os.path.splitext(name.rpartition("/")[2])
    kept = stem.encode()[:KEPT_BYTES].decode(errors="ignore")
    return f"{kept}-{digest_json(name)[:16]}{suffix}"


class IndexImages(Stage):
    """The names of the user's images and the digests of their files."""

    computes = False
    resolved = ("images",)

    images = parameters.text("", "detect", "images", f"images to detect in: {WHAT}")

    @cached_property
    def files(self) -> dict[str, Path]:
        return find_images(self.images)

    def digests(self) -> dict[str, str]:
        """The digest of each image's file as it is now, by the image's name.

        MISSING for a file that cannot be read; IRREGULAR for something that is not a regular file and so is not opened.
        """
        digests = self.digest_memory.of(self.files.values())
        irregular = {path for path, digest in digests.items() if digest == MISSING and path.exists() and not is_regular(path)}
        return {name: IRREGULAR if path in irregular else digests[path] for name, path in self.files.items()}

    def resolve(self) -> dict:
        return {"images": len(self.files), "digest": digest_json(self.digests())}

    def records(self) -> list:
        """One ImageRecord per image, without size and objects."""
        import numpy as np

        from pipeline.datasets.records import ImageRecord

        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        return [ImageRecord(name, name, digest, 0, 0, *nothing) for name, digest in self.digests().items()]

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.records import Split

        split = Split("photographs", (), tuple(self.records()))
        write_index(workshop.files / "index.json", split)
        return {"images": len(split.images)}
