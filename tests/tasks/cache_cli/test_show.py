"""`rcnn-cache show`, on damaged and hostile artefacts as well."""

import json
import os
import zipfile
from pathlib import Path

import h5py
import luigi
import numpy as np
import pytest
from safetensors.numpy import save_file

from tasks.cache_cli.previews import preview
from tasks.cache_cli.recipe import command_line
from tasks.engine.catalogue import Catalogue
from tests.tasks.cache_cli.artefacts import CACHE, OUTSIDE, powers_of


class TestShow:
    def test_what_it_tells(self, make, tool):
        entry = make(offset=3, power=3)
        powers = powers_of(entry)
        lines = tool("show", "SumNumbers").splitlines()
        assert lines[:3] == [entry.name, f"key        {entry.key}", "used by    no result"]
        for line in (
            f"input      powers  {powers.name}", "setting    offset 3  (default 0)", "setting    seed 0",
            "setting    power 3.0  (default 2.0)", "figure     sum 3028", "  sum.json  6 B", "    3028", "    a list of 10",
            "again      luigi --module tasks SumNumbers --offset 3 --power 3.0 --shard-size 4",
        ):
            assert line in lines
        assert not any(line.startswith("setting    numbers") for line in lines)

    def test_shards(self, make, tool):
        powers = powers_of(make())
        shards = Catalogue(CACHE).shards(powers)
        lines = tool("show", "RaiseNumbers").splitlines()
        (size,) = [line for line in lines if line.startswith("size")]
        assert f"({powers.size / 1000:.1f} kB without its 3 shards)" in size
        assert [line.split()[2] for line in lines if line.startswith("shard ")] == [shard.name for shard in shards.values()]
        assert lines.count("  powers.json  21 B") == 1
        assert lines[lines.index("  powers.json  21 B") :][1:4] == ["    a list of 4", "    1", "    4"]

    def test_of_other_code(self, make, stages, tool, monkeypatch):
        entry = make()
        assert "another key" not in tool("show", entry.name)
        monkeypatch.setattr(stages.ListNumbers, "version", 2)
        assert "today's code gives another key: ListNumbers is at version 2, was at 1" in tool("show", entry.name)
        powers = powers_of(entry)
        (CACHE / powers.name / "manifest.json").unlink()
        assert f"powers  {powers.name}  (no longer in the cache)" in tool("show", entry.name)

    @pytest.mark.parametrize("configured", [None, "3"])
    def test_command_gives_the_same_key(self, make, task_of, configured):
        """Whatever luigi.cfg says."""
        for settings in ({}, {"offset": -3, "power": 3}, {"numbers": "../more numbers"}):
            (Path.cwd().parent / "more numbers").write_text("4 5 6 7 8")
            make(**settings)
        catalogue, wanted = Catalogue(CACHE), set()
        if configured:
            luigi.configuration.get_config().set("trivial", "power", configured)
        try:
            for entry in catalogue.entries.values():
                command = command_line(catalogue, entry)
                assert task_of(command).key == entry.key
                assert ("--power 3.0" in command) == (entry.manifest["settings"].get("power") == "3.0")
                wanted.add((entry.stage, entry.is_shard))
        finally:
            luigi.configuration.get_config().remove_section("trivial")
        assert len(wanted) == 4


def lines_of(path: Path, content: bytes | None = None) -> list[str]:
    if content is not None:
        path.write_bytes(content)
    return list(preview(path))


