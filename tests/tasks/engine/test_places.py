"""Links and other foreign things in the cache are refused by name or ignored. Their targets stay the same, byte for byte."""

import contextlib
import os
import signal
import socket

import pytest

from tasks.engine import building, locks
from tasks.engine.artefacts import Artefact, DamagedArtefact
from tasks.engine.cores import held_cores
from tasks.engine.errors import UserError
from tasks.engine.places import cache_folder, open_plain, own_folder
from tasks.engine.workshop import Workshop, remove, sweep

KEY = "0123456789ab" + "c" * 52
# Below the cache; `{stage}` and `{key}` are those of the artefact that is built.
FOLDERS = [
    ".locks", ".work", ".work/{stage}-{key}", ".work/{stage}-{key}/files", ".work/{stage}-{key}/aside",
    ".work/{stage}-{key}/checkpoint", "{stage}", "{stage}/{key}",
]
LOCKS = [".locks/{stage}-{key}.lock", ".locks/cores-{host}-0.lock", ".locks/cores-{host}.lock", ".locks/other.lock"]
FILES = [".work/{stage}-{key}/key", *LOCKS]
# The others are in folders that a killed run left, and may be removed with them.
REFUSED = [".locks", ".work", ".work/{stage}-{key}", "{stage}", "{stage}/{key}", *LOCKS]


def contents(folder) -> dict:
    """Everything in a folder by name: the target of a link, the content of a file, None for a folder; and the modes."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        what = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        entries[str(path.relative_to(folder))] = (what, path.lstat().st_mode)
    return entries


@pytest.fixture
def task(stages, tmp_path, monkeypatch):
    """A stage of numbers, to be built in `cache`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.txt").write_text("1\n2\n")
    (tmp_path / "cache").mkdir()
    building.sweep_once.cache_clear()
    yield stages.ListNumbers()
    building.sweep_once.cache_clear()


@pytest.fixture
def outside(tmp_path, task):
    """A folder outside the cache, with files and folders of all names that the cache uses."""
    folder = tmp_path / "outside"
    for name in ("precious", "index.json", "manifest.json", "files/precious", "aside/precious", "checkpoint/precious"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"precious {name}")
    (folder / "key").write_text(task.artefact.key)
    for name in (f"{task.stage}-0123456789ab", task.artefact.folder.name):
        (folder / name / "files").mkdir(parents=True)
        (folder / name / "files" / "precious").write_text("precious")
    (folder / "other.lock").write_text("precious")
    return folder


def put(task, place: str, key: bool) -> os.PathLike:
    """Makes the parent of `place` and returns the path; with `key`, the work folder is one that the same task left."""
    names = {"stage": task.stage, "key": task.artefact.folder.name, "host": socket.gethostname()}
    path = task.artefact.cache / place.format(**names)
    path.parent.mkdir(parents=True, exist_ok=True)
    if key and path.parent.parent.name == ".work" and path.name != "key":
        (path.parent / "key").write_text(task.artefact.key)
        if path.name != "checkpoint":  # without one, it would be swept
            (path.parent / "checkpoint").mkdir()
            (path.parent / "checkpoint" / "epoch").write_text("1")
    return path


def build(stages, task) -> str:
    """Builds the task; returns the message of the refusal, or an empty text if the artefact was made."""
    try:
        stages.make(task)
    except UserError as error:
        return str(error)
    task.artefact.check()
    assert not task.artefact.folder.is_symlink()
    return ""


