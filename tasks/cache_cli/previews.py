"""What is in a file, in a few lines: names, types, shapes and first values of arrays, or the beginning of a text.

No stored code is run (no pickle). HDF5's references to other files (links, external and virtual data) are not followed.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from pipeline.files.reading import parse_json, read_regular
from tasks.cache_cli.text import cut, show_size
from tasks.engine.digests import canonical_json

ROWS, VALUES = 3, 6  # how much of an array is shown
HEAD = 5  # how many lines of a text or entries of JSON are shown
LINE = 108
NUMPY_TYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")  # safetensors' names
LARGEST_JSON = LARGEST_ARRAY = 64_000_000  # bytes; larger values are not read


def preview(path: Path) -> Iterator[str]:
    """Lines about a file's content; if it cannot be read, one line that says why."""
    reader = {".h5": of_hdf5, ".npz": of_npz, ".safetensors": of_safetensors, ".json": of_json}.get(path.suffix, of_text)
    try:
        yield from (cut(line, LINE) for line in reader(path))
    except Exception as error:  # a damaged file may cause any exception
        yield cut(f"cannot be read: {error or type(error).__name__}; see `rcnn-cache verify`", LINE)


def of_hdf5(path: Path) -> Iterator[str]:
    import h5py

    with h5py.File(path, "r") as file:
        for name, value in file.attrs.items():
            yield f"{name} = {plain(value)}"
        items: dict = {}
        file.visititems(items.__setitem__)  # follows neither soft nor external links
        for name, item in items.items():
            if isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    yield f"{name}  its data is in another file, which is not opened"
                elif (size := read_at_once(item)) > LARGEST_ARRAY:
                    kind = f"{item.dtype} {show_shape(item.shape)}"
                    yield f"{name}  {kind}; its first part takes {size} bytes, too many to read here"
                else:
                    yield from array_lines(name, item)


def read_at_once(item) -> int:
    """The bytes to read for the first values of an HDF5 data set: a whole chunk, if it has chunks."""
    shape = item.chunks or (() if item.shape is None else [part.stop for part in corner(item.shape)])
    return item.dtype.itemsize * math.prod(shape)


def of_npz(path: Path) -> Iterator[str]:
    from pipeline.files.npz import check_members, load_arrays, open_archive

    with open_archive(path) as archive:
        members = check_members(archive)
    for name, member in members.items():
        if member.file_size > LARGEST_ARRAY:
            yield f"{name}  an array of {member.file_size} bytes, too many to read here"
        else:
            yield from array_lines(name, load_arrays(path, [name])[name])


def of_safetensors(path: Path) -> Iterator[str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            tensor = file.get_slice(name)
            shape = tensor.get_shape()
            yield f"{name}  {tensor.get_dtype()} {show_shape(shape)}"
            if shape and tensor.get_dtype() in NUMPY_TYPES:
                yield from value_lines(tensor[corner(shape)])


def of_json(path: Path) -> Iterator[str]:
    if path.stat().st_size > LARGEST_JSON:
        yield from of_text(path)
        return
    value = parse_json(path.name, read_regular(path, ""), "it is damaged", constants=True)
    if isinstance(value, dict):
        entries = [f"{name}: {canonical_json(item)}" for name, item in value.items()]
    elif isinstance(value, list):
        yield f"a list of {len(value)}"
        entries = [canonical_json(item) for item in value[:HEAD]]
    else:
        entries = [canonical_json(value)]
    yield from entries[:HEAD]
    if isinstance(value, dict) and len(entries) > HEAD:
        yield f"... and {len(entries) - HEAD} more: {', '.join(list(value)[HEAD:])}"


def of_text(path: Path) -> Iterator[str]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(HEAD * 1000)
    try:
        lines = start.decode().splitlines()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # it is not text; else the last character was cut in two
            return
        lines = start[: error.start].decode().splitlines()
    if "\0" not in "".join(lines):
        yield from lines[:HEAD]
        if len(lines) > HEAD or size > len(start):
            yield f"... the beginning of {show_size(size)}"


def array_lines(name: str, array) -> Iterator[str]:
    """Type, shape and first values of an array or an HDF5 data set. Nothing more is read."""
    yield f"{name}  {'text' if array.dtype.hasobject else array.dtype} {show_shape(array.shape)}"
    if array.shape is not None:
        yield from value_lines(array[corner(array.shape)])


def corner(shape) -> tuple[slice, ...]:
    """Slices that select the first values of the first rows."""
    first = VALUES if len(shape) == 1 else ROWS
    return tuple(slice(min(size, VALUES if axis else first)) for axis, size in enumerate(shape))


def value_lines(values) -> Iterator[str]:
    """The first rows of an array, one line per row; a vector is one line."""
    if values.ndim < 2:
        yield f"  {plain(values)}"
    else:
        yield from (f"  {plain(row.ravel()[:VALUES])}" for row in values[:ROWS])


def show_shape(shape) -> str:
    return "empty" if shape is None else f"[{' x '.join(map(str, shape))}]"


def plain(value) -> str:
    """An attribute or an array on one line, with rounded numbers."""
    import numpy as np

    value = np.asarray(value)
    if value.dtype.hasobject:
        value = np.array([item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in value.ravel()])
    return " ".join(np.array2string(value, precision=4, threshold=20, separator=" ").split())
