"""The chain of poses, run as the user runs it on the miniature, and what it refuses."""

import json
from collections import Counter

import pytest

from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import check_docs, check_second_run, check_shown, check_two_workers

SETTINGS = "[pose]\niterations = 3\nbatch = 4\n"
MADE = Counter(
    GenerateDigits=1, IndexDataset=2, PretrainClassifier=1, TrainPose=2, EstimatePoses=3, EvaluatePose=1, TimePose=1, Summarise=1,
    FullPipeline=1,
)
FIGURES = {"pdj_10", "mean_pose_pdj_10", "pcp", "gains", "interval_95", "train_seconds", "test_seconds_per_image"}


class Posing(Miniature):
    settings = Miniature.settings + SETTINGS


@pytest.fixture(scope="module")
def posed(shared_run, tmp_path_factory):
    """A project after a run with a report, and what that printed."""
    command = "FullPipeline", "--chains", "pose", "--report", "true"
    folder, output = shared_run("posed", lambda folder: Posing(folder).run(*command))
    return Posing(tmp_path_factory.mktemp("posed"), folder / "cache"), output


def test_a_whole_run(posed):
    project, output = posed
    assert Counter(manifest["stage"] for manifest in project.manifests().values()) == MADE
    assert "pose on digits, split test" in output
    assert "mean pose" in output
    values = json.loads((project.cache / "latest" / "summary.json").read_text())["chains"]["pose"]
    assert values.keys() == FIGURES
    assert values["pdj_10"].keys() == values["interval_95"]["pdj_10"].keys() == {"stage 1", "stage 2"}
    assert values["gains"].keys() == {"stage 2"}
    assert values["train_seconds"] > 0
    check_docs(project)


def test_the_report_has_the_section_with_joints_and_limbs(posed):
    project, _ = posed
    page = (project.cache / "latest" / "report.html").read_text()
    assert '<section id="pose">' in page
    assert '<section id="results">' not in page
    section = page.partition('<section id="pose">')[2].partition("</section>")[0]
    assert "<title>centre (truth)</title>" in section
    assert "<title>start (stage 2)</title>" in section
    assert "<line" in section


def test_a_second_run_makes_nothing(posed):
    check_second_run(posed[0], "FullPipeline", "--chains", "pose")


def test_the_later_stage_reads_the_stage_before(posed):
    project, _ = posed
    trainings = [manifest["inputs"] for manifest in project.manifests().values() if manifest["stage"] == "TrainPose"]
    assert sorted(map(sorted, trainings)) == [["before", "train"], ["train", "weights"]]


@pytest.mark.exhaustive
def test_with_two_workers_the_bytes_are_the_same(posed, tmp_path):
    check_two_workers(posed[0], Posing(tmp_path), "EvaluatePose")


@pytest.mark.exhaustive
def test_the_cache_tool_shows_every_artefact(posed):
    check_shown(posed[0], {
        "EstimatePoses": "joints  float64 [2 x", "TrainPose": "target_mean  F32 [7 x 2]", "EvaluatePose": "fractions: ",
    })


@pytest.mark.exhaustive
def test_a_diameter_of_unknown_joints_is_told(posed):
    project, _ = posed
    output = project.run("EvaluatePose", "--pose-diameter", "head+tail", status=30)
    assert "--pose-diameter head+tail: expected box, or two of upper_left, " in output


@pytest.mark.exhaustive
def test_a_data_set_without_keypoints_is_told(posed, tmp_path):
    project, _ = posed
    folder = next(project.cache.glob("GenerateDigits/*/digits"))
    mine = tmp_path / "mine"
    for name in ("Annotations", "JPEGImages", "ImageSets"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).symlink_to(folder / name)
    output = project.run("TrainPose", "--dataset", str(mine), status=30)
    assert "split 'train' has no keypoints; add keypoints.json to the folder" in output
