"""Faults of a data set, told once a kind."""

import json

import pytest

from pipeline.datasets.faults import EXAMPLES, Faults, Remark
from pipeline.errors import PipelineError

OUTSIDE = "boxes outside their image"


def test_one_of_a_kind_is_its_message_and_the_advice():
    faults = Faults()
    faults.error(OUTSIDE, "a.xml: object 1 (dog) is outside", "correct it")
    assert list(map(str, faults.errors.all)) == ["a.xml: object 1 (dog) is outside; correct it"]


@pytest.mark.parametrize(("count", "line"), [
    (2, "2 boxes outside their image; correct it; all: object 0; object 1"),
    (EXAMPLES, "3 boxes outside their image; correct it; all: object 0; object 1; object 2"),
    (30_000, "30,000 boxes outside their image; correct it; the first: object 0; object 1; object 2"),
])
def test_many_of_a_kind_are_counted_and_the_first_are_quoted(count, line):
    faults = Faults()
    for number in range(count):
        faults.error(OUTSIDE, f"object {number}", "correct it")
    (remark,) = faults.errors.all
    assert (str(remark), remark.count, len(remark.examples)) == (line, count, min(count, EXAMPLES))


def test_kinds_come_in_the_order_of_their_first_cases():
    faults = Faults()
    for kind in ("b", "a", "b", "a", "c"):
        faults.error(kind, "here", "mend it")
    faults.error("a", "here", "leave it")
    assert [(remark.kind, remark.advice, remark.count) for remark in faults.errors.all] == [
        ("b", "mend it", 2), ("a", "mend it", 2), ("c", "mend it", 1), ("a", "leave it", 1),
    ]


@pytest.mark.parametrize(("policy", "place"), [("error", "errors"), ("drop", "dropped")])
def test_bad_objects_are_errors_or_left_out(policy, place):
    faults = Faults(policy)
    faults.bad_object(OUTSIDE, "here", "mend it")
    faults.note("notes", "there", "look at it")
    filled = {name for name in ("errors", "dropped", "notes") if getattr(faults, name)}
    assert filled == {place, "notes"}


def test_errors_of_readers_are_taken_line_by_line():
    faults = Faults()
    with faults.collected("files"):
        raise PipelineError("a: broken; b; mend it", "c: no advice")
    remarks = [(remark.advice, remark.examples) for remark in faults.errors.all]
    assert remarks == [("mend it", ("a: broken; b",)), ("mend that", ("c: no advice",))]


def test_json_keeps_a_remark():
    remark = Remark(OUTSIDE, "mend it", 5, ("a", "b", "c"))
    assert Remark.from_json(json.loads(json.dumps(remark.to_json()))) == remark
