"""Weights of classes: balanced ones by hand, named ones, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.networks.class_weight_text import parse_weights
from pipeline.networks.class_weights import balanced, class_weights

CLASSES = ("cat", "dog", "cow")


@pytest.fixture
def records(make_record):
    """Three cats, one dog, and a difficult cow."""
    boxes = [[0, 0, 10, 10]]
    hard = replace(make_record("b", boxes * 2, [1, 2], 20, 20), difficult=np.array([False, True]))
    return [make_record("a", boxes * 3, [0, 0, 0], 20, 20), hard, make_record("c", [], [], 20, 20)]


def test_none_is_none(records):
    assert class_weights("none", CLASSES, records) is None


def test_balanced_by_hand(records):
    """Four objects of two classes: 4 / (2 x 3) and 4 / (2 x 1); the cow is difficult, so there is none."""
    weights = class_weights("balanced", CLASSES, records)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [1, 2 / 3, 2, 1])


def test_balanced_objects_weigh_what_they_did():
    counts = np.array([7, 0, 1, 30])
    assert balanced(counts) @ counts == pytest.approx(38)
    np.testing.assert_array_equal(balanced(np.zeros(2, int)), [1, 1])


def test_named(records):
    np.testing.assert_allclose(class_weights("dog=2, background = 0.5", CLASSES, records), [0.5, 1, 2, 1])
    assert parse_weights("a=b=2") == {"a=b": 2}


def test_an_unknown_class_is_an_error(records):
    with pytest.raises(PipelineError, match=r"^--class-weights: found cta, expected some of background, cat, dog, cow$"):
        class_weights("cta=2", CLASSES, records)


@pytest.mark.parametrize("text", ["cat", "cat=", "=2", "cat=0", "cat=-1", "cat=nan", "cat=inf", "cat=1,cat=2", "cat=1,,dog=1"])
def test_wrong_weights_are_an_error(text):
    with pytest.raises(PipelineError, match=r"expected none, balanced or name=weight,\.\.\. with positive weights, each"):
        parse_weights(text)
