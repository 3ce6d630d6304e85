"""The folders of unfinished artefacts: whose each is, and whether its builder may still be at work.

A builder works in `.work/<stage>-<key>.<host>-<process>`, so that two builders of one key never share a folder, even on a file
system without locks. What an ended builder leaves for the next one is in `.work/<stage>-<key>`.
"""

import contextlib
import os
import re
import socket
import time
from pathlib import Path

from .artefacts import KEY_DIGITS

WORK = ".work"  # folder in the cache for unfinished artefacts
NAME = re.compile(rf"(?P<artefact>.+-[0-9a-f]{{{KEY_DIGITS}}})(\.(?P<host>.+)-(?P<process>[0-9]+))?")
LONG = 24 * 3600.0  # seconds without a change, after which a builder on another host counts as dead


def own_name(artefact: str) -> str:
    """The name of this process's folder for `artefact`, which is named as its lock is."""
    return f"{artefact}.{socket.gethostname()}-{os.getpid()}"


def artefact_of(folder: Path) -> str | None:
    """The name of the artefact that is built in `folder`; None for a folder that the engine did not make."""
    match = NAME.fullmatch(folder.name)
    return match["artefact"] if match else None


def is_of_other_host(folder: Path) -> bool:
    match = NAME.fullmatch(folder.name)
    return match is not None and match["host"] not in (None, socket.gethostname())


def may_be_in_use(folder: Path) -> bool:
    """Whether the builder that works in `folder` may be alive. A file system's locks could be wrong about that.

    Of this host the living processes are known. Of another host, a folder that has changed lately may be in use.
    """
    match = NAME.fullmatch(folder.name)
    if not match or not match["host"]:
        return False
    if is_of_other_host(folder):
        return time.time() - _last_change(folder) < LONG
    return int(match["process"]) == os.getpid() or _is_alive(int(match["process"]))


def _last_change(folder: Path) -> float:
    times = [0.0]
    for path in (folder, folder / "files", folder / "checkpoint"):
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    # In a container often nobody reads the exit status of an orphan, which then stays as a zombie.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return True
