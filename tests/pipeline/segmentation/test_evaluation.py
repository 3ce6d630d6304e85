"""The figures of a split as JSON and text, and methods compared on the same images."""

import numpy as np
import pytest

from pipeline.segmentation.evaluation import (
    evaluate_segmentation,
    gain_text,
    methods_table,
    paired_gains,
    segmentation_table,
)

NAMES = ("background", "cat", "dog")
# Two images: 8 background pixels, 2 of them taken for cat; 4 cat pixels, 1 of them taken for background. No dog.
HISTOGRAMS = np.int64([[[6, 2, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 3, 0], [0, 0, 0]]])


@pytest.fixture
def evaluation():
    return evaluate_segmentation(HISTOGRAMS, NAMES, without_mask=3, resamples=50, generator=np.random.default_rng(0))


def test_figures_are_those_of_the_summed_histogram(evaluation):
    assert evaluation["pixel_accuracy"] == pytest.approx(9 / 12)
    assert evaluation["mean_accuracy"] == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert evaluation["classes"]["background"]["iu"] == pytest.approx(6 / 9)
    assert evaluation["classes"]["cat"]["iu"] == pytest.approx(3 / 6)
    assert evaluation["classes"]["dog"]["iu"] is None
    assert evaluation["mean_iu"] == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert evaluation["fw_iu"] == pytest.approx((8 * 6 / 9 + 4 * 3 / 6) / 12)
    low, high = evaluation["interval_95"]["mean_iu"]
    assert low <= evaluation["mean_iu"] <= high
    assert (evaluation["images"], evaluation["without_mask"], evaluation["of_void_alone"]) == (2, 3, 0)


def test_the_most_frequent_class_everywhere(evaluation):
    baseline = evaluation["one_class"]
    assert baseline["class"] == "background"
    assert baseline["pixel_accuracy"] == pytest.approx(8 / 12)
    assert baseline["mean_iu"] == pytest.approx((8 / 12 + 0) / 2)


def test_a_mask_of_void_alone_is_counted_and_changes_no_figure(evaluation):
    with_void = np.concatenate([HISTOGRAMS, np.zeros((1, 3, 3), np.int64)])
    generator = np.random.default_rng(0)
    result = evaluate_segmentation(with_void, NAMES, without_mask=0, resamples=50, generator=generator)
    assert result["of_void_alone"] == 1
    assert result["mean_iu"] == evaluation["mean_iu"]
    assert "1 images have a mask of void alone" in segmentation_table(result)


def test_the_table_has_classes_figures_and_what_is_left_out(evaluation):
    text = segmentation_table(evaluation)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["background"][0] == "66.7"
    assert rows["dog"] == ["-", "-", "-", "0"]
    assert "background everywhere" in text
    assert "3 images have no mask and are left out." in text


def test_a_method_against_itself_gains_nothing_and_a_better_one_gains():
    perfect = np.int64([[[8, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 4, 0], [0, 0, 0]]])
    histograms = {"a": HISTOGRAMS, "b": perfect}
    same, better = paired_gains(histograms, [("a", "a"), ("a", "b")], 50, 0)
    assert (same["gain"], same["interval_95"]) == (0, [0, 0])
    assert better["gain"] == pytest.approx(1 - (6 / 9 + 3 / 6) / 2)
    assert better["interval_95"][0] > 0
    assert gain_text(better).startswith("b gains 41.7 (")
    assert gain_text(better).endswith("points of mean IU over a.")


def test_methods_in_one_table_with_and_without_seconds(evaluation):
    rows = methods_table({"fcn8s": evaluation}, [], {}).splitlines()
    assert rows[0].split() == ["mean", "IU", "pixel", "acc.", "mean", "acc.", "f.w.", "IU", "95", "%", "of", "mean", "IU"]
    assert rows[2].split()[:5] == ["fcn8s", "58.3", "75.0", "75.0", "61.1"]
    assert methods_table({"fcn8s": evaluation}, [], {"fcn8s": (2.0, 0.25)}).splitlines()[2].split()[-2:] == ["2.000", "0.250"]
