"""`--devices`: a training in several processes makes the artefact of one, and a dead process ends it with one clear line."""

import shutil

import psutil
import pytest

from pipeline.errors import PipelineError
from tasks import (
    FineTune,
    PretrainClassifier,
    TrainDetector,
    TrainFasterRCNN,
    TrainFastRCNN,
    TrainLocaliser,
    TrainPose,
    TrainRFCN,
    TrainRPN,
    TrainSegmenter,
    TrainSharedFastRCNN,
    TrainWindows,
)
from tasks.networks.defaults import DEFAULTS
from tasks.networks.ranks import check_devices, rank_device
from tests.pipeline.networks.test_backbones import CROPS

STAGES = {  # and how many parts a step has
    PretrainClassifier: 1, FineTune: 1, TrainFastRCNN: 2, TrainSharedFastRCNN: 2, TrainRPN: 1, TrainFasterRCNN: 2, TrainRFCN: 2,
    TrainDetector: 1, TrainSegmenter: 1, TrainWindows: 32, TrainLocaliser: 2, TrainPose: 1,
}


class TestSetting:
    @pytest.mark.parametrize("stage", STAGES)
    def test_is_not_in_the_key_and_starts_no_more_processes_than_there_are_parts(self, stage):
        task = stage(devices=8)
        assert task.key == stage().key
        assert (task.parts_a_step, task.num_ranks) == (STAGES[stage], min(8, STAGES[stage]))
        assert stage(devices=8, device="cuda").cluster_resources == ("GPU",) * task.num_ranks
        assert task.cores_needed == tuple(task.num_ranks * cores for cores in stage().cores_needed)

    def test_the_fast_way_has_the_number_of_processes_in_its_key(self):
        alone = TrainWindows()
        assert TrainWindows(reduce="fast").key == TrainWindows(devices=2).key == alone.key
        keys = {TrainWindows(reduce="fast", devices=devices).key for devices in (1, 2, 3)}
        assert len(keys) == 3
        assert alone.key in keys
        assert FineTune(reduce="fast", devices=2).key == FineTune().key, "a step has one part, so one process trains"

    def test_draws_of_several_parts_are_in_the_key_of_stages_with_dropout(self):
        assert TrainFastRCNN().resolve()["draws"] == "by part"
        for task in TrainFastRCNN(fast_images=1), TrainRPN(rpn_images=2), TrainRFCN(), TrainWindows():
            assert "draws" not in task.resolve()

    @pytest.mark.parametrize(("backbone", "parts"), [("tiny", 1), ("squeezenet1_0", 4), ("resnet50+grid14", 4)])
    def test_parts_of_fine_tuning(self, backbone, parts):
        assert FineTune(backbone=backbone).parts_a_step == parts

    def test_crops_are_as_large_as_the_windows_of_pose(self):
        assert {name: defaults.pose_side for name, defaults in DEFAULTS.items()} == CROPS

    def test_each_process_has_a_gpu(self):
        assert [rank_device("cuda", rank, 2) for rank in range(2)] == ["cuda:0", "cuda:1"]
        assert rank_device("cuda", 0, 1) == "cuda"
        assert rank_device("cpu", 1, 2) == "cpu"
        with pytest.raises(PipelineError, match=r"^--device cuda:1: names one device, and --devices asks for 2; "):
            check_devices("cuda:1", 2)


@pytest.mark.exhaustive
def test_a_killed_process_ends_the_stage_which_then_makes_the_bytes_of_one_process(miniatures, cold_run):
    project = miniatures(cold_run[0])
    (name,) = (name for name in project.manifests() if name.startswith("TrainFastRCNN/"))
    expected = project.digests()
    shutil.rmtree(project.cache / name)
    command = "TrainFastRCNN", "--devices", "2"
    process = project.start(*command)
    project.wait_until(lambda: len(ranks_of(process.pid)) == 2, process, seconds=120)
    ranks_of(process.pid)[1].kill()
    (line,) = [line for line in process.communicate(timeout=120)[0].splitlines() if "failed" in line and "rocess" in line]
    assert f"{name}: process 2 of 2 was ended by SIGKILL, most likely by the system because memory ran out: " in line
    assert "the same command goes on from here" in line
    assert process.returncode == 30
    assert ranks_of(process.pid) == []
    output = project.run(*command)
    assert output.count(f"{name}: done") == 1
    assert project.digests() == expected
    assert project.leftovers() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", [
    "TrainRPN --rpn-step 1 --rpn-images 2", "TrainFasterRCNN --joint-images 3",
    "TrainSegmenter --segment-images 2 --segment-iterations 4", "TrainWindows --window-tiles 40 --window-iterations 4",
    "TrainLocaliser --localise-batch 60 --localise-iterations 4",
    "TrainFastRCNN --validate val --validate-every 2 --keep-state true",
])
def test_two_processes_make_the_bytes_of_one(miniatures, cold_run, command):
    project = miniatures(cold_run[0])
    before = project.digests()
    project.run(*command.split())
    new = {name: digest for name, digest in project.digests().items() if name not in before}
    for name in new:
        shutil.rmtree(project.cache / name)
    project.run(*command.split(), "--devices", "2")
    assert new
    assert {name: digest for name, digest in project.digests().items() if name not in before} == new


def ranks_of(command: int) -> list[psutil.Process]:
    """The processes that a command's stage has started to train."""
    try:
        children = sorted(psutil.Process(command).children(), key=lambda child: child.create_time())
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    except psutil.Error:
        return []
