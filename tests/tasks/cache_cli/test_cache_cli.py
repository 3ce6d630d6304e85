"""`rcnn-cache` on the artefacts of trivial stages, damaged and hostile ones among them."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

import h5py
import luigi
import numpy as np
import pytest
from safetensors.numpy import save_file

from tasks.cache_cli import main
from tasks.cache_cli.previews import preview
from tasks.cache_cli.recipe import command_line
from tasks.engine import locks
from tasks.engine.catalogue import Catalogue, Entry
from tasks.engine.manifest import describe_files, digest_files, seal

HERE = Path(__file__).resolve().parents[1]
REPOSITORY = HERE.parents[1]
CACHE = Path("cache")
OUTSIDE = "what lies outside the cache"


def forget() -> None:
    luigi.task_register.Register.clear_instance_cache()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sum of the powers of ten numbers in its cache: the list, the powers in three shards, the sum."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.chdir(folder)
        Path("numbers.txt").write_text("1 2 3 4 5 6 7 8 9 10")
        Path("secret").write_text(OUTSIDE)
        stages = importlib.import_module("trivial_stages")
        stages.make(stages.SumNumbers(shard_size=4))
    return folder


@pytest.fixture
def make(stages, built, tmp_path, monkeypatch):
    """A function that makes the sum with other settings in the working directory, a copy of `built`."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def made(**settings) -> Entry:
        forget()
        task = stages.make(stages.SumNumbers(**{"shard_size": 4, **settings}))
        return Catalogue(CACHE).entries[str(task.artefact)]

    return made


@pytest.fixture
def total(make) -> Entry:
    """The latest result."""
    entry = make()
    (CACHE / "latest").symlink_to(entry.name)
    return entry


@pytest.fixture
def tool(capsys):
    """Runs `rcnn-cache`, checks the exit status and returns what was printed, on both streams."""

    def run(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments]) == status
        return "".join(capsys.readouterr())

    return run


def powers_of(entry: Entry) -> Entry:
    catalogue = Catalogue(CACHE)
    return catalogue.get(entry.manifest["inputs"]["powers"])


class TestLs:
    def test_line_of_each_artefact_but_shards(self, make, total, tool):
        other = make(offset=3)
        stages = [line[:22].strip() for line in tool("ls").splitlines()]
        assert stages == ["stage", "ListNumbers", "RaiseNumbers", "SumNumbers", "SumNumbers", "all of them: shard_siz"]
        lines = {line[:22].strip(): line for line in tool("ls").splitlines() if other.folder.name not in line}
        powers = powers_of(total)
        sizes = [sum(path.stat().st_size for path in folder.iterdir()) / 1000 for folder in
                 (powers.folder, *(shard.folder for shard in Catalogue(CACHE).shards(powers).values()))]
        assert lines["RaiseNumbers"].split()[3:] == [
            "s", f"{sum(sizes):.1f}", "kB", f"{sizes[0]:.1f}", "kB", "latest", "shard_size=4"
        ]
        assert lines["all of them: shard_siz"].endswith("shard_size=4")
        (line,) = [line for line in tool("ls").splitlines() if other.folder.name in line]
        assert line.split()[-2:] == ["-", "offset=3"]

    def test_users(self, make, stages, total, tool, monkeypatch):
        monkeypatch.setattr("tasks.cache_cli.listing.RESULTS", ("SumNumbers",))
        keys = [make(offset=offset).key[:4] for offset in (1, 2)]
        (line,) = [line for line in tool("ls").splitlines() if line.startswith("ListNumbers")]
        assert f"  latest {keys[1]} +1" in line
        (line,) = [line for line in tool("ls").splitlines() if line[24:28] == keys[0]]
        assert f"  {keys[0]}  " in line

    def test_terminal(self, make, total, tool, monkeypatch):
        make(numbers="../" * 60 + f"{Path.cwd()}/numbers.txt", offset=1)
        whole = tool("ls").splitlines()
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "120")
        lines = tool("ls").splitlines()
        assert len(lines) == len(whole)
        assert max(map(len, lines)) == 120 < max(map(len, whole))

    def test_sizes(self, make, total, tool):
        make(offset=1)
        lines = {line.split()[0]: line.split()[1:] for line in tool("du").splitlines()}
        files = [path for path in CACHE.glob("*/*/*") if path.is_file()]
        assert lines["RaiseNumbers"][0] == "4"
        assert lines["SumNumbers"][0] == "2"
        everything = sum(path.stat().st_size for path in files) / 1000
        unneeded = sum(path.stat().st_size for path in files if path.parent.parent.name == "SumNumbers"
                       and path.parent != total.folder) / 1000
        assert lines["total"] == ["7", f"{everything:.1f}", "kB", f"{everything - unneeded:.1f}", "kB"]


