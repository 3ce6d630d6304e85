"""Writes the engine's own small files, and explains what to do when the file system refuses."""

import errno
from pathlib import Path

from .errors import StorageError

ADVICE = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some of your quota and give the same command again",
    errno.EROFS: "this place is read-only: give another folder with --cache-dir",
    errno.EACCES: "change its permissions, or give another folder with --cache-dir",
    errno.EPERM: "change its permissions, or give another folder with --cache-dir",
    errno.ENOTDIR: "a file is in the way of a folder: remove it, or give another folder with --cache-dir",
    errno.EEXIST: "something is in the way: remove it and give the same command again",
    errno.EISDIR: "a folder is in the way of a file: remove it and give the same command again",
    errno.ELOOP: "the cache may not contain links: remove it and give the same command again",
    errno.ENAMETOOLONG: "give a shorter path with --cache-dir",
    errno.EFBIG: "files may not grow so large here: raise the limit (ulimit -f) and give the same command again",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n) and give the same command again",
    errno.ENFILE: "too many files are open on this machine: close some programs and give the same command again",
    errno.ENOMEM: "free some memory and give the same command again",
    errno.EIO: "the disk or its connection fails: repair it and give the same command again",
    errno.ESTALE: "the network folder was lost: mount it again and give the same command again",
}
CANNOT_READ = "cannot be read"
UNKNOWN = "fix that and give the same command again"


def refused(path: Path | str, error: OSError, what: str = "cannot be written") -> StorageError:
    """An error in one line: `path`, the system's reason, and what to do."""
    reason = error.strerror or str(error).partition("\n")[0]
    return StorageError(f"{path}: {what}: {reason}; {ADVICE.get(error.errno or 0, UNKNOWN)}")


def write_file(path: Path, content: bytes | str) -> None:
    """Writes the small file `path`, text as UTF-8, then reads it and compares. Raises OSError that names the file."""
    content = content.encode() if isinstance(content, str) else content
    try:
        path.unlink(missing_ok=True)  # it may be a link, which must not be followed
        with open(path, "xb") as file:
            file.write(content)
        if path.read_bytes() != content:
            raise OSError(errno.EIO, "what was written cannot be read back")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
