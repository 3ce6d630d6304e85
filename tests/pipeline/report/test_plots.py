import numpy as np
from defusedxml import ElementTree

from pipeline.proposals.recall import measure_quality
from pipeline.report.plots import plot_proposal_quality


def make_quality(objects: int):
    boxes = [np.tile(np.float32([0, 0, 10, 10]), (1200, 1)), np.zeros((0, 4), np.float32)]
    truth = [np.float32([[0, 0, 10, 8]])[:objects], np.float32([[0, 0, 9, 9]])[:objects]]
    return measure_quality(boxes, truth, [np.zeros(objects, int)] * 2, 1)


def test_the_picture_is_svg_with_its_title_and_the_same_every_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        plot_proposal_quality(make_quality(1), "proposals < of 'test'", tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    words = " ".join(ElementTree.fromstring(text).itertext())
    for word in ("proposals < of 'test'", "recall", "MABO", "600 boxes", "boxes an image", "IoU"):
        assert word in words, word


def test_without_objects_there_is_still_a_picture(tmp_path):
    plot_proposal_quality(make_quality(0), "none", tmp_path / "none.svg")
    assert ElementTree.fromstring((tmp_path / "none.svg").read_text()).tag.endswith("svg")