class TestPreview:
    def test_hdf5(self, tmp_path):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file.attrs["classes"] = ["cat", "dog"]
            file["group/values"] = np.arange(24, dtype=np.float16).reshape(4, 6)
            file["ids"] = np.array([b"one", b"two"], h5py.string_dtype())
            file["none"] = np.zeros((0, 3), np.int32)
        assert lines_of(path) == [
            "classes = ['cat' 'dog']", "group/values  float16 [4 x 6]", "  [0. 1. 2. 3. 4. 5.]", "  [ 6. 7. 8. 9. 10. 11.]",
            "  [12. 13. 14. 15. 16. 17.]", "ids  text [2]", "  ['one' 'two']", "none  int32 [0 x 3]",
        ]
        (line,) = lines_of(path, path.read_bytes()[:-100])
        assert line.startswith("cannot be read: ")
        assert "truncated" in line

    def test_hdf5_that_leads_to_other_files(self, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text(OUTSIDE)
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["x"] = np.frombuffer(OUTSIDE.encode(), np.int8)
        layout = h5py.VirtualLayout((27,), np.int8)
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (27,))
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["external"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
            file.create_virtual_dataset("virtual", layout)
            file.create_dataset("stored", (27,), "i1", external=[(str(secret), 0, 27)])
        text = "  its data is in another file, which is not opened"
        assert lines_of(tmp_path / "a.h5") == [f"stored{text}", f"virtual{text}"]

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "a.npz", W=np.arange(10.0).reshape(5, 2), scale=0.5, names=np.array(["cat"]))
        assert lines_of(tmp_path / "a.npz") == [
            "W  float64 [5 x 2]", "  [0. 1.]", "  [2. 3.]", "  [4. 5.]", "scale  float64 []", "  0.5",
            "names  <U3 [1]", "  ['cat']",
        ]

    def test_pickle_is_not_run(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "exploded"),))

        np.savez(tmp_path / "a.npz", bomb=np.array([Bomb()], object))
        (line,) = lines_of(tmp_path / "a.npz")
        assert "Object arrays cannot be loaded" in line
        assert not (tmp_path / "exploded").exists()

    def test_what_declares_more_than_is_looked_into(self, tmp_path):
        """A chunk is read whole for its first value; a shape is refused before memory is asked for."""
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("chunk", (10**9,), "u1", chunks=(10**9,), compression="gzip")
            file.create_dataset("long", (10**9,), "u1", chunks=(1000,))
            file.create_dataset("wide", (3,), "S100000000", chunks=(1,))
        chunk, long, row, wide = lines_of(tmp_path / "a.h5")
        assert chunk == "chunk  uint8 [1000000000]; its first part takes 1000000000 bytes, too many to read here"
        assert (long, row) == ("long  uint8 [1000000000]", "  [0 0 0 0 0 0]")
        assert wide.startswith("wide  |S100000000 [3]; its first part takes 100000000 bytes")
        np.savez(tmp_path / "a.npz", good=1)
        with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
            head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4000000,), }"
            archive.writestr("bad.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
        assert lines_of(tmp_path / "a.npz")[:2] == ["good  int64 []", "  1"]
        assert lines_of(tmp_path / "a.npz")[2].startswith("cannot be read: array 'bad' claims the shape (4000000,)")

    def test_safetensors(self, tmp_path):
        save_file({"w": np.array([[1, 2]], np.float32)}, tmp_path / "a.safetensors")
        assert lines_of(tmp_path / "a.safetensors") == ["w  F32 [1 x 2]", "  [1. 2.]"]
        header = json.dumps({"b": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
        content = len(header).to_bytes(8, "little") + header + b"\0\0"
        assert lines_of(tmp_path / "a.safetensors", content) == ["b  BF16 [1]"]

    @pytest.mark.parametrize(("name", "content", "lines"), [
        ("a.json", b'{"b": [1, 2.50], "a": null}', ["b: [1,2.5]", "a: null"]),
        ("a.json", b'{"0":0,"1":0,"2":0,"3":0,"4":0,"5":0,"6":0}', [*(f"{i}: 0" for i in range(5)), "... and 2 more: 5, 6"]),
        ("a.json", b"[" * 100_000, ["cannot be read: a.json: not readable as JSON (nested too deeply)"]),
        ("a.csv", b"step,loss\n1,0.5\n", ["step,loss", "1,0.5"]),
        ("a.txt", "é\n".encode() * 3000, [*["é"] * 5, "... the beginning of 9.0 kB"]),
        ("a.csv", b"1\n" * 6, [*["1"] * 5, "... the beginning of 12 B"]),
        ("a.jpg", b"\xff\xd8\xff\x00", []),
        ("a.txt", b"", []),
    ])
    def test_text(self, tmp_path, name, content, lines):
        assert [line[: len(wanted)] for line, wanted in zip(lines_of(tmp_path / name, content), lines, strict=True)] == lines
