"""The table of the chains beside the published figures: like is compared with like."""

import pytest

from tasks.evaluation.summary import PYRAMID_NOTE, SCOPE, comparison_table, published_map, scope_of

TIMES = {"train_seconds": 10.0, "test_seconds_per_image": 0.5, "proposal_seconds_per_image": 0.1, "map": 0.5}


def chains(layer):
    return {"rcnn": TIMES, "spp-net": {**TIMES, "layer": layer}}


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_svms_on_fully_connected_layers_compare_with_the_published_figure(layer):
    assert published_map("spp-net", {"layer": layer}) == 63.1
    table = comparison_table(chains(layer))
    assert table.splitlines()[-2].split()[-1] == "63.1"
    assert table.splitlines()[-1] == SCOPE
    assert scope_of({"rcnn": TIMES}) == SCOPE


def test_svms_on_the_pyramid_have_none():
    assert published_map("spp-net", {"layer": "pool5"}) is None
    table = comparison_table(chains("pool5"))
    assert table.splitlines()[-2].split()[-1] == "-"
    assert table.splitlines()[-1] == f"{SCOPE} {PYRAMID_NOTE}"
    assert "66.0" in table
