"""`kill -9` in the middle of each stage, and another number of workers: the same bytes in the end."""

import os
import shutil
import signal
import time

import psutil
import pytest
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.slow

STAGES = (
    "GenerateDigits", "IndexDataset", "RegionProposals", "PretrainClassifier", "FineTune", "ExtractFeatures", "TrainSVMs",
    "TrainBoxRegressors", "DetectRCNN", "TimeRCNN", "Evaluate", "FullPipeline",
)
# Long enough to be killed half-way through what they took undisturbed.
LONG = ("RegionProposals", "PretrainClassifier", "FineTune", "TrainSVMs")
HALF_WAY = 0.5
SUMMARY = "FullPipeline"  # holds times
TRIES = 8
HASTY = """
from pipeline import training
from tasks import *
training.CHECKPOINT_SECONDS = 0
"""
FEWER = {"test_images = 4": "test_images = 1", "max_proposals = 60": "max_proposals = 30"}


@pytest.fixture(scope="module")
def small(miniatures):
    """A function like `miniatures` whose projects have one test image."""

    def make(cache=None):
        project = miniatures(cache)
        settings = project.config.read_text()
        for old, new in FEWER.items():
            assert old in settings
            settings = settings.replace(old, new)
        project.config.write_text(settings)
        return project

    return make


@pytest.fixture(scope="module")
def undisturbed(small):
    """A project after a run of one process that nothing disturbed."""
    project = small()
    project.run("FullPipeline", "--workers", "1")
    return project


def digests(project) -> dict[str, str]:
    """The digest of every artefact but the summary, by its folder."""
    return {name: digest for name, digest in project.digests().items() if not name.startswith(SUMMARY)}


def remove_from(project, stage: str) -> None:
    """Removes the artefacts of `stage` and of all stages after it."""
    manifests = project.manifests()
    gone = {manifest["key"] for manifest in manifests.values() if manifest["stage"] == stage}
    while after := {manifest["key"] for manifest in manifests.values() if manifest["key"] not in gone
                    and gone & {made["key"] for made in manifest["inputs"].values()}}:
        gone |= after
    for name, manifest in manifests.items():
        if manifest["key"] in gone:
            shutil.rmtree(project.cache / name)


def session(leader: int) -> list[psutil.Process]:
    """The processes alive in the session that `leader` began."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def kill_in(project, stage: str, seconds: float, *arguments: str) -> bool:
    """Runs and ends the main process with `kill -9` `seconds` after `stage` began; whether that hit it at work."""
    process = project.start("FullPipeline", *arguments)
    work = project.cache / ".work"
    while not (begun := list(work.glob(f"{stage}-*"))):
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    project.wait_until(lambda: not session(process.pid), seconds=5)
    # Renamed into place, or removed, the stage was done before the kill.
    return any((folder / "files").exists() and not (project.cache / stage / folder.name.rpartition("-")[2]).exists()
               for folder in begun)


def kill_until_hit(small, undisturbed, stage: str, seconds: float, *arguments: str):
    """A project that holds all before `stage`, in which a run was killed in that stage."""
    for _ in range(TRIES):
        project = small(undisturbed.cache)
        remove_from(project, stage)
        if kill_in(project, stage, seconds, *arguments):
            return project
        shutil.rmtree(project.folder)
        seconds *= 0.6
    pytest.fail(f"{stage} was never hit at work")


class TestWorkers:
    def test_change_no_byte(self, small, undisturbed):
        other = small()
        other.run("FullPipeline", "--workers", "2")
        assert digests(other) == digests(undisturbed)
        assert other.leftovers() == []


class TestKill:
    @pytest.mark.parametrize("stage", STAGES)
    def test_at_the_start_of_a_stage(self, small, undisturbed, stage):
        project = kill_until_hit(small, undisturbed, stage, 0)
        self.check_rerun(project, undisturbed, stage)

    @pytest.mark.parametrize("stage", LONG)
    def test_half_way_through_a_worker(self, small, undisturbed, stage):
        seconds = [manifest["seconds"] for manifest in undisturbed.manifests().values() if manifest["stage"] == stage]
        project = kill_until_hit(small, undisturbed, stage, HALF_WAY * max(seconds), "--workers", "2")
        self.check_rerun(project, undisturbed, stage)

    def check_rerun(self, project, undisturbed, stage: str) -> None:
        """What the kill left is sound, and the next run ends as an undisturbed one."""
        left = digests(project)
        assert left.items() <= digests(undisturbed).items()
        project.run("FullPipeline")
        assert digests(project) == digests(undisturbed)
        assert project.manifests().keys() == undisturbed.manifests().keys()
        assert project.leftovers() == []


class TestCheckpoint:
    STAGE = "PretrainClassifier"
    COMMAND = (STAGE, "--pretrain-iterations", "12")
    MARK = 7.0

    def files(self, project) -> dict[str, str]:
        """The SHA-256 of each file of the trained network, but for the curve."""
        (manifest,) = [manifest for manifest in project.manifests().values() if manifest["stage"] == self.STAGE]
        return {name: file["sha256"] for name, file in manifest["files"].items() if name != "training.csv"}

    def curve(self, project) -> list[str]:
        return next(project.cache.glob(f"{self.STAGE}/*/training.csv")).read_text().splitlines()

    def test_killed_training_goes_on_from_it(self, small, undisturbed):
        """The first loss in the checkpoint is replaced by a mark, so that the curve tells whether the checkpoint was used."""
        whole, killed = small(undisturbed.cache), small(undisturbed.cache)
        for project in (whole, killed):
            remove_from(project, self.STAGE)
        whole.run(*self.COMMAND)
        (killed.folder / "hasty.py").write_text(HASTY)
        killed.module = "hasty"
        process = killed.start(*self.COMMAND)
        killed.wait_until(lambda: list(killed.cache.glob(".work/*/checkpoint/checkpoint.safetensors")), process)
        process.kill()
        process.communicate()
        (checkpoint,) = killed.cache.glob(f".work/{self.STAGE}-*/checkpoint/checkpoint.safetensors")
        tensors = load_file(checkpoint)
        assert 1 <= len(tensors["losses"]) < 12
        tensors["losses"][0] = self.MARK
        save_file(tensors, checkpoint)
        killed.module = whole.module
        killed.run(*self.COMMAND)
        assert self.curve(killed)[1].endswith(f",{self.MARK:g}")
        assert self.curve(killed)[2:] == self.curve(whole)[2:]
        assert self.files(killed) == self.files(whole)
        assert killed.leftovers() == []
