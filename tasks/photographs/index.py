"""Which images a user means by `--images`, and the digests of their files."""

import glob
import math
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
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")  # count if --every is given
DRAWN_AS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")  # pictures can be saved in these formats
# Limits of a whole path and of one name in it. A path, with the folders above, may have 4096 bytes on Linux and 1024 on macOS; a
# name may have 255.
MOST_BYTES, MOST_PART_BYTES, KEPT_BYTES = 700, 255, 150
IRREGULAR = "no regular file"  # instead of a digest: a named pipe, a device, or a link to one
WHAT = "give a folder, an image, or a pattern in quotes such as 'photos/*.jpg'"


def find_images(text: str, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """The images that `text` names, by their names relative to the folder, or to the fixed part of a pattern.

    In folders and their subfolders, files with one of `suffixes` count, except hidden ones, whose names begin with a dot. Raises
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
        raise PipelineError(f"--images {text}: no file there; {WHAT}" if text else f"--images is missing; {WHAT}")
    images = {_name(file, root): file for file in files if file.suffix.lower() in suffixes}
    if not images:
        videos = "; to detect in videos, add --every 10" if any(map(is_video, files)) else ""
        raise PipelineError(f"--images {text}: no image among {len(files)} file(s); expected {', '.join(suffixes)}{videos}")
    return dict(sorted(_by_text(images).items()))


def is_video(file: Path | str) -> bool:
    return Path(file).suffix.lower() in VIDEO_SUFFIXES


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


def frame_name(video: str, number: int) -> str:
    return f"{video}/{number:06d}.jpg"


def frame_number(image: str) -> int:
    """The number of a frame; 0 for a video of which the index could read none."""
    return 0 if is_video(image) else int(PurePosixPath(image).stem)


def frame_digest(digest: str, number: int) -> str:
    """The digest of a frame, from that of its video's file."""
    return digest_json({"video": digest, "frame": number})


class IndexImages(Stage):
    """The names of the user's images and the digests of their files."""

    computes = False
    resolved = ("images", "every")

    images = parameters.text("", "detect", "images", f"images to detect in: {WHAT}")
    every = parameters.integer(
        0, "detect", "every", "of video files, the first frame and every n-th after it are images too; 0: videos are left out"
    )

    @cached_property
    def files(self) -> dict[str, Path]:
        """The files of images and, with `every`, of videos."""
        return find_images(self.images, (*SUFFIXES, *VIDEO_SUFFIXES) if self.every else SUFFIXES)

    def has_frames(self, name: str) -> bool:
        """Whether the file of this name counts as a video."""
        return self.every > 0 and is_video(name)

    def digests(self) -> dict[str, str]:
        """The digest of each image's file as it is now, by the image's name.

        MISSING for a file that cannot be read; IRREGULAR for something that is not a regular file and so is not opened.
        """
        digests = self.digest_memory.of(self.files.values())
        irregular = {path for path, digest in digests.items() if digest == MISSING and path.exists() and not is_regular(path)}
        return {name: IRREGULAR if path in irregular else digests[path] for name, path in self.files.items()}

    def resolve(self) -> dict:
        # Without videos `every` is in no key.
        every = {"every": self.every} if any(map(self.has_frames, self.files)) else {}
        return {"images": len(self.files), "digest": digest_json(self.digests()), **every}

    def records(self) -> list:
        """One ImageRecord per image and per frame of a video, without size and objects. A frame has the path of its video."""
        import numpy as np

        from pipeline.datasets.records import ImageRecord

        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        return [
            ImageRecord(image, name, image_digest, 0, 0, *nothing)
            for name, digest in self.digests().items() for image, image_digest in self._images_in(name, digest)
        ]

    def _images_in(self, name: str, digest: str) -> list[tuple[str, str]]:
        """The image or, of a video, the frames: names and digests. A video that cannot be read stays one image, to be told of."""
        if not self.has_frames(name) or digest in (MISSING, IRREGULAR):
            return [(name, digest)]
        from pipeline.images.video import Video, import_av

        import_av()
        try:
            video = Video(self.files[name], name, max_megapixels=math.inf)
        except PipelineError:
            return [(name, digest)]
        video.close()
        return [(frame_name(name, number), frame_digest(digest, number)) for number in range(0, len(video), self.every)]

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.records import Split

        split = Split("photographs", (), tuple(self.records()))
        write_index(workshop.files / "index.json", split)
        return {"images": len(split.images)}
