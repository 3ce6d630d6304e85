"""Artefacts of trivial stages for `rcnn-cache`."""

import importlib
import shutil
from pathlib import Path

import pytest

from tasks.cache_cli import main
from tasks.engine.catalogue import Catalogue, Entry
from tests.tasks.cache_cli.artefacts import CACHE, HERE, OUTSIDE, forget


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

    def make_entry(**settings) -> Entry:
        forget()
        task = stages.make(stages.SumNumbers(**{"shard_size": 4, **settings}))
        return Catalogue(CACHE).entries[str(task.artefact)]

    return make_entry


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
