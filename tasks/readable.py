"""Whether a file can be read at all: its digest tells only that it is what was written, which may never have been right."""

import json
import zipfile
from pathlib import Path


def why_unreadable(path: Path) -> str:
    """Why the file cannot be read, in one line; empty for one that can, and for a kind that is not looked into."""
    check = {".h5": check_hdf5, ".npz": check_npz, ".safetensors": check_safetensors, ".json": check_json}.get(path.suffix)
    try:
        if check:
            check(path)
    except MemoryError:
        return ""  # says nothing of the file
    except Exception as error:  # whatever a broken file does to its reader
        return (str(error) or type(error).__name__).partition("\n")[0].removeprefix(f"{path}: ")
    return ""


def check_hdf5(path: Path) -> None:
    from pipeline.files.hdf5 import check_store

    check_store(path)


def check_npz(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged!r} in it is damaged")


def check_safetensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        file.keys()


def check_json(path: Path) -> None:
    json.loads(path.read_bytes())
