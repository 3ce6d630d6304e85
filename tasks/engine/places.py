"""Folders and files of our own in the cache. Nothing here follows a link, which could lead anywhere."""

import os
import stat
from pathlib import Path

from .errors import UserError
from .storage import refused


def refuse_link(path: Path) -> None:
    """Raises UserError when `path` is a link."""
    if os.path.islink(path):
        advice = "the cache holds no links: remove it, or put what it leads to in its place"
        raise UserError(f"{path}: a link, to {os.readlink(path)}; {advice}")


def own_folder(path: Path) -> Path:
    """The folder `path`, made if it is not there. Raises UserError for a link, and for what cannot be made."""
    refuse_link(path)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error
    return path


def cache_folder(cache: Path, *names: str) -> Path:
    """The folder of these names in `cache`, made if it is not there. The cache itself may be a link, nothing below it."""
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
    """A descriptor of `path`. Raises UserError unless it is a file of one name: neither a link, nor a device, nor shared.

    Raises OSError when the system refuses to open it.
    """
    refuse_link(path)
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:  # 0: removed by its last user just now
        return descriptor
    os.close(descriptor)
    kind = "a file of two names" if stat.S_ISREG(status.st_mode) else "no file"
    raise UserError(f"{path}: {kind}, expected one that this program made; remove it")
