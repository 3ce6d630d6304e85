from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.graph import BOX, ROW, crossings, draw, lay_out
from tests.tiers import examples


def layers(inputs):
    return {node: layer for node, (_, layer) in lay_out(inputs).places.items()}


def test_layers_are_longest_ways():
    assert layers({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["b", "gone"]}) == {"a": 0, "b": 1, "c": 2, "d": 2}


def test_what_longer_ways_imply_is_left_out():
    layout = lay_out({"a": [], "b": ["a"], "c": ["b", "a"]})
    assert layout.courses == [[(0.5, 0), (0.5, 1)], [(0.5, 1), (0.5, 2)]]


def test_a_source_stands_above_the_first_that_needs_it():
    assert layers({"a": [], "b": ["a"], "late": [], "c": ["b", "late"]})["late"] == 1


def test_edges_over_several_layers_pass_between_the_nodes():
    layout = lay_out({"a": [], "b": ["a"], "c": ["b"], "x": ["a"], "d": ["c", "x"]})
    (course,) = [course for course in layout.courses if len(course) == 3]
    beside = layout.places["c" if course[1][1] == 2 else "b"]
    assert course[1][1] == beside[1]
    assert abs(course[1][0] - beside[0]) >= 0.5


def test_orders_without_crossings_are_found():
    """Two chains given crosswise."""
    layout = lay_out({"a": [], "b": [], "y": ["b"], "x": ["a"]})
    assert crossings([["a", "b"], ["y", "x"]], {"y": ["b"], "x": ["a"]}) == 1
    assert (layout.places["a"][0] < layout.places["b"][0]) == (layout.places["x"][0] < layout.places["y"][0])


@pytest.mark.parametrize(("lower", "expected"), [(["x", "y"], 0), (["y", "x"], 1)])
def test_crossings(lower, expected):
    above = {"x": ["a", "b"], "y": ["b"]}
    assert crossings([["a", "b"], lower], above) == expected


@given(st.lists(st.sets(st.integers(0, 9)), max_size=10))
@settings(max_examples=examples(30), deadline=None)
def test_every_graph_without_cycles(sources):
    """Edges run down layer by layer, nothing overlaps, everything is in the picture."""
    inputs = {str(node): [str(source) for source in chosen if source < node] for node, chosen in enumerate(sources)}
    layout, drawing = lay_out(inputs), draw(inputs)
    assert layout.places.keys() == inputs.keys() == drawing.boxes.keys()
    for course in layout.courses:
        assert all(lower == upper + 1 for (_, upper), (_, lower) in pairwise(course))
    boxes = sorted(drawing.boxes.values(), key=lambda place: (place[1], place[0]))
    assert all(left[1] != right[1] or right[0] - left[0] > BOX[0] for left, right in pairwise(boxes))
    assert all(x >= 0 and x + BOX[0] <= drawing.width and 0 <= y <= drawing.height - BOX[1] for x, y in boxes)
    assert drawing.height == layout.layers * ROW


def test_no_stage():
    assert draw({}).width == 0
