"""The description of a small data set, worked by hand; its tables and its page."""

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.records import ImageRecord
from pipeline.datasets.whole import read_dataset
from pipeline.description.describe import describe, histogram
from pipeline.description.fit import AnchorSet, measure
from pipeline.description.page import render, table_text
from tests.pipeline.datasets.layouts import Item, Voc, encoded
from tests.pipeline.description.test_duplicates import picture

ANCHORS = AnchorSet(shorter=180, longest=300, scales=(2.0,), ratios=(1.0,))


@pytest.fixture
def dataset(tmp_path):
    """240 x 180 pixels: 1 and its copy 2 are in train, their near duplicate 3 in val; 4 has no object."""
    first, second = (encoded(np.asarray(picture(seed)), "PNG") for seed in (1, 2))
    near = encoded(np.asarray(picture(1).resize((120, 90), Image.Resampling.BICUBIC)), "PNG")
    Voc(tmp_path, Item(1, first, (("cat", 0, 0, 32, 32), ("dog", 10, 10, 110, 60))), Item(2, first, (("cat", 40, 40, 56, 72),)),
        Item(4, second, ()))
    Voc(tmp_path, Item(3, near, (("cat", 0, 0, 20, 80),)), Item(1, first, (("cat", 0, 0, 32, 32), ("dog", 10, 10, 110, 60))),
        split="val")
    return read_dataset(tmp_path)


def test_figures_by_hand(dataset):
    d = describe(dataset, anchors=ANCHORS)
    counts = {"difficult": 0, "regions_to_ignore": 0}
    assert d["splits"] == {
        "train": {"images": 3, "without_objects": 1, "objects": 3, **counts, "classes": {"cat": 2, "dog": 1}},
        "val": {"images": 2, "without_objects": 0, "objects": 3, **counts, "classes": {"cat": 2, "dog": 1}},
    }
    assert d["images"]["count"] == 4
    assert d["images"]["without_objects"] == ["JPEGImages/4.jpg"]
    assert d["images"]["width"] == [120, 138, 210, 240, 240, 240, 240]
    assert d["images"]["objects_per_image"][3] == 1
    cat = d["objects"]["classes"]["cat"]
    assert (cat["objects"], cat["images"], cat["small"], cat["large"]) == (3, 3, 1, 0)  # 32 x 32 is not small, 16 x 32 is
    assert cat["side"] == [22.627, 23.565, 27.314, 32, 36, 39.2, 40]
    assert cat["ratio"][0] == 1
    assert cat["ratio"][-1] == 4
    assert d["objects"]["classes"]["dog"]["ratio"] == [0.5] * 7


def test_duplicates_and_shared_images(dataset):
    d = describe(dataset, anchors=ANCHORS)
    equal, near = d["duplicates"]["equal"], d["duplicates"]["near"]
    assert equal == [["JPEGImages/1.jpg", "JPEGImages/2.jpg"]]
    assert near == [["JPEGImages/1.jpg", "JPEGImages/2.jpg", "JPEGImages/3.jpg"]]
    (pair,) = d["in_two_splits"]
    assert (pair["splits"], pair["equal"]) == (["train", "val"], 1)
    assert pair["near"] >= 1


def test_anchors_by_hand():
    """One anchor of 32 x 32 pixels a cell, at multiples of 16 shifted by 8: a box of the same place and size fits exactly."""
    boxes = np.array([[8, 8, 40, 40], [8, 8, 40, 24], [16, 8, 48, 40], [100, 100, 132, 132]], np.float32)
    image = ImageRecord("a", "a", "", 240, 180, boxes, np.array([0, 0, 1, 0]), np.array([False, False, False, True]))
    np.testing.assert_allclose(ANCHORS.best(image), [1, 0.5, 0.6], atol=1e-6)  # (32 - 8) of 32 + 8
    fit = measure([image], ANCHORS.best, ("cat", "dog", "cow"))
    assert fit["objects"] == 3
    assert fit["mean_iou"] == pytest.approx(0.7)
    assert (fit["recall_50"], fit["recall_70"]) == (1, pytest.approx(1 / 3))
    assert fit["classes"]["dog"] == {"objects": 1, "mean_iou": pytest.approx(0.6), "recall_50": 1, "recall_70": 0}
    assert fit["classes"]["cow"] == {"objects": 0, "mean_iou": None, "recall_50": None, "recall_70": None}


def test_anchors_follow_the_scale_of_the_image():
    image = ImageRecord("a", "a", "", 120, 90, np.array([[4, 4, 20, 20]], np.float32), np.array([0]), np.array([False]))
    np.testing.assert_allclose(ANCHORS.best(image), [1], atol=1e-6)


def test_anchors_that_fit_into_no_image():
    image = ImageRecord("a", "a", "", 20, 15, np.array([[4, 4, 20, 15]], np.float32), np.array([0]), np.array([False]))
    assert AnchorSet(16, 26).best(image).tolist() == [0]


def test_proposals(dataset):
    whole = np.array([[0, 0, 32, 32], [0, 0, 240, 180]], np.float32)
    boxes = {image.path: whole for image in dataset.splits["train"].images}
    d = describe(dataset, anchors=ANCHORS, proposals={"train": ("RegionProposals/abc", boxes)})
    assert d["proposals"]["val"] is None
    fit = d["proposals"]["train"]
    assert (fit["source"], fit["boxes_per_image"], fit["objects"]) == ("RegionProposals/abc", 2, 3)
    assert fit["recall_70"] == pytest.approx(1 / 3)
    text = table_text(d)
    assert "proposals of split 'train' (RegionProposals/abc): 2 an image, mean best IoU " in text
    assert "proposals of split 'val': none in the cache" in text


def test_histogram():
    edges, counts = histogram(np.array([1.0, 1.0, 4.0, 2.0])).values()
    assert (edges[0], edges[-1], len(edges)) == (1, 4, 21)
    assert (counts[0], counts[-1], sum(counts)) == (2, 1, 4)
    assert sum(histogram(np.full(3, 7.0))["counts"]) == 3
    assert histogram(np.zeros(0)) == {"edges": [], "counts": []}


def test_the_table_and_the_page_say_the_same(dataset):
    d = describe(dataset, anchors=ANCHORS)
    d["folder"] = "<script>alert(1)</script>"
    text, page = table_text(d), render(d, ["split 'train': noted: <b>"])
    assert "in both 'train' and 'val': 1 image(s)" in text
    assert "equal images: 1 group(s)\n  JPEGImages/1.jpg, JPEGImages/2.jpg" in text
    assert "In both <em>train</em> and <em>val</em>: 1 images" in page
    assert "<script>" not in page
    assert "noted: &lt;b&gt;" in page
    assert page.count("<rect") == 40
