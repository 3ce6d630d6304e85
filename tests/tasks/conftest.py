"""Trivial stages, in this process or by Luigi as the user runs it; the real stages on a miniature of the embedded data set."""

import fcntl
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import luigi
import pytest
from luigi.cmdline_parser import CmdlineParser

from tasks.engine.artefacts import Artefact
from tasks.engine.manifest import describe_files
from tasks.engine.printing import ShowResult
from tasks.engine.workshop import Workshop
from tests.tasks.commands import Command, close_fork_server, fork_server

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


@pytest.fixture
def artefact(tmp_path) -> Artefact:
    """A published artefact of two small files, in the cache `tmp_path`/cache."""
    artefact = Artefact(tmp_path / "cache", "Stage", "0123456789ab" + "c" * 52)
    workshop = Workshop(artefact)
    with workshop.lock():
        workshop.open()
        workshop.write("a.json", "[1]")
        (workshop.files / "sub").mkdir()
        workshop.write("sub/b.json", "[2]")
        workshop.publish({})
        workshop.close()
    return artefact


@pytest.fixture
def stages(monkeypatch):
    """The module of trivial stages, with none of Luigi's remembered instances."""
    monkeypatch.syspath_prepend(str(HERE))
    luigi.task_register.Register.clear_instance_cache()
    yield importlib.import_module("trivial_stages")
    luigi.task_register.Register.clear_instance_cache()


@pytest.fixture
def task_of():
    """A function that gives the task which a `luigi` command would run, in this process."""

    def parse(command: str) -> luigi.Task:
        program, *words = shlex.split(command)
        assert program == "luigi"
        luigi.task_register.Register.clear_instance_cache()
        with CmdlineParser.global_instance(words) as parser:
            task = parser.get_task_obj()
            return task.of if isinstance(task, ShowResult) else task

    yield parse
    luigi.task_register.Register.clear_instance_cache()


class Project:
    """A folder with our `luigi.cfg` and ten numbers, four a shard, in which a user runs Luigi on the trivial stages."""

    module, settings, patience = "trivial_stages", "[run]\nshard_size = 4\n", 60
    fresh = sys.platform != "linux"  # whether its commands are interpreters of their own

    def __init__(self, folder: Path):
        self.folder, self.cache, self.log, self.numbers = folder, folder / "cache", folder / "log", folder / "numbers.txt"
        self.config = folder / "luigi.cfg"
        # Each of several workers imports all that a stage may need, which is most of the time of a small run.
        ours = (REPOSITORY / "luigi.cfg").read_text().replace("workers = 2", "workers = 1")
        self.config.write_text(f"{ours}\n{self.settings}")
        self.numbers.write_text("\n".join(map(str, range(1, 11))))

    def start(
        self, *arguments: str, moods: dict | None = None, fresh: bool = False, **variables: str
    ) -> Command | subprocess.Popen:
        """Starts Luigi in a session of its own; `moods` says what happens to which trivial stage, `variables` are set.

        It is a fork of a process that has imported what is slow, or, where it has to be `fresh`, an interpreter of its own.
        """
        search = os.pathsep.join([str(REPOSITORY), str(HERE)])
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LUIGI_", "RCNN_", "TRIVIAL_"))}
        environment |= {"PYTHONPATH": search, "TRIVIAL_LOG": str(self.log), "TRIVIAL_MOODS": json.dumps(moods or {})}
        environment |= variables
        arguments = ["--module", self.module, *arguments]
        if not (fresh or self.fresh):
            assert not any(name.startswith("PYTHON") for name in variables), "only a fresh interpreter reads it"
            return fork_server().start(arguments, self.folder, environment)
        return subprocess.Popen(
            [sys.executable, "-m", "luigi", *arguments], cwd=self.folder, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )

    def run(self, *arguments: str, status: int = 0, **options) -> str:
        """Runs to the end, checks the exit status and returns what was printed."""
        process = self.start(*arguments, **options)
        output = process.communicate(timeout=self.patience)[0]
        assert process.returncode == status, output
        return output

    @staticmethod
    def wait_until(condition, process: subprocess.Popen | None = None, seconds: float = 30) -> None:
        """Waits for `condition`; fails when it does not come true in time or when `process` ends before."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            assert process is None or process.poll() is None, process.communicate()[0]
            time.sleep(0.02)

    def kill_when_hanging(self, process: subprocess.Popen, count: int = 1) -> list[int]:
        """Waits until `count` builds hang, ends the command with `kill -9` and returns the ids of the hanging processes."""
        self.wait_until(lambda: len(self.lines("hanging")) >= count, process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        return [int(line.split()[-1]) for line in self.lines("hanging")]

    def lines(self, word: str = "") -> list[str]:
        """The lines that the stages noted, without their first word where they are those of `word`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.removeprefix(f"{word} ") for line in lines if line.startswith(word)]

    def built(self) -> list[str]:
        """What was built since the last call of this method, sorted."""
        lines = sorted(self.lines("built"))
        self.log.unlink(missing_ok=True)
        return lines

    def manifests(self) -> dict[str, dict]:
        """The manifest of every artefact in the cache, by its folder."""
        paths = self.cache.glob("*/*/manifest.json")
        return {f"{path.parent.relative_to(self.cache)}": json.loads(path.read_text()) for path in paths}

    def digests(self) -> dict[str, str]:
        """The digest of every artefact in the cache, by its folder."""
        return {name: manifest["digest"] for name, manifest in self.manifests().items()}

    def leftovers(self) -> list[str]:
        """What lies in the folders of unfinished work and of locks."""
        return sorted(path.name for folder in (".work", ".locks") for path in (self.cache / folder).glob("*"))