class TestFind:
    def test_names_that_lead_to_one(self, make, total):
        newer = make(offset=1)
        catalogue = Catalogue(CACHE)
        for wanted in (total.key, total.key[:9].upper(), total.name[:15], f"cache/{total.name}/", "latest", "SumNumbers"):
            assert catalogue.find(wanted).name == total.name, wanted
        assert catalogue.find("RaiseNumbers").name == powers_of(total).name  # and no shard
        (CACHE / "latest").unlink()
        assert Catalogue(CACHE).find("SumNumbers").name == newer.name

    def test_none_and_several(self, total, tool):
        assert "no artefact 'Sum'; `rcnn-cache ls` lists them" in tool("show", "Sum", status=2)
        assert "no artefact ''" in tool("show", "", status=2)
        assert "no artefact 'ListNumbers/" in tool("show", f"ListNumbers/{total.key[:8]}", status=2)
        names = [entry.name for entry in Catalogue(CACHE).entries.values() if entry.stage == "RaiseNumbers"]
        for number, name in enumerate(names):
            rename(name, f"{'0' * 11}{number}")
        output = tool("show", "RaiseNumbers/00", status=2)
        listed = "".join(f"\n  RaiseNumbers/00000000000{number}" for number in range(4))
        assert f"'RaiseNumbers/00' is the beginning of 4 keys; give more digits or the stage:{listed}\n" in output


def rename(name: str, digits: str) -> None:
    """Gives the artefact `name` a key that begins with `digits`."""
    folder = CACHE / name
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"key": digits + manifest["key"][12:]}))
    folder.rename(folder.parent / digits)


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