class TestLink:
    @pytest.mark.parametrize("key", [True, False], ids=["resumed", "new"])
    @pytest.mark.parametrize("target", ["outside", "outside/precious", "outside/gone"], ids=["folder", "file", "dangling"])
    @pytest.mark.parametrize("place", [*FOLDERS, *FILES])
    def test_in_place_of_what_is_ours(self, stages, task, outside, place, target, key):
        path = put(task, place, key)
        path.symlink_to(outside.parent / target)
        before = contents(outside)
        message = build(stages, task)
        assert contents(outside) == before
        assert str(path) in message or not message
        if place in REFUSED:
            assert f"{path}: a link, to {outside.parent / target}; " in message
            assert "remove it" in message
            path.unlink()
            building.sweep_once.cache_clear()
            assert build(stages, task) == ""
            assert contents(outside) == before

    @pytest.mark.parametrize(("name", "target"), [("checkpoint", "outside"), ("key", "outside/key")])
    def test_in_the_folder_of_a_run_that_goes_on_is_refused(self, stages, task, outside, name, target):
        path = put(task, f".work/{{stage}}-{{key}}/{name}", True)
        path.symlink_to(outside.parent / target)
        if name == "key":
            (path.parent / "checkpoint").mkdir()
            (path.parent / "checkpoint" / "epoch").write_text("1")
        before = contents(outside)
        assert f"{path}: a link, to {outside.parent / target}; " in build(stages, task)
        assert contents(outside) == before

    def test_of_two_steps_and_in_a_circle(self, stages, task, outside):
        path = put(task, ".work", False)
        (outside.parent / "step").symlink_to(outside)
        for target in (outside.parent / "step", path.name):
            path.symlink_to(target)
            before = contents(outside)
            assert str(path) in build(stages, task)
            assert contents(outside) == before
            path.unlink()

    def test_in_place_of_the_damaged_artefacts(self, stages, task, outside):
        stages.make(task)
        place = task.artefact.cache / ".damaged"
        place.symlink_to(outside)
        (task.artefact.folder / "index.json").write_text("{}")
        before = contents(outside)
        with pytest.raises(DamagedArtefact, match=f"remove the folder {task.artefact.folder}, and the same command"):
            task.artefact.json("index.json")
        assert contents(outside) == before
        assert (task.artefact.folder / "index.json").read_text() == "{}"

    def test_in_place_of_a_finished_artefact_is_refused_though_it_is_sound(self, stages, task, outside):
        stages.make(task)
        task.artefact.folder.rename(outside / "moved")
        task.artefact.folder.symlink_to(outside / "moved")
        before = contents(outside)
        with pytest.raises(UserError, match=f"{task.artefact.folder}: a link"):
            task.complete()
        assert contents(outside) == before

    def test_that_is_the_cache_itself_is_followed(self, stages, task, tmp_path):
        (tmp_path / "cache").rmdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "cache").symlink_to("elsewhere")
        assert build(stages, task) == ""
        assert (tmp_path / "elsewhere" / task.stage).is_dir()
        sweep(tmp_path / "cache")

    def test_in_place_of_the_work_folder_after_the_sweep(self, task, outside):
        workshop = Workshop(task.artefact)
        cache_folder(task.artefact.cache, ".work")
        workshop.folder.symlink_to(outside)
        before = contents(outside)
        with pytest.raises(UserError, match=f"{workshop.folder}: a link"):
            workshop.open()
        assert contents(outside) == before

    def test_remove_takes_the_link_alone(self, outside, tmp_path):
        (tmp_path / "link").symlink_to(outside)
        before = contents(outside)
        remove(tmp_path / "link")
        assert contents(outside) == before
        assert not os.path.lexists(tmp_path / "link")


