"""The chain of poses, run as the user runs it on the miniature, and what it refuses."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import tasks
from pipeline.datasets.keypoints import Skeleton
from pipeline.datasets.records import Split
from pipeline.errors import PipelineError
from pipeline.pose.objects import PosedObjects, posed_objects
from pipeline.pose_model import PoseModel
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


def test_what_cannot_be_trained_on_or_judged_is_refused_or_counted(caplog):
    skeleton, none = Skeleton(("head", "tail")), posed_objects([], 2)
    with pytest.raises(PipelineError, match="split 'train': none of its objects has a labelled keypoint; label some, or leave"):
        tasks.TrainPose()._tell("train", none)
    split = Split("test", ("cat",), (), skeleton=skeleton)
    with pytest.raises(PipelineError, match="split 'test': none of its objects has a labelled keypoint; label some, or leave"):
        tasks.EvaluatePose()._check(split, skeleton, none)
    with pytest.raises(PipelineError, match="split 'test' has other keypoints than 'train'; name the same in both"):
        tasks.EvaluatePose()._check(split, Skeleton(("head", "paw")), none)
    labelled = np.array([[True, False]])
    some = PosedObjects(np.zeros(1, int), np.array([[0, 0, 9, 9.0]]), np.zeros((1, 2, 2)), labelled, without=3, with_one=1)
    tasks.TrainPose()._tell("train", some)
    assert "3 objects have no labelled keypoint and are not trained on" in caplog.text
    assert "1 objects have a single labelled keypoint; it is trained on" in caplog.text


def photographs(project) -> dict:
    """The result of the newest `PhotographPoses`."""
    path = max(project.cache.glob("PhotographPoses/*/poses.json"), key=lambda path: path.stat().st_mtime_ns)
    result = json.loads(path.read_text())
    assert all((path.parent / image["picture"]).is_file() for image in result["images"])
    return result


def test_photographs_by_an_exported_model_and_detector(posed, write_detector):
    """Each image is one box, or the boxes are a detector's, some of whose classes have no joints."""
    project, _ = posed
    photos = project.folder / "photos"
    photos.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(photos / "one.png")
    (photos / "broken.png").write_bytes(b"nothing")
    (folder,) = re.findall(r"^pose model: (\S+)/ \(pose.json, stage-1.safetensors, stage-2.safetensors\)$",
                           project.run("ExportPoseModel"), re.M)
    command = "PhotographPoses", "--images", "photos", "--pose-model", folder
    assert "1 of 2 images cannot be used" in project.run(*command, status=30)
    result = photographs(project)
    (image,) = result["images"]
    (pose,) = image["poses"]
    assert pose["box"] == [0, 0, 80, 60]
    assert sorted(pose["joints"]) == sorted(result["names"])
    model = PoseModel.load(project.folder / folder, threads=1)
    joints = [pose["joints"][name] for name in model.names]
    np.testing.assert_allclose(joints, model.estimate(photos / "one.png")[0], atol=0.01)
    settings = write_detector(project.folder / "detector", "fast-rcnn") / "detector.json"
    settings.write_text(settings.read_text().replace('"cat"', '"zero"'))  # `dog` has no joints
    output = project.run(*command, "--pose-detector", "detector", "--pose-score", "0", status=30)
    poses = photographs(project)["images"][0]["poses"]
    assert poses
    assert {pose["class"] for pose in poses} == {"zero"}
    assert f"2 images, {len(poses)} poses\n" in output
    assert "detections are of classes without joints in training and have no pose" in output
    for pose in poses:
        expected = model.estimate(photos / "one.png", [pose["box"]])[0]
        np.testing.assert_allclose([pose["joints"][name] for name in model.names], expected, atol=0.01)
    check_docs(project)


def test_boxes_of_a_chain_train_nothing_again():
    true, detected = tasks.EstimatePoses(), tasks.EstimatePoses(pose_boxes="rcnn")
    assert isinstance(detected.requires().pop("detections"), tasks.DetectRCNN)
    assert {name: task.key for name, task in true.requires().items()}.items() <= {
        name: task.key for name, task in detected.requires().items()}.items()
    assert len({task.key for task in (true, detected, tasks.EstimatePoses(pose_boxes="spp-net"))}) == 3


@pytest.mark.exhaustive
def test_poses_in_the_boxes_of_a_chain(posed):
    """A detector that has hardly been trained finds few objects; the others count as wrong."""
    project, _ = posed
    before = project.manifests()
    output = project.run("EvaluatePose", "--pose-boxes", "fast-rcnn")
    counts = project.made(before)
    assert (counts["DetectFastRCNN"], counts["EstimatePoses"], counts["EvaluatePose"], counts["TrainPose"]) == (3, 3, 1, 0)
    evaluations = [json.loads(path.read_text()) for path in project.cache.glob("EvaluatePose/*/evaluation.json")]
    (evaluation,) = [each for each in evaluations if "objects_not_found" in each]
    assert 0 < evaluation["objects_not_found"] <= evaluation["objects"]
    assert f"{evaluation['objects_not_found']} of {evaluation['objects']} objects are not found" in output
    assert evaluation["joints"] == evaluations[0]["joints"] == evaluations[1]["joints"]
    check_docs(project)


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
