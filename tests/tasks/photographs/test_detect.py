"""Detection in the user's own images, with the user's commands and a detector with random weights."""

import json
import os
import re
import shutil
import sys
from collections import Counter
from types import SimpleNamespace
from unittest.mock import Mock

import luigi
import numpy as np
import pytest
from PIL import Image

from pipeline.detection.result_files import read_voc, voc_id
from pipeline.detector import Detector
from pipeline.errors import PipelineError
from tasks.engine.parameters import SettingError
from tasks.engine.printing import with_result
from tasks.export import ExportDetector
from tasks.photographs.annotations import Score
from tasks.photographs.detect import DetectImages
from tests.tasks.conftest import REPOSITORY

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def project(miniatures, write_detector):
    """A project with a detector and four images, one of them damaged, after a first run; and the output of that run."""
    project = miniatures()
    write_detector(project.folder / "detector", "faster-rcnn")
    photos = project.folder / "photos"
    (photos / "a b").mkdir(parents=True)
    for name, pixels in {"one.png": PIXELS, "a b/one.png": PIXELS[:, ::-1], "two.png": PIXELS[::-1]}.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(photos / name)
    shutil.copy(photos / "one.png", photos / "cut.png")
    with open(photos / "cut.png", "r+b") as file:
        file.truncate(1000)
    return project, project.run("DetectImages", "--images", "photos", "--detector", "detector", status=30)


@pytest.fixture
def copied(project, miniatures):
    """A copy of the project after that run, and a function that runs the stage again in this process."""
    copy = miniatures(project[0].cache)
    for name in ("photos", "detector"):
        shutil.copytree(project[0].folder / name, copy.folder / name)

    def run(**settings) -> Counter:
        luigi.task_register.Register.clear_instance_cache()
        before = copy.manifests()
        chosen = {"images": str(copy.folder / "photos"), "detector": str(copy.folder / "detector"), **settings}
        task = DetectImages(cache_dir=str(copy.cache), shard_size=2, threads=1, **chosen)
        run.succeeded = luigi.build([with_result(task)], local_scheduler=True, log_level="CRITICAL")
        run.artefact = task.artefact
        return copy.made(before)

    yield copy, run
    luigi.task_register.Register.clear_instance_cache()


def folder_of(project):
    (folder,) = {path.parent for path in project.cache.glob("DetectImages/*/detections.json")}
    return folder


def test_one_that_is_not_whole_is_told_of_and_the_others_are_there(project):
    project, output = project
    folder = folder_of(project)
    files = "(detections.json, coco.json, coco.names.json, voc/, pictures/)"
    assert "thresholds: none (--threshold-split): the scores of --draw-score auto stand in\n" in output
    assert f"results: {folder.relative_to(project.folder)}/ {files}\n" in output
    assert output.splitlines()[-2] == (
        "ERROR: DetectImages failed: 1 of 4 images cannot be used; the results cover the other images:"
    )
    assert output.splitlines()[-1].startswith("  cut.png: broken image data (")
    document = json.loads((folder / "detections.json").read_text())
    assert [image["image"] for image in document["failed"]] == ["cut.png"]
    assert [(image["image"], image["width"], image["height"]) for image in document["images"]] == [
        ("a b/one.png", 80, 60), ("one.png", 80, 60), ("two.png", 80, 60),
    ]


def test_results_are_the_detectors(project):
    project, _ = project
    folder, detector = folder_of(project), Detector.load(project.folder / "detector", threads=1)
    images = {image["image"]: image["detections"] for image in json.loads((folder / "detections.json").read_text())["images"]}
    voc = read_voc(folder / "voc", "photographs", ["a%20b/one.png", "one.png", "two.png"], detector.classes)
    for number, (name, entries) in enumerate(images.items()):
        expected = detector.detect(project.folder / "photos" / name)
        assert [entry["class"] for entry in entries] == expected.names
        np.testing.assert_array_equal(np.float32([entry["score"] for entry in entries]), expected.scores)
        np.testing.assert_array_equal(np.float32([entry["box"] for entry in entries]), expected.boxes)
        assert (voc.image_index == number).sum() == len(expected) > 0
        with Image.open(folder / "pictures" / name) as picture:
            drawn = detector.draw(project.folder / "photos" / name, expected)
            np.testing.assert_array_equal(np.asarray(picture), np.asarray(drawn))
    assert images["a b/one.png"] != images["one.png"]
    assert len(json.loads((folder / "coco.json").read_text())) == len(voc)


def test_the_same_files_anywhere_are_the_same_and_still_fail(copied):
    project, run = copied
    (project.folder / "photos").rename(project.folder / "moved")
    (project.folder / "detector").rename(project.folder / "elsewhere")
    assert run(images=str(project.folder / "moved"), detector=str(project.folder / "elsewhere")) == Counter()
    assert not run.succeeded


