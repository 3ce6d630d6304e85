"""Class weights for softmax losses: rare classes, or chosen ones, count more.

The log loss of a region is multiplied by the weight of its true class. The sum is divided by the number of regions as before, not
by the sum of their weights. Boxes keep their loss.

Shape shorthand: C classes; index 0 of the C + 1 weights is the background.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.networks.class_weight_text import BALANCED, NONE, parse_weights

BACKGROUND = "background"


def balanced(counts: np.ndarray) -> np.ndarray:
    """Weights [C] of classes with `counts` [C] objects: n / (C' x count), as scikit-learn's `balanced`; 1 without objects.

    n is the number of all objects, C' that of classes that have any. So all objects together weigh n, as without weights.
    """
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def class_weights(setting: str, classes: Sequence[str], records: Sequence[ImageRecord]) -> np.ndarray | None:
    """The weights float32 [C + 1] that `setting` asks for; None for `none`. The background weighs 1 unless it is named.

    Counted are the objects of `records` that are not difficult. Raises PipelineError for a class that is not in `classes`.
    """
    if setting == NONE:
        return None
    if setting == BALANCED:
        labels = np.concatenate([record.labels[~record.difficult] for record in records])
        counts = np.bincount(labels, minlength=len(classes))
        return np.concatenate([[1], balanced(counts)]).astype(np.float32)
    return _named(parse_weights(setting), classes)


def _named(weights: Mapping[str, float], classes: Sequence[str]) -> np.ndarray:
    names = [BACKGROUND, *classes]  # a class of this name is meant by it, too
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise PipelineError(f"--class-weights: found {', '.join(unknown)}, expected some of {', '.join(names)}")
    return np.array([weights.get(name, 1) for name in names], np.float32)
