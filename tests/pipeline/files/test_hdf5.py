"""Our HDF5 files on disks that lose data, and hostile ones."""

import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

from pipeline.errors import DamagedFile
from pipeline.files import hdf5
from pipeline.files.hdf5 import StoreWriter, check_store, opened
from pipeline.files.writing import WriteError


def write(path, rows=50, flush=True):
    writer = StoreWriter(path, {"kind": "test"})
    writer.add("cells", np.float16, (8,), 10)
    for first in range(0, rows, 20):
        writer.append("cells", np.arange(first * 8, min(first + 20, rows) * 8).reshape(-1, 8), flush)
    writer.put("offsets", np.array([0, rows]), checksum=True)
    writer.put("plain", np.array([rows], np.int64))
    writer.put_texts("image_ids", ["a", "é"])
    writer.close()
    return path


@pytest.fixture(autouse=True)
def closed():
    yield
    opened.cache_clear()


class TestWriter:
    @pytest.mark.parametrize("flush", [False, True])
    @pytest.mark.parametrize("rows", [0, 1, 10, 50])
    def test_round_trip(self, tmp_path, rows, flush):
        file = opened(write(tmp_path / "a.h5", rows, flush))
        np.testing.assert_array_equal(file["cells"][:], np.arange(rows * 8).reshape(-1, 8))
        assert (file["offsets"][1], file["plain"][0], file.attrs["kind"]) == (rows, rows, "test")
        assert [text.decode() for text in file["image_ids"][:]] == ["a", "é"]
        check_store(tmp_path / "a.h5")

    def test_a_compressed_data_set_leaves_no_holes(self, tmp_path):
        """However few rows come at a time, a chunk is written once."""
        sizes = []
        for step in (1, 7, 1000):
            writer = StoreWriter(tmp_path / "a.h5", {})
            writer.add("cells", np.float16, (8,), 100, is_compressed=True)
            rows = np.arange(8000).reshape(-1, 8).astype(np.float16)
            for first in range(0, 1000, step):
                writer.append("cells", rows[first : first + step])
            writer.close()
            with h5py.File(tmp_path / "a.h5") as file:
                np.testing.assert_array_equal(file["cells"][:], rows)
                assert (file["cells"].compression, file["cells"].shuffle, file["cells"].fletcher32) == ("gzip", True, True)
            sizes.append((tmp_path / "a.h5").stat().st_size)
        assert len(set(sizes)) == 1

    def test_no_link_is_followed(self, tmp_path):
        (tmp_path / "precious").write_text("notes")
        (tmp_path / "a.h5").symlink_to(tmp_path / "precious")
        write(tmp_path / "a.h5")
        assert (tmp_path / "precious").read_text() == "notes"

    @pytest.mark.parametrize("lose", [
        lambda file: file["cells"].write_direct(np.zeros((10, 8), np.float16), dest_sel=np.s_[20:30]),
        lambda file: file["offsets"].write_direct(np.array([0, 49])), lambda file: file["plain"].write_direct(np.array([49])),
        lambda file: file["cells"].resize(49, axis=0), lambda file: file.pop("plain"),
        lambda file: file["image_ids"].write_direct(np.array([b"a", b"e"], h5py.string_dtype())),
    ])
    def test_what_is_lost_without_a_word_is_noticed(self, tmp_path, monkeypatch, lose):
        real = hdf5._open

        def lose_and_open(path):
            with h5py.File(path, "r+") as file:
                lose(file)
            return real(path)

        monkeypatch.setattr(hdf5, "_open", lose_and_open)
        with pytest.raises(WriteError, match=r"what was written cannot be read back.*a\.h5"):
            write(tmp_path / "a.h5")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("step", ["add", "append", "put", "close"])
    def test_an_error_of_the_disk_is_one_line_and_leaves_nothing(self, tmp_path, monkeypatch, step):
        """HDF5's text tells the system's error number; its own object may have none."""
        text = "Can't write data (file write failed: time = now\n, errno = 28, error message = 'No space left on device')"

        def refuse(*arguments, **options):
            raise RuntimeError(text)

        writer = StoreWriter(tmp_path / "a.h5", {})
        writer.add("cells", np.float16, (8,), 10)
        name = {"add": "create_dataset", "put": "create_dataset", "close": "flush"}.get(step)
        target = h5py.Dataset if step == "append" else h5py.File
        monkeypatch.setattr(target, name or "resize", refuse)
        actions = {
            "add": lambda: writer.add("more", np.float16, (8,), 10), "append": lambda: writer.append("cells", np.zeros((1, 8))),
            "put": lambda: writer.put("offsets", np.zeros(2)), "close": writer.close,
        }
        with pytest.raises(WriteError) as caught:
            actions[step]()
        error = caught.value
        assert (error.filename, error.strerror) == (str(tmp_path / "a.h5"), "cannot be written: No space left on device")
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_is_not_there(self, tmp_path):
        with pytest.raises(WriteError, match=r"cannot be written: No such file or directory: .*gone/a\.h5"):
            write(tmp_path / "gone" / "a.h5")

    @pytest.mark.skipif(sys.platform != "linux", reason="file systems are mounted as on Linux")
    def test_a_process_whose_disk_was_full_ends_well(self, tmp_path):
        """HDF5 would write again when the process ends, and crash."""
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True).returncode:
            pytest.skip("a file system can be mounted by root alone")
        try:
            script = f"""
import numpy as np
from pipeline.files.hdf5 import StoreWriter
writer = StoreWriter({str(tmp_path / 'a.h5')!r}, {{}})
writer.add("cells", np.float16, (8,), 1000)
try:
    while True:
        writer.append("cells", np.random.random((5000, 8)))
except OSError as error:
    print(error)
"""
            ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=os.environ)
            assert (ended.returncode, ended.stderr) == (0, "")
            assert re.search(r"cannot be written: No space left on device: .*a\.h5", ended.stdout)
            assert list(tmp_path.iterdir()) == []
        finally:
            subprocess.run(["umount", "-l", tmp_path], check=True)