def test_a_name_that_is_no_text_costs_no_image_its_result(copied):
    project, run = copied
    photos = project.folder / "photos"
    for name in (b"caf\xe9.png", b"\xe9" * 250 + b".png", b"\xe9/\xff.png"):
        path = photos / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        shutil.copy(photos / "one.png", path)
    shutil.copy(photos / "cut.png", photos / os.fsdecode(b"\xff.png"))
    run()
    document = run.artefact.json("detections.json")
    assert [image["image"] for image in document["failed"]] == ["\\udcff.png", "cut.png"]
    assert "photos" not in document["failed"][0]["error"]
    names = ["\\udce9/\\udcff.png", "\\udce9" * 250 + ".png", "a b/one.png", "caf\\udce9.png", "one.png", "two.png"]
    assert [image["image"] for image in document["images"]] == names
    assert document["images"][3]["detections"] == document["images"][4]["detections"] != []
    assert len(list((run.artefact.folder / "pictures").rglob("*.png"))) == len(names)
    classes = run.artefact.json("detections.json")["classes"]
    assert len(read_voc(run.artefact.folder / "voc", "photographs", [voc_id(name) for name in names], classes)) > 0


def test_categories_are_those_of_the_detectors_data_set(copied):
    project, run = copied
    detector = project.folder / "detector/detector.json"
    detector.write_text(json.dumps({**json.loads(detector.read_text()), "category_ids": [90, "d"]}))
    run()
    assert {entry["category_id"] for entry in run.artefact.json("coco.json")} == {90, "d"}
    assert [entry["id"] for entry in run.artefact.json("coco.names.json")["categories"]] == [90, "d"]


def test_a_mended_file_redoes_its_shard_alone(copied):
    project, run = copied
    shutil.copy(project.folder / "photos" / "two.png", project.folder / "photos" / "cut.png")
    assert run() == Counter(IndexImages=1, DetectImages=2)
    assert run.succeeded
    assert run.artefact.json("detections.json")["failed"] == []
    assert (run.artefact.folder / "pictures" / "cut.png").is_file()


def test_another_score_only_draws_anew(copied):
    _, run = copied
    assert run(draw_score=0) == Counter(DetectImages=1)
    with Image.open(run.artefact.folder / "pictures" / "one.png") as picture:
        assert (np.asarray(picture) != PIXELS).any()


def test_pictures_begin_at_the_thresholds_of_the_detector(copied, capfd):
    project, run = copied
    detector = project.folder / "detector/detector.json"
    run(draw_score="auto")
    scores = {name: sorted(entry["score"] for image in run.artefact.json("detections.json")["images"]
                           for entry in image["detections"] if entry["class"] == name) for name in ("cat", "dog")}
    lowest = [scores["cat"][-2], scores["dog"][2]]
    thresholds = {"split": "val", "also": "test", "scores": lowest}
    detector.write_text(json.dumps({**json.loads(detector.read_text()), "thresholds": thresholds}))
    capfd.readouterr()
    run()
    figures = run.artefact.manifest["figures"]
    assert (figures["drawn"], figures["draw_score"]) == (2 + len(scores["dog"]) - 2, "best-f1")
    output = capfd.readouterr().out
    assert "drawn: those with a score of at least their class's best F1 (--draw-score)" in output
    assert "on the split 'val'; the chain is also tested on it" in output
    assert run(draw_score="auto") == Counter(DetectImages=1)


class TestAnnotations:
    FORMATS = ("yolo", "voc", "label-studio", "coco")

    def test_in_all_formats_without_detecting_again(self, copied):
        _, run = copied
        assert run(annotations=self.FORMATS, annotation_score=0.5) == Counter(DetectImages=1)
        folder = run.artefact.folder / "annotations"
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert files == {
            *(f"{kind}/{name}.{suffix}" for kind, suffix in (("voc", "xml"), ("yolo/labels", "txt")) for name in (
                "a b/one", "one", "two")),
            "yolo/data.yaml", "coco/annotations/instances_default.json", "label-studio/tasks.json", "label-studio/labels.xml",
        }
        expected = [entry for image in run.artefact.json("detections.json")["images"] for entry in image["detections"]
                    if np.float32(entry["score"]) >= 0.5]
        document = json.loads((folder / "coco/annotations/instances_default.json").read_text())
        assert len(document["annotations"]) == run.artefact.manifest["figures"]["annotated"] == len(expected)
        tasks = json.loads((folder / "label-studio/tasks.json").read_text())
        assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/a%20b/one.png"

    def test_what_changes_them_and_what_does_not(self, copied):
        _, run = copied
        run(annotations=("voc", "coco"), annotation_score=0.5)
        assert run(annotations=("coco", "voc"), annotation_score=0.5, studio_images="elsewhere/") == Counter()
        assert run(annotations=("coco", "voc"), annotation_score=0.4) == Counter(DetectImages=1)
        assert run(annotations=(), annotation_score=0.3) == Counter()

    def test_an_unknown_format(self):
        with pytest.raises(SettingError, match=r"^--annotations: found 'voc,pascal', expected some of voc, coco, yolo, label-s"):
            DetectImages(annotations=("voc", "pascal"))