@pytest.fixture(scope="session", autouse=True)
def fork_server_ends():
    yield
    close_fork_server()


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


class Miniature(Project):
    """A folder in which a user runs the real stages on 4 images to train and 4 to test: all ten classes, two shards a split."""

    module, patience = "tasks", 600
    settings = """
[run]
shard_size = 2
threads = 1
[digits]
train_images = 4
val_images = 1
test_images = 4
single_train_images = 10
single_val_images = 1
single_test_images = 4
[pretrain]
iterations = 3
[finetune]
iterations = 3
[spp]
iterations = 3
[fast]
iterations = 3
[rpn]
iterations = 3
shared_iterations = 3
[faster]
iterations = 3
[joint]
iterations = 3
[windows]
iterations = 3
tiles = 4
scales = 0.6,1
naive_images = 1
[detector]
iterations = 3
images = 2
channels = 16
[proposals]
max_proposals = 60
[evaluate]
bootstrap_resamples = 20
timed_images = 1
[report]
make = false
"""

    def __init__(self, folder: Path, cache: Path | None = None):
        super().__init__(folder)
        if cache:
            link_cache(cache, self.cache)

    def made(self, before: dict[str, dict]) -> Counter:
        """How many artefacts of each stage were computed since `manifests` returned `before`."""
        now = self.manifests()
        assert now.keys() >= before.keys()
        return Counter(
            manifest["stage"] for name, manifest in now.items()
            if name not in before or before[name]["started"] != manifest["started"]
        )


def link_cache(source: Path, target: Path) -> None:
    """A copy whose artefacts are hard links. A test that damages one puts another file in its place, and writes into none."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_symlink():
            (target / path.name).symlink_to(os.readlink(path))
        elif path.is_dir():
            shutil.copytree(path, target / path.name, copy_function=os.link)
        else:
            shutil.copy2(path, target)


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """A function that makes a new `Miniature`; with `cache`, one that starts with a copy of that cache."""
    return lambda cache=None: Miniature(tmp_path_factory.mktemp("miniature"), cache)


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory):
    """A function that runs `make(folder)` once a session: `run(name, make)` returns the folder and the text that came back.

    Of several processes of xdist the first that asks makes it, and the others wait. Whoever asks copies the folder's cache and
    leaves the folder as it is: it is looked at in the end.
    """
    common, used = tmp_path_factory.getbasetemp(), []
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent

    def run(name: str, make) -> tuple[Path, str]:
        folder = common / f"shared-{name}"
        result = folder / "result.txt"
        with open(common / f"shared-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not result.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                result.write_text(make(folder))
        used.append(folder)
        return folder, result.read_text()

    yield run
    for path in {path for folder in used for path in folder.glob("cache/*/*/manifest.json") if not path.parent.is_symlink()}:
        assert describe_files(path.parent) == json.loads(path.read_text())["files"], f"a test wrote into {path.parent}"


@pytest.fixture(scope="session")
def cold_run(shared_run):
    """The cache of a first run, a fresh command, and what it printed."""
    folder, output = shared_run("cold", lambda folder: Miniature(folder).run("FullPipeline", fresh=True))
    return folder / "cache", output


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, driven by playwright; a test that needs it is skipped where one of them is absent."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[test]'")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no Chromium: install it, or name its program in CHROMIUM")
    quiet = (
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
    )
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=program, headless=True, args=quiet, timeout=180_000
        )
        context.set_default_timeout(180_000)
        yield context
        context.close()
