"""The disk that a run needs, on disks that are as full as a test wants."""

import logging
from collections import namedtuple
from pathlib import Path

import pytest

from tasks.engine import disk
from tasks.engine.errors import UserError

Usage = namedtuple("Usage", "total used free")


class Part:
    """What `check_disk` asks of a task."""

    cache_dir, check_disk, label = "cache", True, "Root/0123"

    def __init__(self, stage, size=0.0, requires=(), is_there=False):
        self.stage = self.task_id = stage
        self.size, self.required, self.is_there = size, {part.stage: part for part in requires}, is_there

    def complete(self):
        return self.is_there

    def requires(self):
        return self.required

    def disk_bytes(self):
        return self.size


@pytest.fixture
def run():
    """60 GB to make: features that two stages read, and maps. `Old` is there, so what it was made from is not needed."""
    features, maps = Part("Features", 40e9), Part("Maps", 20e9)
    old = Part("Old", 500e9, [Part("Gone", 700e9)], is_there=True)
    return [Part("SVMs", 1, [features, old]), Part("Detect", 2, [features, maps])]


@pytest.fixture
def free(monkeypatch):
    def set_free(size):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: Usage(1e12, 0, size))

    return set_free


def test_each_part_counts_once_and_what_is_there_not_at_all(run):
    assert sorted(part.stage for part in disk.pending(run)) == ["Detect", "Features", "Maps", "SVMs"]


def test_a_disk_with_less_is_refused_with_the_figures(run, free):
    free(59e9)
    with pytest.raises(UserError) as caught:
        disk.check_disk(Part("Root"), run, is_told=True)
    assert str(caught.value) == (
        "cache: Root needs about 60 GB of disk (Features 40 GB, Maps 20 GB); 59 GB are free; free some space, "
        "give another folder with --cache-dir, or start it all the same with --check-disk false"
    )


def test_a_disk_with_enough_is_told_if_asked(run, free, caplog):
    free(61e9)
    caplog.set_level(logging.INFO, "stages")
    disk.check_disk(Part("Root"), run, is_told=False)
    assert caplog.messages == []
    disk.check_disk(Part("Root"), run, is_told=True)
    (message,) = caplog.messages
    assert message.startswith("Root/0123: needs about 60 GB of disk (Features 40 GB")
    assert message.endswith("61 GB are free")


def test_a_user_may_start_all_the_same(run, free, caplog):
    free(1e9)
    root = Part("Root")
    root.check_disk = False
    disk.check_disk(root, run, is_told=False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_small_runs_are_not_bothered(free):
    free(0)
    disk.check_disk(Part("Root"), [Part("Small", 99e6)], is_told=True)


@pytest.mark.parametrize(
    ("size", "text"), [(3e5, "0 MB"), (99e6, "99 MB"), (1.5e9, "1.5 GB"), (999e9, "999 GB"), (6.654e12, "6.65 TB")]
)
def test_sizes_are_rounded_to_three_digits(size, text):
    assert disk.show(size) == text


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: places.append(place) or Usage(3, 2, 1))
    assert disk.free_bytes(tmp_path / "a" / "b") == 1
    assert places == [tmp_path]
    monkeypatch.chdir(tmp_path)
    disk.free_bytes(Path("cache"))
    assert places[1] == tmp_path
