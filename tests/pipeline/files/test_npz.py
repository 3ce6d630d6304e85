"""Reading .npz files: what NumPy wrote comes back, and no file gets more memory than it can fill."""

import contextlib
import io
import pickle
import resource
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from pipeline.files.npz import load_arrays

EVENT = np.dtype([("image", np.int32), ("value", np.float64, (2,))])
ARRAYS = {
    "boxes": np.arange(12, dtype=np.float32).reshape(3, 4), "ids": np.array(["a", "ü"]), "one": np.array(7),
    "none": np.zeros((0, 4)),
    "events": np.zeros(2, EVENT), "columns": np.asfortranarray(np.arange(6).reshape(2, 3)), "text": np.array("x"),
    "mask": np.array([True, False]), "empty": np.array([""]), "noughts": np.zeros(100_000),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.npz"


def header(shape, descr="'<f8'", version=1, length=None):
    """The beginning of an .npy file; `shape` and `descr` as they are to be written."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    kind = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(kind, len(text) if length is None else length) + text


def write(path, *members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


def claim(path, file_size=None, compress_size=None):
    """Changes the sizes of the first member where the archive lists its members."""
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x01\x02")
    for offset, value in ((20, compress_size), (24, file_size)):
        if value is not None:
            content[start + offset : start + offset + 4] = struct.pack("<I", value)
    path.write_bytes(content)


def refusal(path, names=None):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - its type is the promise
            load_arrays(path, names)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert type(caught.value) is ValueError
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return str(caught.value)


class TestRead:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_what_was_written(self, path, save):
        save(path, **ARRAYS)
        arrays = load_arrays(path)
        assert list(arrays) == list(ARRAYS)
        for name, expected in ARRAYS.items():
            assert arrays[name].dtype == expected.dtype
            np.testing.assert_array_equal(arrays[name], expected)
            assert arrays[name].flags.f_contiguous == expected.flags.f_contiguous

    def test_those_asked_for_alone(self, path):
        np.savez(path, **ARRAYS)
        assert list(load_arrays(path, ("one", "boxes"))) == ["one", "boxes"]
        assert load_arrays(str(path), ()) == {}

    def test_damage_in_an_array_that_is_not_asked_for_is_none(self, path):
        write(path, ("bad.npy", header("(10**9,)")), ("good.npy", header("(1,)", "'|u1'") + b"\x05"))
        refusal(path)
        assert load_arrays(path, ["good"])["good"].tolist() == [5]

    def test_a_member_that_is_no_array_is_left(self, path):
        write(path, ("readme.txt", "text"), ("a.npy", header("(1,)", "'|u1'") + b"\x05"))
        assert list(load_arrays(path)) == ["a"]

    def test_no_array_at_all(self, path):
        np.savez(path)
        assert load_arrays(path) == {}


class TestRefused:
    @pytest.mark.parametrize(("shape", "descr"), [
        ("(1000000000000,)", "'<f8'"), ("(2,)", "'<f8'"), ("(4, 1000000000)", "'|b1'"), ("(10**9,)", "'<f8'"),
        ("(1,)", "'<U1000000000'"), ("(1,)", "'|S2000000000'"), ("(1,)", "[('a', '<f8', (1000, 1000, 1000))]"),
        ("(" + "9" * 400 + ",)", "'<f8'"), ("(" + "9" * 5000 + ",)", "'<f8'"), ("(1000000000000,)", "'|V0'"),
        ("(1000000000000,)", "'<U0'"), ("(-1,)", "'<f8'"),
        ("(-1000000, -1000000)", "'|b1'"), ("(4294967296, 4294967296)", "'<f8'"),
        ("(1.5,)", "'<f8'"), ("None", "'<f8'"), ("(1,)", "'nonsense'"), ("(1,)", "None"), ("[1]", "'<f8'"),
        ("(" * 3000, "'<f8'"), ("(1,)", "[" * 3000), ("(1,)", "'|O'"), ("(1,)", "[('a', '|O')]"), ("(1,)", "'\x1b[31m'"),
        ("(1,)", "'<M8[1000000000000000000000s]'"), ("(1,)", "'\\ud800'"),
    ])
    def test_headers_that_claim_too_much(self, path, shape, descr):
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            write(path, ("a.npy", header(shape, descr) + bytes(7)), compression=compression)
            assert refusal(path)
            assert refusal(path, ["a"])

    @pytest.mark.parametrize("version", [0, 2, 3, 9])
    def test_lengths_and_versions_of_headers(self, path, version):
        for length in (0, 5, 60_000, 65_535) if version < 2 else (0, 5, 1 << 20, (1 << 32) - 1):
            write(path, ("a.npy", header("(1,)", version=max(version, 1), length=length) + bytes(8)))
            assert refusal(path)
            write(path, ("a.npy", header("(1,)", version=2, length=length).ljust(1 << 22)), compression=zipfile.ZIP_DEFLATED)
            assert refusal(path)

    @pytest.mark.parametrize("sizes", [{"file_size": 0xFFFFFFF0}, {"compress_size": 0x7FFFFFFF},
                                       {"file_size": 0x7FFFFFFF, "compress_size": 0x7FFFFFFF}, {"file_size": 3}])
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_sizes_of_members(self, path, sizes, compression):
        write(path, ("a.npy", header("(1000,)", "'|u1'") + bytes(range(250)) * 4), compression=compression)
        assert load_arrays(path)["a"].size == 1000
        claim(path, **sizes)
        assert refusal(path)

    def test_a_bomb_of_members_that_share_their_bytes(self, path):
        """Each lists the same megabyte of zeros, a kilobyte here: within zlib's ratio one by one, and without end together."""
        write(path, ("a.npy", header("(1000000,)", "'|u1'") + bytes(10**6)), compression=zipfile.ZIP_DEFLATED)
        with zipfile.ZipFile(path) as archive:
            (member,) = archive.infolist()
        with zipfile.ZipFile(path, "a") as archive:
            for number in range(3000):
                twin = zipfile.ZipInfo(f"{number}.npy")
                for field in ("compress_type", "compress_size", "file_size", "CRC", "header_offset"):
                    setattr(twin, field, getattr(member, field))
                archive.filelist.append(twin)
                archive.NameToInfo[twin.filename] = twin
            archive._didModify = True
        assert "of a file of" in refusal(path)

    def test_a_name_twice(self, path):
        with pytest.warns(UserWarning, match="Duplicate name"):
            write(path, ("a.npy", header("(1,)") + bytes(8)), ("a.npy", header("(1,)") + bytes(8)))
        assert refusal(path) == "has the array 'a' twice"

    @pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_other_compressions(self, path, compression):
        write(path, ("a.npy", header("(1,)") + bytes(8)), compression=compression)
        assert "compressed in another way" in refusal(path)

    def test_an_array_that_is_not_there(self, path):
        np.savez(path, a=1, b=2)
        assert refusal(path, ["a", "c"]) == "has no array c, but ['a', 'b']"

    def test_objects(self, path):
        np.savez(path, a=np.array([{}, print], object))
        assert refusal(path) == "array 'a': Object arrays cannot be loaded (allow_pickle=False)"

    @pytest.mark.parametrize("content", [
        b"", b"PK", b"text\x1b", pickle.dumps([1]), b"PK\x05\x06" + bytes(18)[:-1], header("(1,)") + bytes(8), bytes(600),
        b"PK\x05\x06" + bytes(4) + b"\xff" * 14,
    ])
    def test_other_files(self, path, content):
        path.write_bytes(content)
        assert refusal(path)

    def test_bytes_that_belong_to_nothing(self, path):
        write(path, ("a.npy", header("(1,)") + bytes(9)))
        assert refusal(path) == "array 'a' is followed by bytes that are none of its"

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_damage_anywhere_is_found_or_in_nothing_that_counts(self, path, save):
        generator, buffer = np.random.default_rng(0), io.BytesIO()
        save(buffer, **{name: ARRAYS[name] for name in ("boxes", "ids", "one", "events")})
        whole, expected = buffer.getvalue(), {}
        for _ in range(1500):
            content = bytearray(whole)
            place, kind = int(generator.integers(len(content))), generator.integers(3)
            if kind == 0:
                content[place] ^= 1 << int(generator.integers(8))
            elif kind == 1:
                del content[place:]
            else:
                content[place : place + 4] = generator.choice([b"\xff" * 4, b"\0" * 4, b"PK\x01\x02", b"9999"])
            path.write_bytes(content)
            with contextlib.suppress(ValueError, OSError):  # OSError: a place before the start
                expected = load_arrays(path)
                assert sum(array.nbytes for array in expected.values()) < 10_000
        assert expected

    def test_memory_is_not_asked_for(self, path):
        """In a process that may take 1 GB more, a claim of 64 GB in 60 kB is refused before memory is asked for."""
        deflated = zlib.compress(bytes(60_000_000), 9)
        assert len(deflated) < 60_000
        write(path, ("a.npy", header("(8000000000,)") + bytes(60_000_000)), compression=zipfile.ZIP_DEFLATED)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert "claims the shape" in refusal(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_file_that_cannot_be_read(tmp_path):
    for name in ("none", ""):
        with pytest.raises(OSError, match=r"No such file|Is a directory"):
            load_arrays(tmp_path / name)
