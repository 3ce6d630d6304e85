"""The wheel, installed in an environment of its own, in a folder that holds no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.tasks.conftest import REPOSITORY, Miniature, link_cache

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
PARTS = ("pipeline", "tasks", "experiments", "rcnn.py", "luigi.cfg", "luigi-cluster.cfg", "setup.cfg", "pyproject.toml",
         "README.md", "LICENSE")
BUILD = "import sys, setuptools.build_meta; print(setuptools.build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def binaries(tmp_path_factory) -> Path:
    """The commands of a new environment. It has our wheel, and the other packages of this environment."""
    for needed in ("setuptools", "pip"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("wheel")
    for name in PARTS:  # the build leaves files beside what it reads
        _copy(REPOSITORY / name, folder / "checkout" / name)
    built = _run(sys.executable, "-c", BUILD, folder, cwd=folder / "checkout").splitlines()[-1]
    environment = folder / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files, as of our checkout, are not read
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", folder / built]
    _run(sys.executable, "-m", "pip", "--python", environment / "bin" / "python", *install, cwd=folder)
    return environment / "bin"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


def _run(*command, cwd: Path) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("LUIGI_", "PYTHON"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_detects_and_lists_in_an_empty_folder(binaries, cold_run, tmp_path):
    rcnn = binaries / "rcnn"
    assert "voc2007-vgg16 " in _run(rcnn, "experiments", cwd=tmp_path)
    link_cache(cold_run[0], tmp_path / "cache")  # what is in it already takes no time; its keys are those of the checkout
    (tmp_path / "small.cfg").write_text(f"[core]\nworkers = 1\n{Miniature.settings}")
    printed = _run(rcnn, "run", "--experiment", "small.cfg", cwd=tmp_path)
    assert "results: cache/Summarise/" in printed
    assert "computed" not in printed
    (images,) = tmp_path.glob("cache/GenerateDigits/*/digits/JPEGImages")
    (tmp_path / "photos").mkdir()
    shutil.copy2(min(images.iterdir()), tmp_path / "photos")
    options = "--chain", "faster-rcnn", "--draw-score", "0", "--experiment=small.cfg"
    printed = _run(rcnn, "detect", "photos", *options, cwd=tmp_path)
    assert "results: cache/DetectImages/" in printed
    listed = _run(rcnn, "cache", "ls", cwd=tmp_path)
    assert "DetectImages" in listed
    assert "TrainFastRCNN" in listed
    where = _run(binaries / "python", "-c", "import rcnn, tasks, pipeline; print(rcnn.HERE, *tasks.__path__)", cwd=tmp_path)
    assert str(REPOSITORY) not in where