class TestLockFile:
    @pytest.mark.parametrize("place", LOCKS)
    def test_of_two_names_is_refused(self, stages, task, outside, place):
        path = put(task, place, False)
        path.hardlink_to(outside / "precious")
        before = contents(outside)
        fault = "a file with two names (hard links), expected a file that this program made; remove it"
        assert f"{path}: {fault}" in build(stages, task)
        assert contents(outside) == before
        path.unlink()
        building.sweep_once.cache_clear()
        assert build(stages, task) == ""

    @pytest.mark.parametrize("place", LOCKS)
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
    def test_that_is_none_is_refused_and_not_waited_for(self, stages, task, place, make):
        path = put(task, place, False)
        make(path)
        with within(5):
            assert str(path) in build(stages, task)
        assert os.path.lexists(path)

    @pytest.mark.parametrize("ask", [locks.is_held, locks._holder], ids=["is_held", "holder"])
    @pytest.mark.parametrize("kind", ["pipe", "link", "hard link"])
    def test_is_not_asked_when_it_is_a_stranger(self, tmp_path, outside, ask, kind):
        path = tmp_path / "a.lock"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(outside / "precious")
        else:
            path.hardlink_to(outside / "precious")
        with within(5), pytest.raises(UserError, match=r"a\.lock: "):
            ask(path)

    def test_of_a_core_is_refused_by_whoever_wants_cores(self, tmp_path, outside):
        path = cache_folder(tmp_path / "cache", ".locks") / f"cores-{socket.gethostname()}-0.lock"
        path.symlink_to(outside / "precious")
        before = contents(outside)
        with pytest.raises(UserError, match=f"{path}: a link"), held_cores(tmp_path / "cache", 1, 1, pytest.fail):
            pass
        assert contents(outside) == before


@contextlib.contextmanager
def within(seconds: int):
    """Makes a test fail that takes longer."""

    def stop(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class TestSweep:
    @pytest.mark.parametrize("name", [
        "notes", "Stage-1", "-0123456789ab", "Stage-0123456789AB", "Stage-0123456789abc", "Stage0123456789ab", "0123456789ab",
    ])
    def test_leaves_folders_alone_that_are_not_ours(self, tmp_path, name):
        for inner in ("files", "aside", "checkpoint"):
            (tmp_path / ".work" / name / inner).mkdir(parents=True)
            (tmp_path / ".work" / name / inner / "precious").write_text("precious")
        before = contents(tmp_path)
        sweep(tmp_path)
        assert contents(tmp_path) == before

    def test_clears_ours_but_for_checkpoints(self, tmp_path):
        for name, inner in (("Stage-0123456789ab", "checkpoint"), ("A-b-0123456789ab", "none")):
            for folder in ("files", "aside", inner):
                (tmp_path / ".work" / name / folder).mkdir(parents=True)
                (tmp_path / ".work" / name / folder / "x").write_text("x")
        sweep(tmp_path)
        assert [name for name in contents(tmp_path) if name.endswith("x")] == [".work/Stage-0123456789ab/checkpoint/x"]
        assert not (tmp_path / ".work" / "A-b-0123456789ab").exists()

    def test_leaves_what_another_process_holds(self, tmp_path):
        workshop = Workshop(Artefact(tmp_path, "Stage", KEY))
        with workshop.lock():
            workshop.open()
            workshop.write("a", "a")
            before = contents(tmp_path)
            sweep(tmp_path)
            assert contents(tmp_path) == before

    def test_follows_no_link_in_a_folder_of_ours(self, tmp_path, outside):
        folder = tmp_path / ".work" / "Stage-0123456789ab"
        (folder / "files").mkdir(parents=True)
        for path in (folder / "files" / "link", folder / "aside", folder / "checkpoint"):
            path.symlink_to(outside)
        before = contents(outside)
        with contextlib.suppress(UserError):
            sweep(tmp_path)
        assert contents(outside) == before


class TestFolders:
    def test_file_in_the_way(self, tmp_path):
        (tmp_path / "cache").write_text("precious")
        with pytest.raises(UserError, match=r"cache: a file, expected a folder; remove it, or give another .*--cache-dir"):
            cache_folder(tmp_path / "cache", ".work")
        with pytest.raises(UserError, match="cache: cannot be written: File exists; something is in the way: remove it"):
            own_folder(tmp_path / "cache")
        assert (tmp_path / "cache").read_text() == "precious"

    def test_open_plain_makes_and_opens_files_of_one_name(self, tmp_path):
        path = tmp_path / "a"
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            os.close(open_plain(path, flags))
        with pytest.raises(FileNotFoundError):
            open_plain(tmp_path / "b", os.O_RDONLY)
        with pytest.raises(UserError, match="not a regular file, expected a file that this program made; remove it"):
            open_plain(tmp_path, os.O_RDONLY)
