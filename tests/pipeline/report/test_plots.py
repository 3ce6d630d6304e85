import numpy as np
from defusedxml import ElementTree

from pipeline.proposals.recall import measure_quality
from pipeline.report.plots import bars, curves, plot_proposal_quality, smoothed, stacked


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


def words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


class TestReport:
    def test_bars(self):
        values = {"R-CNN": 12.5, "$x_1$ <&": None, "SPP-net": 0.0}
        picture = bars(values, "mAP", {name: [None, None] for name in values} | {"R-CNN": [10, 20]})
        assert picture == bars(values, "mAP", {name: [None, None] for name in values} | {"R-CNN": [10, 20]})
        for word in ("R-CNN", "$x_1$ <&", "12.5", "mAP"):
            assert word in words(picture), word

    def test_logarithmic_axes_bear_plain_numbers(self):
        for picture in (bars({"a": 20, "b": 3000}, "s", log=True), curves({"a": ([1, 300], [0, 1])}, "", "x", "y", xscale="log")):
            assert "mathdefault" not in picture
            assert {"10", "100"} <= set(words(picture).split())
        assert "1234" in words(bars({"a": 1234.4}, "s", log=True)).split()
        assert bars({"a": None}, "s", log=True)

    def test_curves(self):
        lines = {"a": ([0, 1], [1, 0.5]), "empty": ([], [])}
        text = words(curves(lines, "zero & more", "recall", "y"))
        assert all(word in text for word in ("a", "empty", "recall", "zero & more"))
        assert "empty" not in words(curves(lines, "", "recall", "y", legend=False))

    def test_stacked(self):
        text = words(stacked({"R-CNN": {"correct": 50, "other": 50}, "SPP-net": {"correct": 0, "other": 100}}, "percent"))
        assert all(word in text for word in ("R-CNN", "SPP-net", "correct", "other", "percent"))

    def test_smoothed(self):
        """Over 100 steps the mean of two, the first alone."""
        assert smoothed([4, 2, 6] + 97 * [0])[:4].tolist() == [4, 3, 4, 3]
        assert smoothed([]).tolist() == []
