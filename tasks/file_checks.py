"""How stages read the binary files of artefacts, and whether one can be read at all.

A digest tells only that a file is what was written, which may never have been right.
"""

import zipfile
from pathlib import Path

from tasks.engine.artefacts import Artefact
from tasks.engine.readable import check_json


def read_arrays(artefact: Artefact, name: str) -> dict:
    """The arrays of the .npz file `name` of an artefact, by name. Raises DamagedArtefact when they cannot be read."""
    from pipeline.files.npz import load_arrays

    return artefact.read(name, load_arrays)


def read_tensors(artefact: Artefact, name: str) -> dict:
    """The tensors of the safetensors file `name` of an artefact, by name. Raises DamagedArtefact when they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    return artefact.read(name, load_file, errors=(SafetensorError,))


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


# By suffix: a function that raises an exception for a file that cannot be read.
FILE_CHECKS = {".h5": check_hdf5, ".npz": check_npz, ".safetensors": check_safetensors, ".json": check_json}
