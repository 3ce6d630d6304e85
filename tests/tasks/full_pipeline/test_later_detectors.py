"""The chains of the later detectors in whole runs."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.conversion.convert import convert
from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detector import Detector
from pipeline.files.npz import load_arrays
from pipeline.later_detectors.names import PAPER
from pipeline.later_detectors.network import Design, LaterDetector
from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import NOTHING, cache_tool, check_docs, read_summary

pytestmark = pytest.mark.slow
MASK_RCNN = "mask-rcnn"
LITE = "torchvision:ssdlite320_mobilenet_v3_large"


def command(chain: str) -> tuple[str, ...]:
    # After three steps all scores of a detector are low.
    return "FullPipeline", "--chains", chain, "--report", "true", "--detector-min-score", "0.001"


class FewDetections(Miniature):
    """Without a limit there are 1,800 in an image, each with its mask."""

    settings = Miniature.settings + "[detect]\nmax_detections = 100\n"


@pytest.fixture(scope="module", params=[
    "mask-rcnn", *(pytest.param(chain, marks=pytest.mark.exhaustive) for chain in ("ssd", "retinanet")),
])
def ran(request, shared_run, tmp_path_factory):
    """A chain, and a project after a run of it alone."""
    folder, _ = shared_run(request.param, lambda folder: FewDetections(folder).run(*command(request.param)))
    project = FewDetections(tmp_path_factory.mktemp("detected"), folder / "cache")
    yield request.param, project
    check_docs(project)


def only(project, stage: str, file: str):
    """The file of the whole stage on the test split; shards have no result files."""
    paths = project.cache.glob(f"{stage}/*/{file}")
    (path,) = [path for path in paths if stage == "Evaluate" or list(path.parent.glob("voc/comp4_det_test_*"))]
    return path


def test_what_is_made(ran):
    chain, project = ran
    stages = Counter(manifest["stage"] for manifest in project.manifests().values())
    assert stages == Counter(
        GenerateDigits=1, IndexDataset=2, PretrainClassifier=1, TrainDetector=1, DetectWithNetwork=3, Evaluate=1, TimeDetection=1,
        Summarise=1, FullPipeline=1,
    )
    before = project.manifests()
    assert "Nothing to do" in project.run(*command(chain))
    assert project.made(before) == NOTHING


def test_summary(ran):
    chain, project = ran
    values = read_summary(project)["chains"][chain]
    assert values["map"] is not None
    assert values["interval_95"].keys() >= {"mean", "zero"}
    assert values["train_seconds"] > 0
    assert values["proposal_seconds_per_image"] == 0
    assert ("mask_ap" in values) is (chain == "mask-rcnn")
    page = (project.cache / "latest" / "report.html").read_text()
    assert '<section id="results">' in page
    assert page.count('<image class="layer"') == (2 * 4 if chain == "mask-rcnn" else 0)


def test_masks(ran):
    chain, project = ran
    evaluation = json.loads(only(project, "Evaluate", "evaluation.json").read_text())
    if chain != "mask-rcnn":
        assert "masks" not in evaluation
        return
    detections = Detections.load(only(project, "DetectWithNetwork", "detections.npz"))
    masks = load_arrays(only(project, "DetectWithNetwork", "masks.npz"))["masks"]
    assert masks.shape == (len(detections), 28, 28)
    assert evaluation["masks"]["images"] == 4
    assert evaluation["masks"]["objects"] > 0
    assert "mask AP" in only(project, "Evaluate", "table.txt").read_text()


def test_show_of_every_artefact(ran):
    _, project = ran
    for stage in ("TrainDetector", "DetectWithNetwork"):
        for folder in project.cache.glob(f"{stage}/*"):
            shown = cache_tool(project, "show", f"{stage}/{folder.name}")
            assert not re.search("cannot be read|another key|not belong|no longer", shown)


def test_exported_detector_finds_what_the_stage_does(ran):
    chain, project = ran
    output = project.run("ExportDetector", "--chain", chain, "--detector-min-score", "0.001")
    folder = project.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1]
    detector = Detector.load(folder, threads=1)
    assert detector.settings["thresholds"]["split"] == "val"
    stored = Detections.load(only(project, "DetectWithNetwork", "detections.npz"))
    assert len(stored) > 0
    images = next(project.cache.glob("GenerateDigits/*/digits")) / "JPEGImages"
    masks = load_arrays(only(project, "DetectWithNetwork", "masks.npz"))["masks"] if chain == "mask-rcnn" else None
    for number, image_id in enumerate(stored.image_ids):
        detections, expected = detector.detect(images / f"{image_id}.jpg"), ImageDetections.of(stored, number, masks)
        np.testing.assert_array_equal(detections.scores, expected.scores)
        np.testing.assert_array_equal(detections.boxes, expected.boxes)
        if masks is not None:
            np.testing.assert_array_equal(detections.masks, expected.masks)


def test_masks_are_drawn_in_photographs(ran, tmp_path):
    chain, project = ran
    images = next(project.cache.glob("GenerateDigits/*/digits")) / "JPEGImages"
    photograph = sorted(images.glob("test*.jpg"))[0]
    arguments = "--images", str(photograph), "--chain", chain, "--detector-min-score", "0.001", "--draw-score", "0"
    output = project.run("DetectImages", *arguments)
    folder = project.folder / re.search(r"^results: (\S+)/ \(", output, re.M)[1]
    (picture,) = folder.glob("pictures/*")
    drawn, plain = (np.asarray(Image.open(path), int) for path in (picture, photograph))
    # Frames alone change few pixels.
    changed = (np.abs(drawn - plain).max(axis=2) > 40).mean()
    assert changed > 0.02
    (shard,) = [path for path in project.cache.glob("DetectImages/*/masks.npz")] or [None]
    assert (shard is not None) is (chain == "mask-rcnn")


@pytest.mark.exhaustive
def test_two_workers_make_the_same_bytes(ran, tmp_path):
    chain, project = ran
    again = FewDetections(tmp_path)
    again.run(*command(chain), "--workers", "2")
    stages = "TrainDetector", "DetectWithNetwork", "Evaluate"
    first, second = (
        {name: digest for name, digest in each.digests().items() if name.startswith(stages)} for each in (project, again)
    )
    assert second == {name: digest for name, digest in first.items() if name in second}


@pytest.mark.exhaustive
def test_outlines_teach_what_masks_do(miniatures, shared_run):
    """The digits in VOC's and in COCO's layout: the same network, and the same AP of masks."""
    folder, _ = shared_run(MASK_RCNN, lambda folder: FewDetections(folder).run(*command(MASK_RCNN)))
    source = next((folder / "cache").glob("GenerateDigits/*/digits"))
    results = []
    for layout in "voc", "coco":
        project = miniatures()
        convert(source, project.folder / "photos", layout)
        project.run("Evaluate", "--chain", MASK_RCNN, "--dataset", "photos", "--max-detections", "100")
        evaluation = json.loads(only(project, "Evaluate", "evaluation.json").read_text())
        (network,) = project.cache.glob("TrainDetector/*/detector.safetensors")
        results.append((network.read_bytes(), evaluation["masks"]))
        assert evaluation["masks"]["objects"] > 0
    assert results[0] == results[1]


class TestTraining:
    @pytest.mark.exhaustive
    def test_with_weights_of_coco(self, miniatures):
        """A file of COCO's classes is trained further on ours."""
        project = miniatures()
        torch.manual_seed(0)
        torch.save(LaterDetector(Design(LITE, PAPER, 0), 91).network.state_dict(), project.folder / "lite.pth")
        weights = "--detector-weights", "lite.pth"
        project.run("Summarise", "--chains", LITE, *weights)
        assert read_summary(project)["chains"][LITE]["map"] is not None
        output = project.run("Evaluate", "--chain", LITE, *weights, "--detector-iterations", "0", status=30)
        assert "has no weights for 10 of 10 classes" in output

    @pytest.mark.exhaustive
    def test_augmentation_with_masks(self, miniatures):
        output = miniatures().run("TrainDetector", "--architecture", "mask-rcnn", "--detector-augment", "true", status=30)
        assert "--detector-augment true: not for mask-rcnn, whose masks would not follow" in output

    @pytest.mark.exhaustive
    def test_without_weights(self, miniatures):
        output = miniatures().run("Summarise", "--chains", LITE, status=30)
        assert "has batch normalisation, which stays as it is: give --detector-weights FILE" in output
