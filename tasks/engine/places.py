"""Folders and files that the engine makes in the cache. Nothing here follows a link, because a link could point anywhere."""

import os
import stat
from pathlib import Path

from .errors import UserError
from .storage import refused


def refuse_link(path: Path) -> None:
    """Raises UserError when `path` is a link."""
    if os.path.islink(path):
        advice = "the cache may not contain links: remove it, or replace it by the file or folder that it points to"
        raise UserError(f"{path}: a link, to {os.readlink(path)}; {advice}")


def own_folder(path: Path) -> Path:
    """The folder `path`, which is made if it is missing. Raises UserError if it is a link or cannot be made."""
    refuse_link(path)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error
    return path


def cache_folder(cache: Path, *names: str) -> Path:
    """The folder `cache/name/name...`, which is made if it is missing. Only the cache itself may be a link."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{cache}: a file, expected a folder; remove it, or give another folder with --cache-dir") from error
    except OSError as error:
        raise refused(cache, error) from error
    path = cache
    for name in names:
        path = own_folder(path / name)
    return path


def open_plain(path: Path, flags: int) -> int:
    """A descriptor of `path`. Raises UserError unless it is a regular file with one name: no link, no device, no hard link.

    Raises OSError when the system refuses to open it.
    """
    refuse_link(path)
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:  # 0: its last user has just removed it
        return descriptor
    os.close(descriptor)
    kind = "a file with two names (hard links)" if stat.S_ISREG(status.st_mode) else "not a regular file"
    raise UserError(f"{path}: {kind}, expected a file that this program made; remove it")
