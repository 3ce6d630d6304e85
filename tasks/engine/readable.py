"""Whether a file can be read. A digest shows only that a file is as it was written; it may have been wrong from the start."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path


def check_json(path: Path) -> None:
    """Raises ValueError if `path` is not JSON."""
    json.loads(path.read_bytes())


CHECKS = {".json": check_json}


def why_unreadable(path: Path, checks: Mapping[str, Callable[[Path], None]] = CHECKS) -> str:
    """Why the file cannot be read, in one line; empty if it can, or if its suffix has no check."""
    check = checks.get(path.suffix)
    try:
        if check:
            check(path)
    except MemoryError:
        return ""  # not a fault of the file
    except Exception as error:  # a broken file may cause any exception
        return (str(error) or type(error).__name__).partition("\n")[0].removeprefix(f"{path}: ")
    return ""
