"""The engine works without this product: in an empty folder, with two stages that have nothing to do with images."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[3] / "tasks" / "engine"
STAGES = """
import os, time
from engine.task import CachedTask

class Words(CachedTask):
    def build(self, workshop):
        print("built Words", flush=True)
        workshop.write("words.txt", "one two three")

class Count(CachedTask):
    def requires(self):
        return {"words": self.clone(Words)}

    def build(self, workshop):
        print("built Count", flush=True)
        time.sleep(float(os.environ.get("SLOWLY", 0)))
        words = self.inputs()["words"].path("words.txt").read_text().split()
        workshop.write("count.json", f"{len(words)}")
"""
# Neither of the two may be imported, though both are installed where these tests run.
RUN = "import sys; sys.modules |= {'pipeline': None, 'tasks': None}; from luigi.cmdline import luigi_run; luigi_run()"
VERIFY = """
import sys; sys.modules |= {'pipeline': None, 'tasks': None}
from pathlib import Path
from engine.catalogue import Catalogue
from engine.verify import all_faults
print(*all_faults(Catalogue(Path("cache"))), sep="\\n")
"""


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(ENGINE, tmp_path / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "stages.py").write_text(STAGES)
    return tmp_path


def start(folder: Path, **variables: str) -> subprocess.Popen:
    options = ["--local-scheduler", "--no-lock", "--log-level", "WARNING"]
    command = [sys.executable, "-c", RUN, "--module", "stages", "Count", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LUIGI_", "STAGES_", "PYTHONPATH"))}
    return subprocess.Popen(
        command, cwd=folder, env=environment | variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(folder: Path) -> str:
    process = start(folder)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def test_runs_and_caches(folder):
    assert run(folder).split("\n")[:2] == ["built Words", "built Count"]
    assert [path.read_text() for path in folder.glob("cache/Count/*/count.json")] == ["3"]
    assert run(folder) == ""


def test_resumes(folder):
    process = start(folder, SLOWLY="60")
    assert [process.stdout.readline() for _ in range(2)] == ["built Words\n", "built Count\n"], process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run(folder) == "built Count\n"


def test_verify_finds_a_flipped_byte(folder):
    run(folder)
    verify = [sys.executable, "-c", VERIFY]
    assert subprocess.run(verify, cwd=folder, capture_output=True, text=True, check=True).stdout.strip() == ""
    (path,) = folder.glob("cache/Words/*/words.txt")
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    faults = subprocess.run(verify, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert faults == f"{path.relative_to(folder)}: changed: content differs from the recorded SHA-256\n"
