"""The chain of classification + localisation, run as the user runs it on the miniature, and what it refuses."""

import json
import re
from collections import Counter

import numpy as np
import pytest

import tasks
from pipeline.detector import Detector
from pipeline.errors import PipelineError
from pipeline.localisation.localise import Predictions
from tasks.engine.parameters import SettingError
from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import check_second_run, check_shown, check_two_workers

SETTINGS = "[localisation]\niterations = 3\nbatch = 4\n"
MADE = Counter(
    GenerateDigits=1, GenerateSingleDigits=1, IndexDataset=4, PretrainClassifier=1, TrainLocaliser=1, Localise=3,
    EvaluateLocalisation=1, TimeLocalisation=1, Summarise=1, FullPipeline=1,
)
FIGURES = {"top1_error", "top5_error", "top1_class_error", "box_error", "mean_box_error", "mean_iou"}


class Localising(Miniature):
    settings = Miniature.settings + SETTINGS


@pytest.fixture(scope="module")
def localised(shared_run, tmp_path_factory):
    """A project after a run with a report, and what that printed."""
    command = "FullPipeline", "--chains", "localisation", "--report", "true"
    folder, output = shared_run("localised", lambda folder: Localising(folder).run(*command))
    return Localising(tmp_path_factory.mktemp("localised"), folder / "cache"), output


def test_a_whole_run(localised):
    project, output = localised
    assert Counter(manifest["stage"] for manifest in project.manifests().values()) == MADE
    assert "localisation on digits-single, split test\nclass " in output
    assert "all images" in output
    chains = json.loads((project.cache / "latest" / "summary.json").read_text())["chains"]
    values = chains.pop("localisation")
    assert not chains
    assert values.pop("dataset") == "digits-single"
    assert values.keys() == {*FIGURES, "interval_95", "one_object", "train_seconds", "test_seconds_per_image"}
    assert values["interval_95"].keys() == FIGURES
    assert values["train_seconds"] > 0
    assert values["test_seconds_per_image"] > 0


def test_the_report_has_the_section_and_none_of_detectors(localised):
    project, _ = localised
    page = (project.cache / "latest" / "report.html").read_text()
    assert '<section id="localisation">' in page
    assert 'href="#localisation"' in page
    assert '<section id="results">' not in page
    assert "mean box" in page


def test_a_second_run_makes_nothing(localised):
    check_second_run(localised[0], "FullPipeline", "--chains", "localisation")


def test_on_the_images_of_the_other_chains(localised):
    own = {"single_digits": False, "cache_dir": str(localised[0].cache)}
    for stage in (tasks.EvaluateLocalisation, tasks.TimeLocalisation, tasks.Localise, tasks.TrainLocaliser):
        for settings, dataset in (({}, "digits-single"), (own, "digits"), ({"dataset": "mydata"}, "mydata")):
            indexes = [task for task in stage(**settings).requires().values() if isinstance(task, tasks.IndexDataset)]
            assert {task.dataset for task in indexes} <= {dataset}
    assert tasks.EvaluateLocalisation(**own).key != tasks.EvaluateLocalisation(cache_dir=own["cache_dir"]).key


def test_exported_as_a_detector_it_finds_the_likeliest_class_of_each_image(localised):
    """What the stage says. There are no thresholds: they need several detections of an image."""
    project, _ = localised
    output = project.run("ExportDetector", "--chain", "localisation")
    assert "thresholds: none" in output
    detector = Detector.load(project.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1], threads=1)
    predicted = Predictions.load(next(path for path in project.cache.glob("Localise/*/predictions.npz") if len(
        Predictions.load(path).scores) == 4))
    images = next(project.cache.glob("GenerateSingleDigits/*/digits-single"))
    names = (images / "ImageSets" / "Main" / "test.txt").read_text().split()
    for number, name in enumerate(names):
        detections = detector.detect(images / "JPEGImages" / f"{name}.jpg")
        label = predicted.scores[number].argmax()
        assert detections.labels.tolist() == [label]
        assert detections.scores.tolist() == [predicted.scores[number, label]]
        np.testing.assert_array_equal(detections.boxes, predicted.boxes[number, [label]])


@pytest.mark.exhaustive
def test_with_two_workers_the_bytes_are_the_same(localised, tmp_path):
    check_two_workers(localised[0], Localising(tmp_path), "EvaluateLocalisation")


@pytest.mark.exhaustive
def test_the_four_kinds_in_one_table(localised, tmp_path):
    project, _ = localised
    output = project.run("CompareLocalisers")
    rows = [line.split()[:2] for line in output.splitlines() if line.startswith(("agnostic", "specific"))]
    assert rows == [["agnostic", "conv"], ["agnostic", "fc"], ["specific", "conv"], ["specific", "fc"]]


@pytest.mark.exhaustive
def test_the_cache_tool_shows_every_artefact(localised):
    check_shown(localised[0], {
        "Localise": "scores  float32 [4 x 10]", "TrainLocaliser": "box_mean  F32 [4]", "EvaluateLocalisation": "box_error: ",
    })


def test_it_detects_in_photographs_and_has_no_average_precision(localised, tmp_path):
    (tmp_path / "one.png").write_bytes(b"")
    detecting = tasks.DetectImages(images=str(tmp_path), chain="localisation")
    assert set(detecting.upstream()) == {"detector"}
    assert isinstance(detecting.upstream()["detector"].requires()["network"], tasks.TrainLocaliser)
    for stage in tasks.Evaluate, tasks.FindThresholds:
        with pytest.raises(SettingError, match="--chain: found 'localisation', expected one of rcnn, "):
            stage(chain="localisation")
    with pytest.raises(SettingError):
        tasks.ExportDetector(chain="localisation", calibrate=True).requires()


def test_mirrored_test_images_are_another_key_and_never_digits(tmp_path):
    plain, mirrored = (tasks.Localise(dataset=str(tmp_path), localise_mirror=mirror).views() for mirror in (False, True))
    assert (plain, mirrored) == ({}, {"mirror": True})
    with pytest.raises(PipelineError, match=r"^--localise-mirror true: a mirrored digit is another sign; "):
        tasks.Localise(localise_mirror=True).resolve()


def test_further_looks_are_in_the_key():
    looks = [tasks.Localise(localise_looks=looks).views() for looks in (0, 1, 3)]
    assert looks == [{}, {}, {"looks": 3}], "the default of `tiny` is one look"
    assert tasks.Localise(backbone="squeezenet1_0").detector_settings()["looks"] == 3


def test_an_unknown_chain_is_told(localised):
    project, _ = localised
    output = project.run("FullPipeline", "--chains", "localization", status=40)
    assert "--chains: found 'localization' (did you mean localisation?), expected one or more of rcnn, " in output
    assert "localisation" in output