def told(path: Path, content: bytes | None = None) -> list[str]:
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
        assert told(path) == [
            "classes = ['cat' 'dog']", "group/values  float16 [4 x 6]", "  [0. 1. 2. 3. 4. 5.]", "  [ 6. 7. 8. 9. 10. 11.]",
            "  [12. 13. 14. 15. 16. 17.]", "ids  text [2]", "  ['one' 'two']", "none  int32 [0 x 3]",
        ]
        (line,) = told(path, path.read_bytes()[:-100])
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
        assert told(tmp_path / "a.h5") == [f"stored{text}", f"virtual{text}"]

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "a.npz", W=np.arange(10.0).reshape(5, 2), scale=0.5, names=np.array(["cat"]))
        assert told(tmp_path / "a.npz") == [
            "W  float64 [5 x 2]", "  [0. 1.]", "  [2. 3.]", "  [4. 5.]", "scale  float64 []", "  0.5",
            "names  <U3 [1]", "  ['cat']",
        ]

    def test_pickle_is_not_run(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "exploded"),))

        np.savez(tmp_path / "a.npz", bomb=np.array([Bomb()], object))
        (line,) = told(tmp_path / "a.npz")
        assert "Object arrays cannot be loaded" in line
        assert not (tmp_path / "exploded").exists()

    def test_what_declares_more_than_is_looked_into(self, tmp_path):
        """A chunk is read whole for its first value; a shape is refused before memory is asked for."""
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("chunk", (10**9,), "u1", chunks=(10**9,), compression="gzip")
            file.create_dataset("long", (10**9,), "u1", chunks=(1000,))
            file.create_dataset("wide", (3,), "S100000000", chunks=(1,))
        chunk, long, row, wide = told(tmp_path / "a.h5")
        assert chunk == "chunk  uint8 [1000000000]; its first part takes 1000000000 bytes, too many to read here"
        assert (long, row) == ("long  uint8 [1000000000]", "  [0 0 0 0 0 0]")
        assert wide.startswith("wide  |S100000000 [3]; its first part takes 100000000 bytes")
        np.savez(tmp_path / "a.npz", good=1)
        with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
            head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4000000,), }"
            archive.writestr("bad.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
        assert told(tmp_path / "a.npz")[:2] == ["good  int64 []", "  1"]
        assert told(tmp_path / "a.npz")[2].startswith("cannot be read: array 'bad' claims the shape (4000000,)")

    def test_safetensors(self, tmp_path):
        save_file({"w": np.array([[1, 2]], np.float32)}, tmp_path / "a.safetensors")
        assert told(tmp_path / "a.safetensors") == ["w  F32 [1 x 2]", "  [1. 2.]"]
        header = json.dumps({"b": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
        content = len(header).to_bytes(8, "little") + header + b"\0\0"
        assert told(tmp_path / "a.safetensors", content) == ["b  BF16 [1]"]

    @pytest.mark.parametrize(("name", "content", "lines"), [
        ("a.json", b'{"b": [1, 2.50], "a": null}', ["b: [1,2.5]", "a: null"]),
        ("a.json", b'{"0":0,"1":0,"2":0,"3":0,"4":0,"5":0,"6":0}', [*(f"{i}: 0" for i in range(5)), "... and 2 more: 5, 6"]),
        ("a.json", b"[" * 100_000, ["cannot be read: a.json: not readable as JSON (nested too deeply)"]),
        ("a.csv", b"step,loss\n1,0.5\n", ["step,loss", "1,0.5"]),
        ("a.txt", "é\n".encode() * 3000, ["é"] * 5),
        ("a.jpg", b"\xff\xd8\xff\x00", []),
        ("a.txt", b"", []),
    ])
    def test_text(self, tmp_path, name, content, lines):
        assert [line[: len(wanted)] for line, wanted in zip(told(tmp_path / name, content), lines, strict=True)] == lines


def flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def insert_space(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n ", b"\n  ", 1))


def make_consistent(folder: Path, name: str | None = None, content: bytes = b"") -> None:
    """Adds a space to a file of the artefact, or writes `content`, and makes its manifest right."""
    path = folder / (name or "index.json")
    path.write_bytes(content or path.read_bytes() + b" ")
    manifest, files = json.loads((folder / "manifest.json").read_text()), describe_files(folder)
    del manifest["seal"]
    (folder / "manifest.json").write_bytes(seal(manifest | {"files": files, "digest": digest_files(files)}))


def edit(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


RECORD = {"size": 27, "sha256": "0" * 64}
FOREIGN, OUT = "foreign file: no stage wrote it", "link out of the cache: to"
UNSEALED = "{}/manifest.json: changed: its bytes differ from those that were written"
LOST = ["cache/latest: link: to SumNumbers/*", "{}: damaged: no readable manifest.json of this key"]
# What is done to the folder of the latest result, and the lines that tell of it; `{}` is the folder.
DAMAGES = {
    "flipped byte": (lambda folder: flip(folder / "powers.json"), ["{}/powers.json: changed: content differs from *SHA-256"]),
    "truncated": (lambda folder: os.truncate(folder / "sum.json", 1), ["{}/sum.json: truncated: 1 bytes, expected 5"]),
    "longer": (lambda folder: (folder / "sum.json").write_text("385.00"), ["{}/sum.json: changed: 6 bytes, expected 5"]),
    "missing": (lambda folder: (folder / "sum.json").unlink(), ["{}/sum.json: missing: listed in its manifest.json"]),
    "foreign file": (lambda folder: (folder / "x\n\033[2J").touch(), ["{}/x\\n\\x1b?2J: " + FOREIGN]),
    "foreign folder": (lambda folder: (folder / "sub/sub").mkdir(parents=True), ["{}/sub: foreign folder: not in its *"]),
    "foreign stage": (lambda folder: Path("cache/my/notes").mkdir(parents=True), ["cache/my/notes: foreign folder: not an *"]),
    "beside the keys": (lambda folder: (folder.parent / "x").touch(), ["cache/SumNumbers/x: " + FOREIGN]),
    "beside the stages": (lambda folder: Path("cache/x").touch(), ["cache/x: " + FOREIGN]),
    "dangling link": (lambda folder: (folder / "x").symlink_to("gone"), ["{}/x: dangling link: to gone"]),
    "link out": (lambda folder: (folder / "x").symlink_to("../../../secret"), [f"{{}}/x: {OUT} ../../../secret; *"]),
    "link to a folder": (lambda folder: (folder / "x").symlink_to("/"), [f"{{}}/x: {OUT} /; *"]),
    "stage made a link": (lambda folder: Path("cache/x").symlink_to("/"), [f"cache/x: {OUT} /; *"]),
    "link inside": (lambda folder: (folder / "x").symlink_to("sum.json"), ["{}/x: link: to sum.json; *"]),
    "file made a link": (
        lambda folder: [(folder / "sum.json").unlink(), (folder / "sum.json").symlink_to(Path("secret").absolute())],
        [f"{{}}/sum.json: {OUT} /*/secret; *"],
    ),
    "pipe": (lambda folder: os.mkfifo(folder / "x"), ["{}/x: neither a file nor a folder"]),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), LOST),
    "manifest made a pipe": (
        lambda folder: [(folder / "manifest.json").unlink(), os.mkfifo(folder / "manifest.json")], LOST,
    ),
    "manifest made a link": (
        lambda folder: [(folder / "manifest.json").rename("away"), (folder / "manifest.json").symlink_to("../../../away")],
        [*LOST, f"{{}}/manifest.json: {OUT} ../../../away; *"],
    ),
    "other settings": (
        lambda folder: edit(folder, parameters={"offset": 1, "seed": 0}),
        [UNSEALED, "{}/manifest.json: changed: its key does not match the settings and inputs that it lists"],
    ),
    "other figures": (lambda folder: edit(folder, figures={"sum": 386}), [UNSEALED]),
    "flipped byte of the manifest": (lambda folder: flip(folder / "manifest.json", 4), [UNSEALED]),
    "space in the manifest": (lambda folder: insert_space(folder / "manifest.json"), [UNSEALED]),
    "made anew with other bytes": (
        lambda folder: make_consistent(next(CACHE.glob("ListNumbers/*"))),
        ["cache/ListNumbers/*: changed: its digest is *, *Numbers/* recorded *"],
    ),
    "never right": (
        lambda folder: make_consistent(folder, "sum.json", b"[385"), ["{}/sum.json: unreadable: Expecting ',' delimiter*"],
    ),
    "locks made a link": (
        lambda folder: Path("cache/.locks").rmdir() or Path("cache/.locks").symlink_to("/"), [f"cache/.locks: {OUT} /; *"],
    ),
    "link among the locks": (
        lambda folder: Path("cache/.locks/a.lock").symlink_to(Path("secret").absolute()), [f"cache/.locks/a.lock: {OUT} *"],
    ),
    "link in unfinished work": (
        lambda folder: [Path("cache/.work/Stage-1").mkdir(), Path("cache/.work/Stage-1/files").symlink_to("/")],
        [f"cache/.work/Stage-1/files: {OUT} /; *"],
    ),
    "memory made a link": (
        lambda folder: [CACHE.joinpath(".digests.sqlite").unlink(True), CACHE.joinpath(".digests.sqlite").symlink_to("/etc/x")],
        ["cache/.digests.sqlite: dangling link: to /etc/x"],
    ),
    "paths out": (
        lambda folder: edit(folder, files={"../../../secret": RECORD, "/etc/passwd": RECORD}),
        [UNSEALED, "{}/manifest.json: changed: its digest does not match the files that it lists", *(
            f"{{}}/manifest.json: path out of the artefact: names the file '{path}'"
            for path in ("../../../secret", "/etc/passwd")
        ), *(f"{{}}/{name}.json: {FOREIGN}" for name in ("powers", "sum"))],
    ),
    "lost shard": (
        lambda folder: next(CACHE.glob("RaiseNumbers/*/powers.json")).parent.rename("away"),
        ["cache/RaiseNumbers/*: missing: its shard [0-2], RaiseNumbers/*"],
    ),
}


@pytest.mark.parametrize(("damage", "faults"), DAMAGES.values(), ids=DAMAGES)
def test_verify_names_what_is_wrong(total, tool, damage, faults):
    assert tool("verify") == "6 artefacts checked, 0 faults\n"
    damage(total.folder)
    *lines, last = tool("verify", status=1).splitlines()
    advice = "remove the folders of damaged artefacts and everything foreign, and run again"
    assert last.endswith(f" artefacts checked, {len(faults)} faults; {advice}")
    for line, fault in zip(lines, faults, strict=True):
        assert fnmatchcase(line, fault.replace("{}", str(total.folder))), line


@pytest.mark.parametrize("name", ["paths out", "link out", "link to a folder", "file made a link", "pipe", "foreign file"])
def test_show_follows_nothing_out_of_the_artefact(total, tool, name):
    DAMAGES[name][0](total.folder)
    output = tool("show", f"SumNumbers/{total.folder.name}")
    assert OUTSIDE not in output
    assert "root:" not in output
    assert "\033" not in output
    assert "does not belong to this artefact; see `rcnn-cache verify`" in output


class TestDiff:
    def test_setting(self, make, tool):
        one, other = make(), make(offset=3)
        assert tool("diff", one.key, other.key) == f"{one.name} and {other.name} differ in\n  offset: 0 | 3\n"

    def test_setting_of_an_input(self, make, tool):
        one, other = make(), make(power=3)
        inputs = " | ".join(powers_of(entry).name for entry in (one, other))
        assert tool("diff", one.key, other.key).splitlines()[1:] == [f"  input powers: {inputs}", "    power: 2 | 3"]

    def test_version_and_file_at_the_root(self, make, stages, tool, monkeypatch):
        one = make()
        Path("numbers.txt").rename("other")
        with open("other", "a") as file:
            file.write(" 11")
        monkeypatch.setattr(stages.ListNumbers, "version", 2)
        other = make(numbers="other")
        lines = tool("diff", one.key, other.key).splitlines()[1:]
        assert [line.split(":")[0] for line in lines] == [
            "  input powers", "    input index", "      version", "      outside numbers", "      (setting numbers"
        ]
        assert lines[2].endswith("version: 1 | 2")
        assert lines[4].endswith('numbers: "numbers.txt" | "other")')

    def test_shards_of_other_images(self, make, tool):
        powers = powers_of(make())
        one, other, _ = Catalogue(CACHE).shards(powers).values()
        assert "the records of their images, which manifests do not contain" in tool("diff", one.key, other.key)

    def test_lost_input(self, make, tool):
        one, other = make(), make(power=3)
        lost = powers_of(one)
        (lost.folder / "manifest.json").unlink()
        assert f"the cause is unknown: no longer in the cache: {lost.name}" in tool("diff", one.key, other.key)

    def test_same_and_other_stage(self, total, tool):
        assert tool("diff", "latest", total.key) == f"{total.name}: both names mean this artefact\n"
        output = tool("diff", "latest", "ListNumbers", status=2)
        assert "are of different stages; only keys of one stage can be compared" in output


class TestPrune:
    def names(self) -> set[str]:
        return set(Catalogue(CACHE).entries)

    def test_what_latest_and_kept_keys_do_not_need_goes(self, make, total, tool):
        needed, kept = self.names(), make(offset=1)
        make(power=3)
        broken, foreign = CACHE / "SumNumbers" / ("0" * 12), CACHE / "SumNumbers" / "mine"
        broken.mkdir()
        foreign.mkdir()
        everything = self.names()
        output = tool("prune", "--dry-run", "--keep", kept.key)
        assert "6 folders" in output
        assert f"would remove {broken} (0 B)" in output
        assert self.names() == everything
        tool("prune", "--yes", "--keep", kept.key)
        assert self.names() == needed | {kept.name}
        assert (broken.exists(), foreign.exists()) == (False, True)
        tool("prune", "--yes")
        assert self.names() == needed

    @pytest.mark.parametrize(("answer", "left"), [("y", 6), ("n", 7), ("", 7)])
    def test_asks(self, make, total, tool, monkeypatch, answer, left):
        make(offset=1)
        monkeypatch.setattr("builtins.input", lambda question: answer)
        tool("prune")
        assert len(self.names()) == left

    @pytest.mark.parametrize("target", [None, "SumNumbers/000000000000", "../secret"])
    def test_refuses_without_latest_results(self, make, tool, target):
        make()
        if target:
            (CACHE / "latest").symlink_to(target)
        assert "it is unknown what is needed; nothing removed" in tool("prune", "--yes", status=1)
        assert len(self.names()) == 6

    def test_waits_for_a_running_build(self, make, total, tool):
        unneeded = make(offset=1)
        lock = CACHE / ".locks" / "SumNumbers-000000000000.lock"
        with locks.held(lock):
            assert "a run is building SumNumbers-000000000000; wait" in tool("prune", "--yes", status=1)
        assert unneeded.folder.exists()

    def test_lost_input_is_told_of(self, total, tool):
        lost = powers_of(total)
        (lost.folder / "manifest.json").unlink()
        output = tool("prune", "--dry-run")
        assert f"note: {total.name} was made from {lost.name}, which is missing or damaged" in output


def test_no_such_cache(tool):
    output = tool("--cache-dir", "nowhere", "ls", status=2)
    assert output == "rcnn-cache: nowhere: no such folder; run in the project's folder or give --cache-dir\n"


def test_all_but_show_import_no_arrays(total):
    code = """
import sys
from tasks.cache_cli import main
for words in (["ls"], ["du"], ["verify"], ["diff", "latest", "latest"], ["prune", "--dry-run"]):
    assert main(words) == 0
print([name for name in ("numpy", "h5py", "torch", "safetensors", "PIL") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
