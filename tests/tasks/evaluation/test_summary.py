"""The table of all chains, and which runs a published mAP stands beside."""

import pytest

from tasks.evaluation.published import published_map
from tasks.evaluation.summary import PYRAMID_NOTE, comparison_table, scope_of

PAPERS = "--dataset voc2007 --train-split trainval --backbone vgg16 --weights imagenet"
CHAINS = ("rcnn", "spp-net", "fast-rcnn", "faster-rcnn")


def published(task_of, settings: str, dataset: str) -> list[float | None]:
    """The published mAP of each chain of a run with these settings."""
    task = task_of(f"luigi --module tasks Summarise {settings}")
    return [published_map(chain, task, dataset) for chain in CHAINS]


def test_runs_of_the_papers_have_their_figures(task_of):
    assert published(task_of, PAPERS, "voc2007") == [66.0, 63.1, 66.9, 69.9]
    both = PAPERS.replace("voc2007", "voc0712")
    assert published(task_of, both, "voc0712") == [None, None, 70.0, 73.2]


@pytest.mark.parametrize(("settings", "dataset"), [
    ("", "digits"), ("--dataset mydata --train-split trainval --backbone vgg16 --weights imagenet", "mydata"),
    (PAPERS.replace("vgg16", "alexnet"), "voc2007"), (PAPERS.replace("imagenet", "scratch"), "voc2007"),
    (PAPERS.replace("trainval", "train"), "voc2007"), (f"{PAPERS} --test-split val", "voc2007"),
    (f"{PAPERS} --classes car,bus", "voc2007"), (f"{PAPERS} --box-regression false", "voc2007"),
    (PAPERS.replace("voc2007", "voc2012"), "voc2012"), (f"{PAPERS} --svd-fc6 1024", "voc2007"),
    (f"{PAPERS} --faster-training joint", "voc2007"),
])
def test_other_runs_have_none(task_of, settings, dataset):
    assert published(task_of, settings, dataset) == [None] * 4


def summary(published_map: float | None) -> dict:
    return {
        "map": 0.5, "published_map": published_map, "coco_ap": 0.125, "train_seconds": 10.0, "test_seconds_per_image": 0.5,
        "proposal_seconds_per_image": 0.0,
    }


def test_a_table_without_a_published_map():
    text = comparison_table(dict.fromkeys(CHAINS, summary(None)))
    assert text.splitlines()[0].split("  ")[-1] == "mAP"
    assert "published mAP" not in text.lower()
    assert not any(figure in text for figure in ("66.0", "63.1", "66.9", "69.9"))
    assert "times R-CNN's speed (published: VGG-16 on a GPU)" in text


def test_a_table_with_published_maps():
    lines = comparison_table({"rcnn": summary(None), "fast-rcnn": summary(70.0)}).splitlines()
    assert lines[0].endswith("  published mAP")
    assert lines[2].split()[-2:] == ["50.00", "-"]
    assert lines[3].split()[-2:] == ["50.00", "70.00"]
    assert lines[4].startswith("Published mAP: VGG-16 on the same data")
    assert len(comparison_table({"rcnn": summary(66.0)}).splitlines()) == 4


def test_a_table_with_masks_and_an_unpublished_chain():
    plain = summary(None)
    chains = {"rcnn": plain, "mask-rcnn": plain | {"mask_ap": 0.25}, "torchvision:fcos_resnet50_fpn": plain}
    lines = comparison_table(chains).splitlines()
    assert lines[0].endswith("  box AP  mask AP")
    assert [line.split()[-2:] for line in lines[2:5]] == [["12.50", "-"], ["12.50", "25.00"], ["12.50", "-"]]


@pytest.mark.parametrize(("settings", "figure"), [("", 63.1), ("--spp-layer fc7", 63.1), ("--spp-layer pool5", None)])
def test_spp_net_compares_with_svms_on_its_fully_connected_layers(task_of, settings, figure):
    assert published(task_of, f"{PAPERS} {settings}", "voc2007")[1] == figure


@pytest.mark.parametrize(("layer", "noted"), [("pool5", True), ("fc6", False)])
def test_svms_on_the_pyramid_are_told_of(layer, noted):
    chains = {"rcnn": summary(None), "spp-net": {**summary(None), "layer": layer}}
    assert (PYRAMID_NOTE in scope_of(chains)) == (PYRAMID_NOTE in comparison_table(chains)) == noted
