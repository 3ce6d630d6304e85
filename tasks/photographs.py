"""Which images a user means by `--images`, and what is in them."""

import glob
import os
import re
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import is_regular
from tasks import parameters
from tasks.artefacts import Workshop
from tasks.cache import CachedTask
from tasks.digests import MISSING, canonical_json, digest_json

# What counts as an image in a folder. Those that cannot be read (HEIC, TIFF) are told of, not passed over.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
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
        return {path.name: path}
    else:
        root = Path(*takewhile(lambda part: not re.search(r"[*?[]", part), path.parts))
        matches = map(Path, glob.glob(str(path), recursive=True)) if text else []
        found = [file for match in matches for file in (_in_folder(match) if match.is_dir() else [match])]
    if not found:
        raise PipelineError(f"--images {text}: no file there; {WHAT}")
    images = {_name(file, root): file for file in found if file.suffix.lower() in SUFFIXES}
    if not images:
        raise PipelineError(f"--images {text}: no image among {len(found)} file(s); expected {', '.join(SUFFIXES)}")
    return dict(sorted(images.items()))


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
    return name.encode(errors="backslashreplace").decode()  # bytes that are no text cannot be written to results


class IndexImages(CachedTask):
    """The names of a user's images and the digests of their files."""

    numeric = False
    outside = ("images",)

    images = parameters.text("", "detect", "images", f"images to detect in: {WHAT}")

    @cached_property
    def files(self) -> dict[str, Path]:
        return find_images(self.images)

    def digests(self) -> dict[str, str]:
        """The digest of each image's file, as it is now, by the image's name.

        MISSING for one that cannot be read, IRREGULAR for what is there and no file, which is not opened.
        """
        regular = {path for path in self.files.values() if is_regular(path)}
        # What is remembered of a file does not tell whether it may still be read.
        digests = self.outside_memory.of(path for path in self.files.values() if path in regular and os.access(path, os.R_OK))
        others = {path: IRREGULAR for path in self.files.values() if path not in regular and os.path.exists(path)}
        return {name: digests.get(path) or others.get(path, MISSING) for name, path in self.files.items()}

    def outside_digests(self) -> dict:
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
        (workshop.files / "index.json").write_text(canonical_json(split.to_json()) + "\n")
        return {"images": len(split.images)}
