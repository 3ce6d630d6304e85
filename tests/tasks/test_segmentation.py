"""The five chains of semantic segmentation, run as the user runs them on the miniature, and what they refuse."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pipeline.segmentation.layout import KINDS, SKIPS
from tasks.segmentation.base import BEFORE, CHAINS, METHODS
from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import check_docs, check_second_run, check_shown, check_two_workers, printed

SETTINGS = "[segmentation]\niterations = 3\npatches = 2\npatch_images = 2\npatch_stride = 64\n"
FIGURES = {"mean_iu", "pixel_accuracy", "mean_accuracy", "fw_iu"}
METHOD = "segment_method"


class Segmenting(Miniature):
    settings = Miniature.settings + SETTINGS


@pytest.fixture(scope="module")
def segmented(shared_run, tmp_path_factory):
    """A project after a run of all chains with a report, and what that printed."""
    command = "FullPipeline", "--chains", ",".join(CHAINS), "--report", "true"
    folder, output = shared_run("segmented", lambda folder: Segmenting(folder).run(*command))
    return Segmenting(tmp_path_factory.mktemp("segmented"), folder / "cache"), output


def methods(project, stage: str) -> Counter:
    return Counter(manifest["settings"][METHOD] for manifest in project.manifests().values() if manifest["stage"] == stage)


def test_the_methods_are_those_of_the_networks():
    assert set(METHODS) == set(KINDS)
    assert list(BEFORE.items()) == list(zip(list(SKIPS)[1:], SKIPS))


def test_a_whole_run(segmented):
    project, output = segmented
    assert methods(project, "TrainSegmenter") == Counter(CHAINS)
    assert methods(project, "SegmentImages") == Counter(3 * CHAINS)  # two shards and the whole
    assert "fcn8s on digits, split test\n" in output
    assert "points of mean IU over fcn16s." in output
    assert "patches, every pixel" in output
    chains = json.loads((project.cache / "latest" / "summary.json").read_text())["chains"]
    assert chains.keys() == set(CHAINS)
    for values in chains.values():
        assert values.keys() >= FIGURES
        assert values["interval_95"].keys() == FIGURES
        assert values["train_seconds"] > 0
        assert values["test_seconds_per_image"] > 0
    gains = {chain: set(values.get("gain_over", ())) for chain, values in chains.items()}
    assert gains == {"patches": set(), "unpooling": set(), "fcn32s": set(), "fcn16s": {"fcn32s"}, "fcn8s": {"fcn32s", "fcn16s"}}
    check_docs(project)


def test_each_skip_is_trained_from_the_stage_before(segmented):
    project, _ = segmented
    manifests = [manifest for manifest in project.manifests().values() if manifest["stage"] == "TrainSegmenter"]
    trainings = {manifest["settings"][METHOD]: manifest for manifest in manifests}
    keys = {method: manifest["key"] for method, manifest in trainings.items()}
    assert trainings["fcn16s"]["inputs"]["before"]["key"] == keys["fcn32s"]
    assert trainings["fcn8s"]["inputs"]["before"]["key"] == keys["fcn16s"]
    assert {"weights", "train"} == set(trainings["fcn32s"]["inputs"])


def test_label_maps_are_palette_pngs_of_the_images_sizes(segmented):
    project, _ = segmented
    (folder,) = {path.parent for path in project.cache.glob("SegmentImages/*/shards.json")
                 if json.loads((path.parent / "manifest.json").read_text())["settings"][METHOD] == "fcn8s"}
    paths = sorted((folder / "results/VOC2012/Segmentation/comp6_test_cls").glob("*.png"))
    assert len(paths) == 4
    digits = next(project.cache.glob("GenerateDigits/*/digits"))
    for path in paths:
        image = Image.open(path)
        assert image.mode == "P"
        assert image.size == Image.open(digits / "JPEGImages" / f"{path.stem}.jpg").size
        assert np.asarray(image).max() <= 10


def test_the_report_has_one_section_for_all(segmented):
    project, _ = segmented
    page = (project.cache / "latest" / "report.html").read_text()
    assert page.count('<section id="segmentation">') == 1
    section = page.partition('<section id="segmentation">')[2].partition("</section>")[0]
    for method in CHAINS:
        assert section.count(f'alt="Label map of {method}"') == 4
    assert section.count('alt="True label map"') == 4
    assert "patches, stride 32" in section
    assert 'alt="Kernels of fcn8s"' in section
    assert "What is taken for what" in section
    names = re.findall(r'class="swatch" style="background: (#\w+)"></span> (\w+)<', section)
    assert names[:3] == [("#000000", "background"), ("#800000", "zero"), ("#008000", "one")]


def test_a_second_run_makes_nothing(segmented):
    check_second_run(segmented[0], "FullPipeline", "--chains", ",".join(CHAINS))


def test_a_setting_of_unpooling_leaves_the_others_as_they_are(segmented, task_of):
    words = "luigi --module tasks TrainSegmenter --segment-method"
    assert task_of(f"{words} fcn32s --upsampling nearest").key == task_of(f"{words} fcn32s").key
    assert task_of(f"{words} fcn32s --segment-window 32").key == task_of(f"{words} fcn32s").key
    assert task_of(f"{words} unpooling --upsampling nearest").key != task_of(f"{words} unpooling").key
    assert task_of(f"{words} patches --segment-window 32").key != task_of(f"{words} patches").key
    assert task_of(f"{words} fcn8s --segment-at-once true").key != task_of(f"{words} fcn8s").key


def test_at_once_needs_no_other_method(task_of):
    task = task_of("luigi --module tasks TrainSegmenter --segment-method fcn8s --segment-at-once true")
    assert set(task.requires()) == {"train", "weights"}


def test_photographs_by_an_exported_segmenter_and_in_python(segmented, tmp_path):
    project, _ = segmented
    photos = project.folder / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    Image.fromarray(pixels).save(photos / "one.png")
    Image.fromarray(pixels[:1, :1]).save(photos / "small.jpg")
    (photos / "broken.png").write_bytes(b"nothing")
    output = project.run("ExportSegmenter", "--segment-method", "fcn8s")
    (folder,) = {path.parent for path in project.cache.glob("ExportSegmenter/*/segmenter.json")}
    assert f"segmenter: cache/ExportSegmenter/{folder.name}/ (network.safetensors, segmenter.json)" in output
    output = project.run("SegmentPhotographs", "--images", "photos", "--segmenter", str(folder), status=30)
    assert "1 of 3 images cannot be used" in output
    (result,) = project.cache.glob("SegmentPhotographs/*/segmentations.json")
    values = json.loads(result.read_text())
    assert [image["image"] for image in values["images"]] == ["one.png", "small.jpg"]
    assert sum(values["images"][0]["pixels"].values()) == 37 * 51
    labels = np.asarray(Image.open(result.parent / values["images"][0]["labels"]))
    assert labels.shape == (37, 51)
    assert Image.open(result.parent / values["images"][1]["picture"]).size == (1, 1)
    code = (
        "import numpy, sys; from PIL import Image; from pipeline.segmenter import Segmenter\n"
        "segmenter = Segmenter.load(sys.argv[1], threads=1)\n"
        "labels = segmenter.segment(sys.argv[2])\n"
        "assert (labels == numpy.asarray(Image.open(sys.argv[3]))).all()\n"
        "print(segmenter.draw(sys.argv[2], labels).size, len(segmenter.names))\n"
    )
    shown = printed(project, "-c", code, str(folder), str(photos / "one.png"), str(result.parent / values["images"][0]["labels"]))
    assert shown == "(51, 37) 11\n"
    check_docs(project)


@pytest.mark.parametrize("command", [
    "EvaluateSegmentation", "FullPipeline --chains fcn32s", "Summarise --chains patches,unpooling",
])
def test_the_masks_of_both_splits_are_indexed_first(task_of, command):
    task = task_of(f"luigi --module tasks {command}")
    assert [(dep.stage, dep.split) for dep in task.deps()] == [("IndexMasks", "train"), ("IndexMasks", "test")]


def test_with_a_detector_among_the_chains_boxes_and_masks_are_indexed(task_of):
    task = task_of("luigi --module tasks FullPipeline --chains fcn32s,fast-rcnn")
    assert {(dep.stage, dep.split) for dep in task.deps()} == {
        (stage, split) for stage in ("IndexDataset", "IndexMasks") for split in ("train", "test")
    }


@pytest.mark.exhaustive
def test_the_four_ways_in_one_table(segmented):
    project, _ = segmented
    output = project.run("CompareUpsampling")
    rows = [line.split()[0] for line in output.splitlines() if line.split()[:1] and line.split()[0] in
            ("nearest", "bed-of-nails", "unpool", "transposed")]
    assert rows[:4] == ["nearest", "bed-of-nails", "unpool", "transposed"]
    assert "transposed gains" in output
    check_docs(project)


@pytest.mark.exhaustive
def test_with_two_workers_the_bytes_are_the_same(segmented, tmp_path):
    check_two_workers(segmented[0], Segmenting(tmp_path), "CompareSegmenters")


@pytest.mark.exhaustive
def test_the_cache_tool_shows_every_artefact(segmented):
    check_shown(segmented[0], {
        "TrainSegmenter": "F32 [", "SegmentImages": "results/VOC2012/Segmentation/comp6_test_cls/",
        "EvaluateSegmentation": "histograms  int64 [4 x 11 x 11]", "TimeSegmentation": "images.json",
        "CompareSegmenters": "gains.json", "SegmentationCosts": "rows: ", "IndexMasks": "index.json",
    })


@pytest.mark.exhaustive
def test_a_data_set_without_masks_is_told(segmented, tmp_path):
    project, _ = segmented
    folder = next(project.cache.glob("GenerateDigits/*/digits"))
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("Annotations", "JPEGImages", "ImageSets"):
        (mine / name).symlink_to(folder / name)
    output = project.run("FullPipeline", "--chains", "fcn32s", "--dataset", str(mine), status=30)
    assert "mask" in output


@pytest.mark.exhaustive
def test_unknown_methods_and_impossible_ways_are_told(segmented):
    project, _ = segmented
    output = project.run("CompareSegmenters", "--segmenters", "fcn32s,fcn4s", status=40)
    assert "--segmenters: found 'fcn32s,fcn4s', expected different ones of patches, " in output
    output = project.run(
        "TrainSegmenter", "--segment-method", "unpooling", "--upsampling", "unpool", "--backbone", "efficientnet_lite0", status=35
    )
    assert "has no max pooling" in output