def test_probabilities_need_a_detector_that_has_them(copied):
    project, run = copied
    run(calibrate=True)
    assert not run.succeeded
    detector = project.folder / "detector/detector.json"
    detector.write_text(json.dumps({**json.loads(detector.read_text()), "calibration": [[1, 0], None]}))
    run(calibrate=True)
    entries = [entry for image in run.artefact.json("detections.json")["images"] for entry in image["detections"]]
    assert all((entry["probability"] is None) == (entry["class"] == "dog") for entry in entries)


def test_other_weights_redo_all(copied):
    project, run = copied
    weights = project.folder / "detector" / "rpn.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert run() == Counter(DetectImages=3)


def test_what_is_no_file_and_what_is_too_large_are_told_of(copied):
    project, run = copied
    photos = project.folder / "photos"
    (photos / "cut.png").unlink()
    os.mkfifo(photos / "cut.png")
    (photos / "device\n\x1b[31m.png").symlink_to("/dev/zero")
    Image.new("RGB", (100, 90)).save(photos / "large.png")
    assert run(max_megapixels=0.0085) == Counter(IndexImages=1, DetectImages=4)
    assert not run.succeeded
    failed = {image["image"]: image["error"] for image in run.artefact.json("detections.json")["failed"]}
    no_file = "a named pipe, a device, or a link to one, which is not read; put a file in its place"
    assert failed == {
        "cut.png": no_file, "device\n\x1b[31m.png": no_file,
        "large.png": "100 x 90 pixels are 0.009 megapixels, more than the limit of 0.0085; make it smaller, or raise "
                     "--max-megapixels (in Python, max_megapixels)",
    }
    # The usual limit is in no key: the shard of the two images that were there before is found.
    assert run() == Counter(DetectImages=3)
    assert [image["image"] for image in run.artefact.json("detections.json")["failed"]] == ["cut.png", "device\n\x1b[31m.png"]
    assert run(max_megapixels=100) == Counter()


def test_a_file_that_changed_since_it_was_indexed_is_no_fact_to_keep(copied):
    project, _ = copied
    folders = {"images": project.folder / "photos", "detector": project.folder / "detector", "cache_dir": project.cache}
    task = DetectImages(**{name: str(folder) for name, folder in folders.items()})
    (record,) = [record for record in task.index_task().records() if record.id == "one.png"]
    (project.folder / "photos" / "one.png").write_bytes(b"")
    with pytest.raises(PipelineError, match=r"one\.png: changed since it was indexed"):
        task.read(record)


def test_a_folder_without_a_detector_is_told_before_anything_runs(tmp_path):
    with pytest.raises(PipelineError, match=r"^--detector .*: found no detector.json; give a folder that ExportDetector made"):
        DetectImages(images=str(tmp_path), detector=str(tmp_path)).resolve()


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("best-f1", "best-f1"), ("0.1", 0.1), ("-1", -1.0)])
def test_draw_score_survives_the_scheduler(text, value):
    parameter = Score(default="auto")
    assert parameter.parse(text) == value
    assert parameter.parse(parameter.serialize(value)) == value


def test_proposals_from_files_are_none_for_new_images():
    with pytest.raises(PipelineError, match=r"^--proposals test.mat: files contain no proposals for new images; give one of "):
        ExportDetector(chain="fast-rcnn", proposals="test.mat").resolve()


def test_recipe_of_the_docs_gives_fiftyone_each_box(project, monkeypatch):
    """FiftyOne is not installed here: names in its place note what they get."""
    project, folder = project[0], folder_of(project[0])
    page = (REPOSITORY / "docs" / "feature-store-and-recipes.md").read_text()
    (recipe,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "fiftyone" in code]
    module = Mock(**{name: SimpleNamespace for name in ("Detection", "Detections", "Sample")})
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    monkeypatch.chdir(project.folder)
    exec(recipe.replace("KEY", folder.name), {})
    samples = {sample.filepath: sample.detections.detections for sample in module.Dataset().add_samples.call_args.args[0]}
    images = json.loads((folder / "detections.json").read_text())["images"]
    assert list(samples) == [str(project.folder / "photos" / image["image"]) for image in images]
    for image, detections in zip(images, samples.values()):
        left, top, width, height = np.array([detection.bounding_box for detection in detections]).T
        boxes = np.stack([left * 80, top * 60, (left + width) * 80, (top + height) * 60], axis=1)
        np.testing.assert_allclose(boxes, [detection["box"] for detection in image["detections"]], atol=1e-4)


def test_tiles_are_in_the_key_only_if_given_and_detect_again(copied):
    """Random weights find something everywhere; the small image fits into one tile, and is detected in as before."""
    _, run = copied
    assert run(tile_overlap=0.5) == Counter()
    plain = run.artefact.json("detections.json")
    assert run(tiles=80)["DetectImages"] == 3
    assert run.artefact.json("detections.json") == plain
    assert run(tiles=48)["DetectImages"] == 3
    tiled = run.artefact.json("detections.json")
    assert [image["image"] for image in tiled["images"]] == [image["image"] for image in plain["images"]]
    assert tiled != plain
