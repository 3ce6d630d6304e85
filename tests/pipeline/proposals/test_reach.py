"""Which objects proposals reach, and what is told when they reach none."""

import numpy as np
import pytest

from pipeline.proposals.reach import find_unreached, measure_reach, search_advice


def reach_of(make_record, sides, *, reached=(), labels=None, size=(400, 400)):
    """Objects with these shorter sides in one image, of which the proposals reach those numbered `reached`."""
    boxes = np.float32([[100 * number, 0, 100 * number + side, 2 * side] for number, side in enumerate(sides)]).reshape(-1, 4)
    image = make_record("a", boxes, [0] * len(boxes) if labels is None else labels, *size)
    return measure_reach([image], [boxes[list(reached)]])


def test_reach_by_hand(make_record):
    """IoU 0.5 reaches; less does not; a difficult object does not count; an image without proposals or objects is no fault."""
    first = make_record("a", [[0, 0, 10, 20], [50, 0, 60, 10], [70, 0, 80, 10]], [0, 1, 1], 100, 200)
    first.difficult[2] = True
    images = [first, make_record("b", [[0, 0, 30, 20]], [0], 300, 50), make_record("c")]
    reach = measure_reach(images, [np.float32([[0, 0, 10, 10], [50, 0, 60, 4.9]]), np.zeros((0, 4)), np.float32([[0, 0, 9, 9]])])
    assert reach.reached.tolist() == [True, False, False]
    assert reach.labels.tolist() == [0, 1, 0]
    assert reach.sides.tolist() == [10, 10, 20]
    assert (reach.longest_side, reach.widest) == (300, 200)


@pytest.mark.parametrize(("sides", "reached", "text"), [
    ([9, 9, 9], [], "the proposals reach none of 3 objects (IoU 0.5 or more)"),
    ([9] * 41, [7], "the proposals reach only 1 of 41 objects (IoU 0.5 or more)"),
    ([9] * 20, [7], None), ([9, 9], [0, 1], None), ([], [], None),
])
def test_hardly_any_object_is_told_of(make_record, sides, reached, text):
    problem = find_unreached(reach_of(make_record, sides, reached=reached), ["cell"])
    assert (problem and problem[0]) == text
    if problem:
        assert np.flatnonzero(~problem[1]).tolist() == reached


def test_classes_without_a_single_one_are_told_of(make_record):
    """Of five objects or more: four of a class may be missed by chance."""
    labels = np.repeat(range(7), [5, 6, 5, 5, 5, 5, 4])
    reach = reach_of(make_record, [8] * len(labels), reached=[0, 11], labels=labels.tolist())
    text, unreached = find_unreached(reach, ["car", "screw", "bus", "nut", "pin", "cog", "rare", "absent"])
    named = "'screw' (6), 'nut' (5), 'pin' (5) and 1 more"
    assert text == f"the proposals reach no object (IoU 0.5 or more) of 4 of 8 classes: {named}"
    assert unreached.tolist() == np.isin(labels, [1, 3, 4, 5]).tolist()


@pytest.mark.parametrize(("sides", "size", "method", "width", "parts"), [
    # Large images are shrunk, which loses small objects.
    ([14, 15], (1600, 1200), "balanced", 0, ["are 14 to 15 pixels", "shrinks images to a longest side of 400",
                                             "--image-width 1200", "--proposals fast"]),
    # The method leaves small boxes out; another does not.
    ([14], (300, 300), "fast", 0, ["leaves out boxes with a side below 20", "--proposals balanced"]),
    ([14], (300, 300), "opencv", 0, ["leaves out boxes with a side below 20", "--proposals balanced"]),
    # No method goes so low.
    ([8], (300, 300), "balanced", 0, ["leaves out boxes with a side below 12", "enlarge the images"]),
    ([30], (300, 800), "quality", 200, ["resized to a width of 200", "raise --image-width to 800"]),
    ([30], (300, 300), "balanced", 0, ["--max-proposals"]),
])
def test_the_advice_suits_the_sides(make_record, sides, size, method, width, parts):
    reach = reach_of(make_record, sides, size=size)
    advice = search_advice(reach, ~reach.reached, method, width)
    for part in parts:
        assert part in advice
    assert ("shrinks" in advice) == ("shrinks" in " ".join(parts))
    assert ("leaves out" in advice) == ("leaves out" in " ".join(parts))
