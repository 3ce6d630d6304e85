"""Cell arrays of texts and of numbers in MATLAB's files of level 5 (`save` up to -v7).

The format is MATLAB's, "MAT-File Format", chapter "Level 5 MAT-File Format": elements, each a tag of type and length, and data;
a variable is an element that holds elements (its flags, its size, its name, its values), perhaps compressed.
NOTE: SciPy reads these files too, but trusts damaged ones: changing a byte of a small file crashes the process in one case of
six, and it allocates the 400 MB that a file claims.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.text import shown

HEADER = 128
MATRIX, COMPRESSED = 14, 15  # types of elements
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "ascii", 2: "ascii", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, TEXT, NUMERIC, OPAQUE = 1, 4, range(6, 16), 17  # classes of variables; objects' are laid out in another way
COMPLEX = 0x0800  # among a variable's flags
LEVEL_7_3 = 2  # HDF5 behind the same header
# Bytes that a compressed variable may have, and how many more for each that it takes: boxes take a tenth at best.
SMALL, RATIO = 1 << 25, 100


class NewerFormat(ValueError):
    """A file of MATLAB 7.3, which is HDF5: MATLAB can save it once more as level 5."""


def read_cells(content: bytes, names: Sequence[str]) -> dict[str, list]:
    """The cells of the variables `names`, as far as the file `content` has them: a text or an array of numbers each.

    Raises NewerFormat for a file of MATLAB 7.3, and ValueError for every other kind of file.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("no file of MATLAB's level 5")
    if struct.unpack_from(order + "H", content, 124)[0] >> 8 == LEVEL_7_3:
        raise NewerFormat("of MATLAB 7.3")
    cells: dict[str, list] = {}
    for kind, data in _elements(memoryview(content)[HEADER:], order, padded=False):
        if kind == COMPRESSED:
            kind, data = next(_elements(_decompress(data), order, padded=False), (0, data))  # 0 is no type
        if kind != MATRIX:
            raise ValueError(f"an element of type {kind} in a variable's place")
        variable = _Variable(data, order)
        if variable.name in names:
            if variable.name in cells:
                raise ValueError(f"{variable.name} is there twice")
            cells[variable.name] = variable.cells()
    return cells


def _elements(data: memoryview, order: str, padded: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Type and data of each element in `data`; `padded` to eight bytes, as they are within a variable."""
    start = 0
    while start < len(data):
        if start + 8 > len(data):
            raise ValueError("ends within an element")
        kind, length = struct.unpack_from(order + "II", data, start)
        first, end = start + 8, start + 8 + length
        start = -(-end // 8) * 8 if padded else end
        if kind >> 16:  # a small element: its length shares the type's word, its data are in the tag
            kind, length, first = kind & 0xFFFF, kind >> 16, first - 4
            end, start = first + length, first + 4
            if length > 4:
                raise ValueError("a small element of more than four bytes")
        if end > len(data):
            raise ValueError(f"an element claims {length} bytes, more than there are")
        yield kind, data[first:end]


def _decompress(data: memoryview) -> memoryview:
    most = SMALL + RATIO * len(data)
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not stream.eof:
        raise ValueError("a compressed variable is cut off" if len(content) < most else f"a variable of more than {most} bytes")
    return memoryview(content)


class _Variable:
    """A variable, or a cell of one: its class, its size, its name and the elements that its values are in."""

    def __init__(self, data: memoryview, order: str):
        self.order, self.parts = order, _elements(data, order)
        flags = self._part()
        if (flags[0], len(flags[1])) != (6, 8):
            raise ValueError("a variable without flags")
        self.flags, self.name = struct.unpack_from(order + "I", flags[1])[0], ""
        if self.kind == OPAQUE:
            return
        size, name = self._part(), self._part()
        if size[0] != 5 or len(size[1]) % 4:
            raise ValueError("a variable without a size")
        self.shape = struct.unpack(f"{order}{len(size[1]) // 4}i", size[1])
        if min(self.shape, default=-1) < 0:
            raise ValueError(f"a variable of the size {shown(self.shape)}")
        self.name = bytes(name[1]).decode("ascii")

    def _part(self) -> tuple[int, memoryview]:
        part = next(self.parts, None)
        if part is None:
            raise ValueError("a variable that ends before its values")
        return part

    @property
    def kind(self) -> int:
        return self.flags & 0xFF

    def cells(self) -> list:
        if self.kind != CELL:
            raise ValueError(f"{self.name} of shape {self.shape} is no cell array")
        parts = list(self.parts)
        if len(parts) != math.prod(self.shape) or any(kind != MATRIX for kind, _ in parts):
            raise ValueError(f"{self.name} claims {math.prod(self.shape)} cells and has {len(parts)}")
        return [_Variable(data, self.order).values() if len(data) else np.zeros((0, 0)) for _, data in parts]

    def values(self) -> str | np.ndarray:
        """The text of a cell, or its numbers in their shape."""
        count = math.prod(self.shape)
        if self.kind == TEXT:
            kind, data = self._part() if count else (1, memoryview(b""))
            if kind not in TEXTS or len(self.shape) != 2 or self.shape[0] > 1:
                raise ValueError(f"a cell of text of type {kind} and shape {self.shape}")
            codec = TEXTS[kind] + {"<": "-le", ">": "-be"}[self.order] * (TEXTS[kind] in ("utf-16", "utf-32"))
            return bytes(data).decode(codec)
        if self.kind not in NUMERIC or self.flags & COMPLEX:
            raise ValueError(f"a cell of MATLAB's class {self.kind}{', complex' if self.flags & COMPLEX else ''}")
        kind, data = self._part()
        if kind not in NUMBERS:
            raise ValueError(f"numbers of type {kind}")
        numbers = np.frombuffer(data, self.order + NUMBERS[kind])
        if len(numbers) != count:
            raise ValueError(f"{len(numbers)} numbers for the shape {self.shape}")
        return numbers.reshape(self.shape, order="F")
