"""Whether a file can be read at all: its digest tells only that it is what was written, which may never have been right."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path


def check_json(path: Path) -> None:
    """Raises ValueError when `path` is no JSON."""
    json.loads(path.read_bytes())


CHECKS = {".json": check_json}


def why_unreadable(path: Path, checks: Mapping[str, Callable[[Path], None]] = CHECKS) -> str:
    """Why the file cannot be read, in one line; empty for one that can, and for a suffix that has no check."""
    check = checks.get(path.suffix)
    try:
        if check:
            check(path)
    except MemoryError:
        return ""  # says nothing of the file
    except Exception as error:  # whatever a broken file does to its reader
        return (str(error) or type(error).__name__).partition("\n")[0].removeprefix(f"{path}: ")
    return ""
