"""Errors that end a whole run."""

import re
from collections import Counter

import pytest

from tests.tasks.full_pipeline.runs import NOTHING

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(cold):
    return cold[0]


class TestErrors:
    """Each ends in one message and an exit status, without a traceback."""

    @pytest.fixture
    def message(self, project):
        def run(*arguments: str, status: int = 30, **variables: str) -> str:
            before = project.manifests()
            output = project.run("FullPipeline", *arguments, status=status, **variables)
            assert "Traceback" not in output
            assert "latest" not in output
            assert project.made(before) - Counter(IndexDataset=9) == NOTHING
            return output

        return run

    def test_bad_annotations_are_reported_at_once(self, message, copied):
        boxes = [("train00000", r"<xmax>\d+", "<xmax>999"), ("train00001", r"<ymin>\d+", "<ymin>few"),
                 ("train00002", r"<name>\w+", "<name>")]
        for name, pattern, replacement in boxes:
            path = copied / "Annotations" / f"{name}.xml"
            path.write_text(re.sub(pattern, replacement, path.read_text(), count=1))
        (copied / "JPEGImages" / "train00003.jpg").write_bytes(b"no picture")
        output = message("--dataset", str(copied))
        assert f"IndexDataset failed: data set {copied}, split 'train': 4 problem(s)\n" in output
        problems = [line.removeprefix(f"  {copied}/") for line in output.splitlines() if line.startswith("  ")]
        assert [problem.split(" ")[0] for problem in problems] == [
            "Annotations/train00000.xml:", "Annotations/train00001.xml:", "Annotations/train00002.xml:",
            "JPEGImages/train00003.jpg:",
        ]
        assert "999" in problems[0]
        assert "which is not inside (1, 1, 320, 240)" in problems[0]
        assert "few" in problems[1]
        assert "has no <name>" in problems[2]

    def test_missing_data_set(self, message, project):
        output = message("--dataset", "nowhere")
        assert f"{project.folder}/nowhere: no such folder; expected a folder in VOC's, COCO's or YOLO's layout" in output

    def test_missing_split(self, message, copied):
        output = message("--dataset", str(copied), "--train-split", "learn")
        there_are = "(ImageSets/Main/SPLIT.txt); the splits of this data set are: test, train, val; give"
        assert f"{copied}: has no split 'learn' {there_are}" in output

    def test_anchors_larger_than_every_image(self, message):
        output = message("--anchor-scales", "64", "--chains", "faster-rcnn")
        assert re.search(
            r"TrainRPN failed: no anchor \(.*1024 x 1024, .* pixels\) fits into any scaled image \(480 x 360 at most\): "
            r"lower --anchor-scales, or raise --fast-scale$", output, re.M,
        )

    def test_missing_weights(self, message):
        output = message("--weights", "nowhere.pth")
        assert "LoadWeights failed: --weights nowhere.pth: no such file; give a file, or imagenet, or scratch" in output

    def test_imagenet_weights_without_a_connection(self, message, project):
        refusing = "http://127.0.0.1:9"  # nothing listens at the port "discard"
        output = message("--backbone", "alexnet", "--weights", "imagenet", https_proxy=refusing, HTTPS_PROXY=refusing)
        assert "LoadWeights failed: the weights of alexnet are not here and cannot be downloaded" in output
        assert re.search(r"get https://\S+/alexnet-owt-7be5be79\.pth .* put it at data/weights/alexnet-owt-7be5be79\.pth", output)
        assert list((project.folder / "data" / "weights").iterdir()) == []

    def test_no_imagenet_weights_of_our_own_backbone(self, message):
        output = message("--weights", "imagenet", status=35)
        assert "there are no ImageNet weights for backbone 'tiny'" in output

    def test_unknown_backbone(self, message):
        assert message("--backbone", "resnet", status=40).startswith("ERROR: --backbone: found 'resnet', expected one of ")
