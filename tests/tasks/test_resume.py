"""`kill -9` in the middle of each stage, and another number of workers: the same bytes in the end."""

import shutil
import time

import pytest
from safetensors.torch import load_file, save_file

from pipeline.networks.checkpoints import DIGEST, checkpoint_digest
from tasks.engine.manifest import describe_files
from tests.sessions import session
from tests.tasks.conftest import Miniature

pytestmark = pytest.mark.slow

STAGES = (  # in the order in which one process takes them
    "GenerateDigits", "IndexDataset", "PretrainClassifier", "TrainRPN", "RPNProposals", "TrainSharedFastRCNN",
    "SharedConvFeatures", "TrainRPN", "RPNProposals", "TrainSharedFastRCNN", "RegionProposals", "TrainFastRCNN", "FineTune",
    "ConvFeatures", "FineTuneSPP", "DetectFasterRCNN", "ExtractFeatures", "TrainSVMs", "TrainBoxRegressors",
    "SpatialPyramidFeatures", "DetectFastRCNN", "DetectRCNN", "TimeDetection", "Evaluate", "Summarise",
)
# They are killed in groups, each with the first of the next group, which mends the last of this one.
BEGINNINGS = "GenerateDigits", "SharedConvFeatures", "FineTune", "TrainSVMs", "DetectRCNN"
FIRST = [STAGES.index(stage) for stage in BEGINNINGS]
GROUPS = [STAGES[first : end + 1] for first, end in zip(FIRST, [*FIRST[1:], len(STAGES)])]
# Long enough to be killed half-way through what they took undisturbed.
LONG = (
    "RegionProposals", "PretrainClassifier", "FineTune", "FineTuneSPP", "TrainFastRCNN", "TrainSVMs", "TrainRPN",
    "TrainSharedFastRCNN",
)
HALF_WAY = 0.5
SUMMARY = "Summarise"  # holds times
TRIES = 8
HASTY = """
from pipeline.networks import training
from tasks import *
training.CHECKPOINT_SECONDS = 0
"""
FEWER = {"test_images = 4": "test_images = 1", "max_proposals = 60": "max_proposals = 30"}


class Small(Miniature):
    """A miniature with one test image."""

    settings = Miniature.settings
    for old, new in FEWER.items():
        assert old in settings
        settings = settings.replace(old, new)


@pytest.fixture
def small(tmp_path_factory):
    """A function that makes a new project; with `cache`, one that starts with a copy of that cache."""
    return lambda cache=None: Small(tmp_path_factory.mktemp("small"), cache)


@pytest.fixture(scope="module")
def undisturbed(shared_run, tmp_path_factory):
    """A project after an undisturbed run of one process, which is not even a fork."""
    folder, _ = shared_run("undisturbed", lambda folder: Small(folder).run("FullPipeline", "--workers", "1", fresh=True))
    return Small(tmp_path_factory.mktemp("undisturbed"), folder / "cache")


@pytest.fixture(scope="module")
def with_workers(shared_run, tmp_path_factory):
    """The same with two workers."""
    folder, _ = shared_run("with_workers", lambda folder: Small(folder).run("FullPipeline", "--workers", "2"))
    return Small(tmp_path_factory.mktemp("with_workers"), folder / "cache")


def digests(project) -> dict[str, str]:
    """The digest of every artefact but the summary, by its folder."""
    return {name: digest for name, digest in project.digests().items() if not name.startswith(SUMMARY)}


def remove_from(project, stage: str) -> None:
    """Removes the artefacts of `stage` and of all stages after it."""
    manifests = project.manifests()
    gone = {manifest["key"] for manifest in manifests.values() if manifest["stage"] == stage}
    while after := {manifest["key"] for manifest in manifests.values() if manifest["key"] not in gone
                    and gone & {source["key"] for source in manifest["inputs"].values()}}:
        gone |= after
    for name, manifest in manifests.items():
        if manifest["key"] in gone:
            shutil.rmtree(project.cache / name)


def remove_since(project, stage: str) -> None:
    """Removes all artefacts that were begun since the first one of `stage`, as if the run had been killed then."""
    manifests = project.manifests()
    first = min(manifest["started"] for manifest in manifests.values() if manifest["stage"] == stage)
    for name, manifest in manifests.items():
        if manifest["started"] >= first:
            shutil.rmtree(project.cache / name)


def kill_in(project, stage: str, seconds: float, *arguments: str) -> bool:
    """Kills the main process of a run `seconds` after `stage` began; returns whether the stage was still at work."""
    process = project.start("FullPipeline", *arguments)
    work = project.cache / ".work"
    while not (begun := list(work.glob(f"{stage}-*/files"))):
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.wait()
    project.wait_until(lambda: not session(process.pid), seconds=3)
    process.communicate()
    # Renamed into place, or removed, the stage was done before the kill.
    return any(files.exists() and not (project.cache / stage / files.parent.name.rpartition("-")[2]).exists() for files in begun)


def kill_until_hit(project, stage: str, seconds: float, *arguments: str) -> None:
    """As `kill_in`, again with less patience until the kill hits the stage at work."""
    for attempt in range(TRIES):
        if kill_in(project, stage, seconds * 0.6**attempt, *arguments):
            return
        remove_from(project, stage)
    pytest.fail(f"{stage} was never hit at work")


