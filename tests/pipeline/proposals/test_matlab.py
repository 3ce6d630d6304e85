"""MATLAB's files: read as SciPy reads whole ones, and whatever is damaged is an error and no crash."""

import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from pipeline.proposals.matlab import NewerFormat, read_cells

HEAD = b"MATLAB 5.0 MAT-file".ljust(124)
TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64, bool)


def column(values, across=False):
    cells = np.empty((len(values), 1), object)
    cells[:, 0] = values
    return cells.T if across else cells


def saved(compressed=False, **variables):
    file = io.BytesIO()
    savemat(file, variables, do_compression=compressed)
    return file.getvalue()


def element(kind, data, order="<"):
    return struct.pack(order + "II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def matrix(kind, shape, *values, name=b"", order="<", flags=0):
    size, flags = struct.pack(f"{order}{len(shape)}i", *shape), struct.pack(order + "II", kind | flags, 0)
    head = element(6, flags, order) + element(5, size, order) + element(1, name, order)
    return element(14, head + b"".join(values), order)


def file_of(*variables, order="<"):
    return HEAD + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI") + b"".join(variables)


def refusal(content, names=("x",)):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - its type is the promise
            read_cells(content, names)
        assert tracemalloc.get_traced_memory()[1] < 120e6
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_as_scipy_reads_them(compressed, across):
    generator = np.random.default_rng(0)
    for _ in range(60):
        count = int(generator.integers(0, 6))
        kinds = [TYPES[kind] for kind in generator.integers(len(TYPES), size=count)]
        boxes = [(100 * generator.random((generator.integers(0, 4), 4))).astype(kind) for kind in kinds]
        texts = ["".join(generator.choice([*"abc019_ é猫"], generator.integers(1, 9))) for _ in range(count)]
        others = {"other": np.eye(3), "record": {"a": 1}, "complex": 1 + 2j}
        content = saved(compressed, boxes=column(boxes, across), **others, images=column(texts, across))
        cells, expected = read_cells(content, ("images", "boxes")), loadmat(io.BytesIO(content))
        assert cells["images"] == [cell.item() for cell in expected["images"].ravel()] == texts
        for ours, of_scipy, written in zip(cells["boxes"], expected["boxes"].ravel(), boxes, strict=True):
            np.testing.assert_array_equal(ours, of_scipy)
            np.testing.assert_array_equal(ours, written)


def test_those_that_are_there():
    content = saved(a=column(["x"]), b=column([np.ones(2)]))
    assert list(read_cells(content, ("a", "none"))) == ["a"]
    assert read_cells(content, ()) == {}


def test_written_on_a_machine_of_the_other_order():
    values = element(4, struct.pack(">4H", 1, 2, 3, 400), ">")
    text = element(17, "é1".encode("utf-16-be"), ">")
    cells = matrix(6, (1, 4), values, order=">"), matrix(4, (1, 2), text, order=">")
    numbers, word = read_cells(file_of(matrix(1, (1, 2), *cells, name=b"x", order=">"), order=">"), ["x"])["x"]
    assert numbers.tolist() == [[1, 2, 3, 400]]
    assert word == "é1"


def test_small_elements_and_empty_cells():
    small = struct.pack("<HH4s", 2, 3, b"\x05\x06\x07")
    numbers, empty = read_cells(file_of(matrix(1, (2, 1), matrix(6, (3, 1), small), element(14, b""), name=b"x")), ["x"])["x"]
    assert numbers.tolist() == [[5], [6], [7]]
    assert empty.size == 0


def test_objects_of_matlab_are_passed_over():
    opaque = element(14, element(6, struct.pack("<II", 17, 0)) + element(1, b"string") + element(1, b"MCOS"))
    assert read_cells(file_of(opaque, matrix(1, (0, 0), name=b"x")), ["x"]) == {"x": []}


def test_level_7_3():
    with pytest.raises(NewerFormat):
        read_cells(HEAD + b"\x00\x02IM" + bytes(500), ["x"])


def cell(*values, kind=6, shape=(1, 1), flags=0):
    """A variable x of one cell."""
    return matrix(1, (1, 1), matrix(kind, shape, *values, flags=flags), name=b"x")


EIGHT, NONE = element(9, bytes(8)), matrix(1, (0, 0), name=b"x")


@pytest.mark.parametrize("variable", [
    *(matrix(1, shape, name=b"x") for shape in ((1, 10**8), (2**31 - 1, 2**31 - 1), (-1, -1), ())),
    cell(EIGHT, shape=(10**9, 4)), cell(), cell(element(21, bytes(8))), cell(element(0, b"")), cell(EIGHT, flags=0x800),
    cell(kind=5),
    cell(matrix(6, (1, 1), EIGHT), kind=1), matrix(6, (1, 1), EIGHT, name=b"x"),
    cell(element(4, b"a\xd8b\xd8"), kind=4, shape=(1, 2)), cell(element(1, b"ab"), kind=4, shape=(2, 1)),
    NONE * 2, element(14, b""), element(14, bytes(8)), EIGHT, b"\x0e\0\0\0\xff\xff\xff\xff", b"\x0e",
    *(element(15, data) for data in (zlib.compress(bytes(100)), zlib.compress(b""), b"nonsense", b"", zlib.compress(NONE)[:-6])),
    matrix(1, (0, 0), name=b"\xff"), struct.pack("<HH4s", 5, 9, b""),
])
def test_what_cannot_be_right(variable):
    assert refusal(file_of(variable))


def test_what_compressed_holds_more_than_it_may():
    assert "a variable of more than" in refusal(file_of(element(15, zlib.compress(bytes(200_000_000), 9))))


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_anywhere_is_a_value_or_an_error(compressed):
    generator = np.random.default_rng(0)
    whole = saved(compressed, images=column(["a", "bcd"]), boxes=column([np.zeros((2, 4)), np.ones((1, 4), np.uint8)]))
    for number in range(6000):
        content = bytearray(whole)
        for place in generator.integers(0, len(content), 1 + number % 3):
            content[place] = generator.choice([0, 1, 5, 9, 14, 15, 64, 127, 128, 255])
        if number % 10 == 0:
            del content[int(generator.integers(len(content))) :]
        with contextlib.suppress(ValueError):
            read_cells(bytes(content), ("images", "boxes"))
