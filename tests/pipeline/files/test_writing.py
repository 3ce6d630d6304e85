"""Files are whole or absent, and what a reader gets is what was given."""

import contextlib
import errno
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DamagedFile, PipelineError
from pipeline.files import writing
from pipeline.files.writing import (
    WriteError,
    cannot_write,
    copy_file,
    create,
    write_arrays,
    write_file,
    write_image,
)


def test_content_is_what_was_given(tmp_path):
    write_file(tmp_path / "a", b"12")
    write_file(tmp_path / "b", "é\n")
    with create(tmp_path / "c") as file:
        for number in range(1000):
            file.write(b"%d," % number * 1000)
    assert (tmp_path / "a").read_bytes() == b"12"
    assert (tmp_path / "b").read_bytes() == b"\xc3\xa9\n"
    assert (tmp_path / "c").read_bytes() == b"".join(b"%d," % number * 1000 for number in range(1000))
    copy_file(tmp_path / "c", tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == (tmp_path / "c").read_bytes()


def test_arrays_and_images_are_those_of_their_libraries(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "names": np.array(["x", "yy"])}
    np.savez(tmp_path / "theirs.npz", **arrays)
    write_arrays(tmp_path / "ours.npz", arrays)
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "theirs.npz").read_bytes()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8))
    for suffix in (".jpg", ".png", ".webp", ".bmp"):
        image.save(tmp_path / f"theirs{suffix}", quality=95)
        write_image(tmp_path / f"ours{suffix}", image, quality=95)
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def test_a_file_that_is_there_is_replaced_and_no_link_is_followed(tmp_path):
    (tmp_path / "precious").write_text("notes")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "file").write_text("long before")
    for name in ("link", "file"):
        write_file(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "precious").read_text() == "notes"


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_stays_of_a_block_that_fails(tmp_path, error):
    def fail():
        with create(tmp_path / "a") as file:
            file.write(b"x" * 5_000_000)
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loss", [
    lambda path: path.write_bytes(b"x" * 3 + b"\0" + b"x" * 6), lambda path: os.truncate(path, 9),
    lambda path: path.write_bytes(b"x" * 11), lambda path: path.write_bytes(b""),
])
def test_what_is_lost_without_a_word_is_noticed(tmp_path, monkeypatch, loss):
    compare = writing.compare
    monkeypatch.setattr(writing, "compare", lambda path, expected: (loss(path), compare(path, expected)))
    with pytest.raises(WriteError, match=f"what was written cannot be read back; .*: '{tmp_path / 'a'}'"):
        write_file(tmp_path / "a", b"x" * 10)
    assert list(tmp_path.iterdir()) == []


def write_within(limit, path, answer):
    """Writes 5 MB where no file may have more than `limit` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write_file(path, b"x" * 5_000_000)
    except WriteError as error:
        answer.put((error.filename, error.strerror))


@pytest.mark.parametrize("limit", [0, 1, 2_000_000, 4_999_999])
def test_a_system_that_takes_no_more_is_one_line_and_leaves_nothing(tmp_path, limit):
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    process = fork.Process(target=write_within, args=(limit, tmp_path / "a", answer))
    process.start()
    assert answer.get() == (str(tmp_path / "a"), "cannot be written: File too large")
    process.join()
    assert list(tmp_path.iterdir()) == []


def test_errors_that_are_not_of_the_file_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), create(tmp_path / "a"):
        os.stat(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "gone", tmp_path / "a")


def test_what_the_system_says_is_one_line():
    error = cannot_write("a", OSError(errno.ENOSPC, "x"))
    assert (error.errno, error.strerror) == (errno.ENOSPC, "cannot be written: No space left on device")
    error = pickle.loads(pickle.dumps(cannot_write("a", RuntimeError("first\nsecond"))))
    assert (error.errno, error.strerror, error.filename) == (errno.EIO, "cannot be written: first", "a")


def test_a_damaged_file_is_named_across_processes():
    error = pickle.loads(pickle.dumps(DamagedFile(Path("x/y"), "x/y: broken")))
    assert (error.path, str(error)) == (Path("x/y"), "x/y: broken")
    assert isinstance(error, PipelineError)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB of memory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_on_a_real_full_disk(small_disk):
    for size in (4 << 20, (4 << 20) + 1, 9 << 20):
        fits = size <= 4 << 20
        with contextlib.nullcontext() if fits else pytest.raises(WriteError, match="No space left on device"):
            write_file(small_disk / "a", bytes(size))
        assert [path.name for path in small_disk.iterdir()] == ["a"] * fits
        (small_disk / "a").unlink(missing_ok=True)


# These write in their own way: downloads have checksums, the engine compares its small files, the last sets a kernel switch.
ELSEWHERE = {
    "pipeline/files/writing.py", "pipeline/downloads.py", "tasks/engine/storage.py", "tasks/engine/memory.py",
    "tasks/engine/remote.py",
}
UNCHECKED = re.compile(
    r"\.write_(text|bytes)\(|savez\(|save_file\(|savefig\(path|copyfile\(|\.save\(path|open\([^)]*[\"'][wax]b?\+?[\"']"
)


def test_no_file_of_an_artefact_is_written_unchecked():
    root = Path(__file__).resolve().parents[3]
    sources = [path for folder in ("pipeline", "tasks") for path in (root / folder).rglob("*.py")]
    unchecked = [f"{path.relative_to(root)}: {line.strip()}" for path in sources for line in path.read_text().splitlines()
                 if UNCHECKED.search(line) and path.relative_to(root).as_posix() not in ELSEWHERE]
    assert unchecked == []
