"""How stages read the binary files of artefacts, and how `verify` checks that a file can be read.

A digest shows only that a file is as it was written. It may have been wrong from the start.
"""

import zipfile
from pathlib import Path

from tasks.engine.artefacts import Artefact
from tasks.engine.readable import check_json


def read_arrays(artefact: Artefact, name: str) -> dict:
    """The arrays in the .npz file `name` of an artefact, by name. Raises DamagedArtefact when they cannot be read."""
    from pipeline.files.npz import load_arrays

    return artefact.read(name, load_arrays)


def read_tensors(artefact: Artefact, name: str) -> dict:
    """The tensors in the safetensors file `name` of an artefact, by name. Raises DamagedArtefact when they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    return artefact.read(name, load_file, errors=(SafetensorError,))


def check_hdf5(path: Path) -> None:
    from pipeline.files.hdf5 import check_store

    check_store(path)


def check_npz(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"its member {damaged!r} is damaged")


def check_safetensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        file.keys()


# For each suffix a function that raises an exception when the file cannot be read.
FILE_CHECKS = {".h5": check_hdf5, ".npz": check_npz, ".safetensors": check_safetensors, ".json": check_json}