def external(file):
    file["x"] = h5py.ExternalLink("other.h5", "x")


def outside(file):
    file.create_dataset("x", (4,), "i4", external=[("secret", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "i4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("x", layout)


def missing_chunks(file):
    file.create_dataset("x", (10**12, 8), "f2", chunks=(1000, 8))


def one_missing_chunk(file):
    file.create_dataset("x", (30, 8), "f2", chunks=(10, 8), fletcher32=True)[:20] = 1


def never_written(file):
    file.create_dataset("x", (10**12,), "f8")


def compressed_by_a_plugin(file):
    file.create_dataset("x", data=np.zeros((10**6, 4)), chunks=True, compression="lzf")


def large_chunks(file):
    """A few hundred kilobytes that would take a gigabyte of memory."""
    file.create_dataset("x", data=np.zeros((1 << 24, 8), np.uint8), chunks=(1 << 24, 8), compression="gzip", compression_opts=1)


def soft(file):
    file["y"] = [1]
    file["x"] = h5py.SoftLink("/y")


def group(file):
    file.create_group("x")


class TestHostile:
    @pytest.mark.parametrize("make", [
        external, outside, virtual, missing_chunks, one_missing_chunk, never_written, compressed_by_a_plugin, large_chunks, soft,
        group,
    ])
    def test_is_refused_by_name(self, tmp_path, make):
        (tmp_path / "secret").write_bytes(bytes(16))
        with h5py.File(tmp_path / "a.h5", "w") as file:
            make(file)
        with pytest.raises(DamagedFile, match=rf"{tmp_path / 'a.h5'}: not an intact store \(.*'x'.*\)") as caught:
            opened(tmp_path / "a.h5")
        assert caught.value.path == tmp_path / "a.h5"
        with pytest.raises(DamagedFile):
            check_store(tmp_path / "a.h5")

    @pytest.mark.parametrize("content", [b"", b"x", b"\x89HDF\r\n\x1a\n" + bytes(100)])
    def test_no_hdf5_at_all(self, tmp_path, content):
        (tmp_path / "a.h5").write_bytes(content)
        with pytest.raises(DamagedFile, match=r"a\.h5: not an intact store"):
            opened(tmp_path / "a.h5")

    def test_an_unfinished_store(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["cells"] = np.zeros(4)
        with pytest.raises(DamagedFile, match="image_ids"):
            check_store(tmp_path / "a.h5")
