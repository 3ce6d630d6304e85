"""Two builders of one key where locks do nothing: one whole artefact, no mixed files, and no folder that both use."""

import contextlib
import multiprocessing
import os
import shutil
import socket
import sys
import time

import pytest

from tasks.engine import locks, work_folders
from tasks.engine.artefacts import Artefact
from tasks.engine.workshop import Workshop, sweep

fork = multiprocessing.get_context("fork")
KEY = "0123456789ab" + "c" * 52
NEEDS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="zombies are told from the living by /proc")


@contextlib.contextmanager
def no_lock(path, wait=True, on_wait=None):
    yield True


def build(artefact, name: str, barrier) -> None:
    workshop = Workshop(artefact)
    with workshop.lock():
        workshop.open()
        for number in range(4):
            workshop.write(f"{number}.txt", f"of {name}")
            barrier.wait(60)
            if number == 2:
                sweep(artefact.cache)  # as each new process does
        workshop.publish({"by": name})
        workshop.close()


@pytest.fixture
def artefact(tmp_path):
    return Artefact(tmp_path / "cache", "Stage", KEY)


def test_the_first_wins_with_all_its_files(artefact, monkeypatch):
    monkeypatch.setattr(locks, "held", no_lock)
    barrier = fork.Barrier(3)
    builders = [fork.Process(target=build, args=(artefact, name, barrier)) for name in "abc"]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    artefact.check()
    texts = {(artefact.folder / f"{number}.txt").read_text() for number in range(4)}
    assert texts == {f"of {artefact.manifest['by']}"}
    assert not any((artefact.cache / ".work").iterdir())


def test_an_artefact_that_came_in_between_stays_and_one_that_was_there_goes(artefact):
    def publish(workshop: Workshop, text: str) -> None:
        workshop.write("a", text)
        workshop.publish({})

    first, second = Workshop(artefact), Workshop(artefact)
    second.folder = second.folder.with_name("Stage-0123456789ab.elsewhere-1")
    second.files, second.checkpoint = second.folder / "files", second.folder / "checkpoint"
    first.open()
    second.open()
    publish(first, "first")
    publish(second, "second")
    assert artefact.path("a").read_text() == "first"
    forced = Workshop(artefact)
    forced.open()
    publish(forced, "forced")
    assert artefact.path("a").read_text() == "forced"
    assert not any((artefact.cache / ".work").iterdir())


class TestLeftovers:
    @pytest.fixture
    def leave(self, artefact):
        """A function that leaves the work folder of another builder, with a checkpoint, `age` seconds old."""

        def leave(host: str = "", process: int = 0, *, checkpoint: str = "5", age: float = 0.0, key: str = KEY):
            name = f"Stage-0123456789ab{f'.{host}-{process}' if host else ''}"
            folder = artefact.cache / ".work" / name
            (folder / "files").mkdir(parents=True)
            (folder / "files" / "half").touch()
            (folder / "key").write_text(key)
            if checkpoint:
                (folder / "checkpoint").mkdir()
                (folder / "checkpoint" / "step").write_text(checkpoint)
            for path in (folder / "files", folder / "checkpoint", folder):
                if path.exists():
                    os.utime(path, (time.time() - age,) * 2)
            return folder

        return leave

    @pytest.fixture(params=("gone", pytest.param("unread", marks=NEEDS_PROC)))
    def dead(self, request):
        """The number of a process that has ended, and whose exit status nobody has read, as of orphans in a container."""
        process = os.fork()
        if process == 0:
            os._exit(0)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        if request.param == "gone":
            os.waitpid(process, 0)
        yield process
        if request.param == "unread":
            os.waitpid(process, 0)

    def open(self, artefact) -> str:
        workshop = Workshop(artefact)
        workshop.open()
        assert not any(workshop.files.iterdir())
        step = workshop.checkpoint / "step"
        return step.read_text() if step.exists() else ""

    def test_checkpoint_of_a_dead_process_of_this_host_is_taken(self, artefact, leave, dead):
        without, folder = leave(socket.gethostname(), dead, checkpoint=""), leave()
        assert self.open(artefact) == "5"
        assert not folder.exists()
        assert not without.exists()

    def test_folder_of_a_living_process_of_this_host_is_left_alone(self, artefact, leave):
        folder = leave(socket.gethostname(), os.getppid())
        assert self.open(artefact) == ""
        sweep(artefact.cache)
        assert (folder / "files" / "half").exists()

    def test_checkpoint_of_another_host_is_copied_because_it_may_live(self, artefact, leave):
        folder = leave("elsewhere", 1)
        assert self.open(artefact) == "5"
        sweep(artefact.cache)
        assert (folder / "files" / "half").exists()

    @pytest.mark.parametrize("host", ["", "elsewhere"])
    def test_checkpoint_of_another_key_is_not(self, artefact, leave, host):
        leave(host, 1, key="0" * 64)
        assert self.open(artefact) == ""

    def test_of_another_host_goes_a_day_after_its_last_change(self, artefact, leave):
        folder = leave("elsewhere", 1, age=work_folders.LONG + 60)
        sweep(artefact.cache)
        assert not folder.exists()
        assert self.open(artefact) == "5", "its checkpoint is left to the next builder"

    def test_two_take_one_checkpoint(self, artefact, leave, dead, monkeypatch):
        leave(socket.gethostname(), dead)
        rename = os.rename

        def too_late(path, target):
            shutil.rmtree(path)
            return rename(path, target)

        monkeypatch.setattr("pathlib.Path.rename", too_late)
        assert self.open(artefact) == ""
