"""A detector from its folder: what it takes, what it gives, what it draws and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detection.drawing import draw_detections
from pipeline.detection.thresholds import lowest_scores
from pipeline.detector import Detector
from pipeline.detector_folder import WITHOUT_PROPOSALS
from pipeline.errors import PipelineError
from pipeline.proposals.propose import propose
from pipeline.seeding import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")
CHAINS = ("rcnn", "spp-net", "fast-rcnn", "faster-rcnn", "r-fcn")


@pytest.fixture(scope="module")
def pixels():
    generator = np.random.default_rng(0)
    image = np.full((90, 120, 3), 90, np.uint8)
    for x, y, side in generator.integers(5, 50, (12, 3)):
        image[y : y + side, x : x + side] = generator.integers(0, 256, 3)
    return image


@pytest.fixture(scope="module")
def folders(write_detector, tmp_path_factory):
    """A detector of each chain."""
    root = tmp_path_factory.mktemp("detectors")
    return {chain: write_detector(root / chain, chain) for chain in CHAINS}


def same(first, second):
    assert len(first) == len(second) > 0
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


class TestDetect:
    @pytest.mark.parametrize("chain", CHAINS)
    def test_gives_what_survives_in_the_chain_best_first(self, folders, pixels, chain):
        detector = Detector.load(folders[chain])
        detections = detector.detect(pixels, "photo")
        boxes = [] if chain in WITHOUT_PROPOSALS else [propose(pixels, "balanced", 40, make_generator(0, "proposals", "photo"))]
        candidates = detector.chain.detect(pixels, *boxes)
        assert (np.diff(detections.scores) <= 0).all()
        assert 0 < candidates.survives.sum() < len(candidates.score)
        expected = zip(candidates.class_index, candidates.score, candidates.boxes.tolist(), candidates.survives, strict=True)
        rows = zip(detections.labels, detections.scores, detections.boxes.tolist(), strict=True)
        assert sorted(rows) == sorted((label, score, box) for label, score, box, survives in expected if survives)
        assert detections.names == [("cat", "dog")[label] for label in detections.labels]

    def test_what_its_limits_leave_out_is_counted_and_told_of_once(self, write_detector, pixels, tmp_path, caplog):
        folder = write_detector(tmp_path / "detector", "rcnn")
        document = json.loads((folder / "detector.json").read_text())
        document["proposals"]["max_boxes"] = 20
        document["settings"] |= {"max_per_image": 15, "max_detections": 3}
        (folder / "detector.json").write_text(json.dumps(document))
        detector = Detector.load(folder)
        detections = detector.detect(pixels, "photo")
        surplus = len(propose(pixels, "balanced", None, make_generator(0, "proposals", "photo"))) - 20
        assert detections.left_out.proposals == surplus > 0
        assert detections.left_out.candidates == 2 * (20 - 15)
        assert (len(detections), detections.left_out.detections > 0) == (3, True)
        lines = [record.getMessage() for record in caplog.records]
        assert [line.partition("; ")[0] for line in lines] == [
            f"image 'photo': the detector's max_proposals of 20 leaves out {surplus} proposals",
            "image 'photo': the detector's max_per_image of 15 leaves out 10 candidates",
            f"image 'photo': the detector's max_detections of 3 leaves out {detections.left_out.detections} detections",
        ]
        again = detector.detect(pixels, "photo")
        assert (again.left_out, len(caplog.records)) == (detections.left_out, 3)
        Detector.load(folder).detect(pixels, "photo", warn=False)
        assert len(caplog.records) == 3

    def test_without_limits_nothing_is_left_out(self, write_detector, pixels, tmp_path, caplog):
        folder = write_detector(tmp_path / "detector", "fast-rcnn")
        document = json.loads((folder / "detector.json").read_text())
        document["settings"] |= {"max_per_image": 0, "max_detections": 0}
        document["proposals"]["max_boxes"] = 10**6
        (folder / "detector.json").write_text(json.dumps(document))
        assert Detector.load(folder).detect(pixels, "photo").left_out == (0, 0, 0)
        assert not caplog.records

    @pytest.mark.parametrize("chain", [CHAINS[0], *(pytest.param(chain, marks=pytest.mark.exhaustive) for chain in CHAINS[1:])])
    def test_with_a_network_that_has_convolutions_for_regions(self, write_detector, pixels, tmp_path, chain):
        detector = Detector.load(write_detector(tmp_path / "detector", chain, "efficientnet_lite0"))
        detections = detector.detect(pixels, "photo")
        assert detections.boxes.shape == (len(detections), 4)
        assert np.isfinite(detections.scores).all()
        assert len(detections) > 0

    def test_path_pil_image_and_pixels_are_one(self, folders, pixels, tmp_path):
        detector = Detector.load(str(folders["fast-rcnn"]))
        image = Image.fromarray(pixels)
        image.save(tmp_path / "photo.png")
        expected = detector.detect(pixels, "photo")
        for given in (tmp_path / "photo.png", str(tmp_path / "photo.png")):
            same(detector.detect(given), expected)
        same(detector.detect(image, "photo"), expected)
        assert detector.detect(pixels).boxes.tolist() != expected.boxes.tolist()  # another name, another order of proposals

    def test_boxes_are_those_of_the_upright_image(self, folders, pixels, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        Image.fromarray(np.rot90(pixels)).save(tmp_path / "photo.png", exif=exif)
        detector = Detector.load(folders["faster-rcnn"])
        same(detector.detect(tmp_path / "photo.png"), detector.detect(pixels))
        with Image.open(tmp_path / "photo.png") as image:
            same(detector.detect(image), detector.detect(pixels))

    @pytest.mark.parametrize(("image", "found"), [
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"), (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"), (None, "NoneType"),
    ])
    def test_other_things_are_no_image(self, folders, image, found):
        with pytest.raises(PipelineError, match=rf"^image: found {found}, expected a path, a PIL image or uint8 RGB pixels"):
            Detector.load(folders["faster-rcnn"]).detect(image)

    @pytest.mark.parametrize("chain", CHAINS)
    def test_images_too_small_for_anything_are_no_error(self, folders, chain):
        detector = Detector.load(folders[chain])
        for size in (1, 1), (3, 400):
            detections = detector.detect(np.zeros((*size, 3), np.uint8))
            assert detections.boxes.shape == (len(detections), 4)


class TestLoad:
    @pytest.fixture
    def folder(self, write_detector, tmp_path):
        return write_detector(tmp_path / "detector", "rcnn")

    def refusal(self, folder) -> str:
        with pytest.raises(PipelineError) as caught:
            Detector.load(folder)
        return str(caught.value).removeprefix(f"{folder}/")

    def test_no_folder_of_a_detector(self, tmp_path):
        expected = "detector.json: not a detector's file (No such file or directory); give a folder that ExportDetector made"
        assert self.refusal(tmp_path) == expected

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"chain": "rcnn", "parts": {}, "settings": {}}'])
    def test_settings_that_are_none(self, folder, text):
        (folder / "detector.json").write_text(text)
        assert self.refusal(folder).startswith("detector.json: not a detector's file (")

    def test_a_part_that_is_missing_or_damaged(self, folder):
        (folder / "regressors.npz").unlink()
        assert self.refusal(folder).startswith("regressors.npz: cannot be read (")
        for name in ("svms.npz", "backbone.safetensors"):
            (folder / name).write_bytes((folder / name).read_bytes()[:-100])
            assert self.refusal(folder).startswith(f"{name}: cannot be read (")

    def test_weights_of_another_network(self, folder):
        document = json.loads((folder / "detector.json").read_text())
        document["settings"]["backbone"] = "alexnet"
        (folder / "detector.json").write_text(json.dumps(document))
        assert self.refusal(folder).startswith("backbone.safetensors: not the weights of alexnet: ")


class TestDraw:
    FOUND = ImageDetections(
        np.float32([[10, 40, 60, 80], [70, 40, 110, 80]]), np.float32([0.75, 0.5]), np.int32([1, 0]), ("cat", "dog")
    )

    def test_boxes_of_the_score_or_more(self, pixels):
        drawn = [np.asarray(draw_detections(pixels, self.FOUND, np.float32([0, score]))) for score in (0.76, 0.75)]
        drawn.append(np.asarray(draw_detections(pixels, self.FOUND, np.float32([0.5, 0.9]))))
        changed = [(picture != pixels).any(axis=2) for picture in drawn]
        assert [mask[40:80, 10].all() for mask in changed] == [False, True, False]  # a dog with 0.75
        assert [mask[40:80, 70].all() for mask in changed] == [True, True, True]  # a cat with 0.5

    def test_masks_of_the_score_or_more(self, pixels):
        """Each mask fills its box. So a pixel inside, far from the frame and the text, is tinted where the box is drawn."""
        masked = replace(self.FOUND, masks=np.full((2, 28, 28), 255, np.uint8))
        for lowest, drawn in ([0, 0.76], [True, False]), ([0.51, 0.75], [False, True]), ([0, 0], [True, True]):
            changed = (np.asarray(draw_detections(pixels, masked, np.float32(lowest))) != pixels).any(axis=2)
            assert [changed[75, 100], changed[75, 50]] == drawn
        plain = (np.asarray(draw_detections(pixels, self.FOUND, np.float32([0, 0]))) != pixels).any(axis=2)
        assert not plain[75, [50, 100]].any()

    @pytest.mark.parametrize("chain", ["ssd", "retinanet", "mask-rcnn", "torchvision:fcos_resnet50_fpn"])
    def test_scores_of_the_later_detectors_are_probabilities(self, chain):
        settings = {"chain": chain, "classes": ["cat", "dog"]}
        assert lowest_scores(settings).tolist() == lowest_scores(settings, "auto").tolist() == [0.5, 0.5]

    @pytest.mark.parametrize(("chain", "default"), [("spp-net", 0.0), ("fast-rcnn", 0.5)])
    def test_default_is_the_chains(self, folders, pixels, chain, default):
        detector = Detector.load(folders[chain])
        for score in (default, default - 0.01):
            detections = ImageDetections(self.FOUND.boxes[:1], np.float32([score]), self.FOUND.labels[:1], self.FOUND.classes)
            for drawn in detector.draw(pixels, detections), detector.draw(pixels, detections, "auto"):
                assert (np.asarray(drawn) != pixels).any() == (score == default)

    def test_default_is_the_best_f1_of_a_detector_that_knows_it(self, folders, pixels):
        detector = Detector.load(folders["fast-rcnn"])
        detector.settings["thresholds"] = {"split": "val", "also": None, "scores": [None, 0.75]}
        assert detector.lowest_scores().tolist() == [0.5, 0.75]
        assert detector.lowest_scores("auto").tolist() == [0.5, 0.5]
        assert detector.lowest_scores(0.25).tolist() == [0.25, 0.25]
        assert detector.probabilities(self.FOUND) is None
        detector.settings["calibration"] = [None, [0, 0]]
        np.testing.assert_array_equal(detector.probabilities(self.FOUND), [0.5, np.nan])


def test_detections_of_one_image_among_many():
    detections = Detections(
        ("a", "b", "c"), ("cat", "dog"), image_index=[2, 0, 2, 2], class_index=[1, 0, 0, 0], score=[0.5, 9, 0.25, 0.75],
        boxes=np.arange(4)[:, None] + [0, 0, 1, 1],
    )
    of_image = ImageDetections.of(detections, 2)
    assert (of_image.boxes[:, 0].tolist(), of_image.names) == ([3, 0, 2], ["cat", "dog", "cat"])
    assert of_image.scores.tolist() == [0.75, 0.5, 0.25]
    assert len(ImageDetections.of(detections, 1)) == 0