class TestWorkers:
    @pytest.mark.exhaustive
    def test_change_no_byte(self, undisturbed, with_workers):
        assert digests(with_workers) == digests(undisturbed)
        assert with_workers.leftovers() == []


@pytest.mark.exhaustive  # tasks/engine/test_runs.py kills trivial stages
class TestKill:
    @pytest.mark.parametrize("stages", GROUPS, ids=lambda stages: stages[0])
    def test_in_each_stage_in_turn(self, small, undisturbed, stages):
        """Each run mends what the one before left, until it is killed in the next stage."""
        project = small(undisturbed.cache)
        remove_since(project, stages[0])
        for stage in stages:
            kill_until_hit(project, stage, 0)
            self.check_soundness(project, undisturbed)
        if stages[-1] == STAGES[-1]:
            self.check_rerun(project, undisturbed)

    @pytest.mark.parametrize("stage", LONG)
    def test_half_way_through_a_worker(self, small, undisturbed, with_workers, stage):
        project = small(undisturbed.cache)
        remove_from(project, stage)
        seconds = [manifest["seconds"] for manifest in with_workers.manifests().values() if manifest["stage"] == stage]
        kill_until_hit(project, stage, HALF_WAY * max(seconds), "--workers", "2")
        self.check_soundness(project, undisturbed)
        self.check_rerun(project, undisturbed)

    def check_soundness(self, project, undisturbed) -> None:
        """All artefacts are whole, and equal to those of an undisturbed run."""
        assert digests(project).items() <= digests(undisturbed).items()
        for name, manifest in project.manifests().items():
            assert describe_files(project.cache / name) == manifest["files"]

    def check_rerun(self, project, undisturbed) -> None:
        project.run("FullPipeline")
        assert digests(project) == digests(undisturbed)
        assert project.manifests().keys() == undisturbed.manifests().keys()
        assert project.leftovers() == []


def stage_commands(*exhaustive: str) -> list:
    return [pytest.param(command, marks=pytest.mark.exhaustive) for command in exhaustive]


class TestCheckpoint:
    MARK, STEPS = 7.0, 12

    def files(self, project, training: str) -> dict[str, dict]:
        """The files of the trained network, but for the curve."""
        return {name: file for name, file in project.manifests()[training]["files"].items() if name != "training.csv"}

    def curve(self, project, training: str) -> list[str]:
        return (project.cache / training / "training.csv").read_text().splitlines()

    @pytest.mark.parametrize("command", [
        "PretrainClassifier --pretrain-iterations 12", *stage_commands(
            "TrainRPN --rpn-step 1 --rpn-iterations 12", "TrainFasterRCNN --joint-iterations 12",
            "TrainSharedFastRCNN --fast-step 2 --fast-iterations 12", "FineTuneSPP --spp-iterations 12",
            "TrainDetector --architecture mask-rcnn --detector-iterations 12",
            "TrainFastRCNN --fast-iterations 12 --validate val --validate-every 4",
            "TrainLocaliser --localise-iterations 12 --localise-batch 4", "TrainWindows --window-iterations 12",
            "TrainPose --pose-stage 1 --pose-iterations 12 --pose-batch 4",
            "TrainPose --pose-stage 2 --pose-iterations 2 --pose-joint-iterations 12 --pose-batch 4",
            *(f"TrainSegmenter --segment-iterations 12 --segment-method {name}" for name in ("fcn32s", "patches", "unpooling")),
        ),
    ])
    def test_killed_training_goes_on_from_it(self, miniatures, cold_run, command):
        """The first loss in the checkpoint is replaced by a mark, so that the curve tells whether the checkpoint was used."""
        command = command.split()
        stage, whole = command[0], miniatures(cold_run[0])
        remove_from(whole, stage)
        whole.run(*command)
        started = {name: manifest["started"] for name, manifest in whole.manifests().items() if manifest["stage"] == stage}
        training = max(started, key=started.get)  # a stage of poses comes after those before it
        killed = miniatures(whole.cache)
        shutil.rmtree(killed.cache / training)
        (killed.folder / "hasty.py").write_text(HASTY)
        killed.module = "hasty"
        process = killed.start(*command)
        killed.wait_until(lambda: list(killed.cache.glob(".work/*/checkpoint/checkpoint.safetensors")), process, seconds=120)
        process.kill()
        process.communicate()
        (checkpoint,) = killed.cache.glob(f".work/{stage}-*/checkpoint/checkpoint.safetensors")
        tensors = load_file(checkpoint)
        assert 1 <= len(tensors["losses"]) < self.STEPS
        tensors["losses"][0] = self.MARK
        save_file(tensors, checkpoint, {DIGEST: checkpoint_digest(tensors)})
        killed.module = whole.module
        killed.run(*command)
        assert self.curve(killed, training)[1].endswith(f",{self.MARK:g}")
        assert self.curve(killed, training)[2:] == self.curve(whole, training)[2:]
        assert self.files(killed, training) == self.files(whole, training)
        assert killed.leftovers() == []
