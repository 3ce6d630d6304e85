"""Box regressors: for each class, ridge regression from features to a better box (Girshick et al. 2014, appendix C).

`rcnn_train_bbox_regressor.m`, `rcnn_predict_bbox_regressor.m` of rbgirshick/rcnn:
1. Each box with IoU > 0.6 with its best ground-truth box, whatever its class, is an example of that box's class; ground-truth
   boxes are examples as well. Boxes on regions to ignore are not.
2. Targets Y (dx, dy, dw, dh) are centred by mu and whitened by T = V diag(1 / sqrt(d + 0.001)) V', V diag(d) V' their covariance.
3. Beta = (X'X + lambda I)^-1 X'Y with X = [scaled features, 1]: the bias is regularised as well. Solved in float64.
4. A box moves by ([x, 1] Beta) T^-1 + mu.

The release measures widths as x2 - x1 of *inclusive* corners, though its IoU has + 1: the width here is a box's width - 1, in
targets and in prediction.

Shape shorthand: n boxes of an image, N examples of a class, C classes, D feature size.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk

from pipeline import boxes as box_algebra
from pipeline.errors import PipelineError
from pipeline.feature_store import FeatureStore
from pipeline.matching import match_boxes
from pipeline.rcnn.array_record import ArrayRecord
from pipeline.rcnn.scaling import widen

WHITENING_FLOOR = 0.001  # rcnn_train_bbox_regressor.m: added to the eigenvalues of the covariance
SMALLEST_SIDE = 1e-6  # pixels; the release adds eps to every width so that none is 0
BLOCK = 1024  # rows (or columns) of float64 features multiplied at a time
HELD = 0.25  # times the memory allowed, beside it: for features that are read before their class's turn


@dataclass(frozen=True)
class RegressorSettings:
    """How the regressors are trained. Defaults: `rcnn_train_bbox_regressor.m`, except where a comment says otherwise."""

    min_overlap: float = 0.6  # an example has IoU > this (strictly)
    ridge: float = 1000.0  # lambda
    memory_gigabytes: float = 1.5  # ours: for the matrix that is solved, and the features in the dual form; `HELD` beside it


@dataclass(frozen=True, eq=False)
class BoxRegressors(ArrayRecord):
    """Trained regressors, for features times `scale`.

    `mu` [C x 4], `T`, `T_inv` [C x 4 x 4], `Beta` [C x (D + 1) x 4], bias last, are float64. `num_examples` int64 [C] were
    trained on; `num_left_out` int64 [C] found no room in memory. A class without examples leaves boxes as they are.
    """

    classes: tuple[str, ...]
    mu: np.ndarray
    T: np.ndarray
    T_inv: np.ndarray
    Beta: np.ndarray
    scale: float
    ridge: float
    num_examples: np.ndarray
    num_left_out: np.ndarray

    def predict(self, features: np.ndarray, boxes: np.ndarray, label: int | None = None) -> np.ndarray:
        """The boxes that the regressor of class `label` makes of `boxes` [n x 4]: float64 [n x 4]; [C x n x 4] without a label.

        `features` [n x D] are unscaled. They are multiplied in float32, or in float64 if they are float64. Boxes are not clipped.
        """
        classes = np.arange(len(self.mu)) if label is None else np.array([label])
        features = widen(features)
        coefficients = self.Beta[classes] @ self.T_inv[classes]
        weights, bias = self.scale * coefficients[:, :-1], coefficients[:, -1] + self.mu[classes]
        weights = weights.transpose(1, 0, 2).reshape(-1, 4 * len(classes)).astype(features.dtype)
        deltas = (features @ weights).astype(np.float64) + bias.reshape(-1)
        moved = [move_boxes(boxes, columns) for columns in np.split(deltas, len(classes), axis=1)]
        return np.stack(moved) if label is None else moved[0]


def release_corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes [n x 4] with inclusive x2 and y2, float64: what the release measures as x2 - x1.

    NOTE: a side that is then below 1e-6 is made 1e-6; the release adds eps to all sides instead.
    """
    corners = box_algebra.to_inclusive(np.asarray(boxes, np.float64))
    return np.concatenate([corners[:, :2], np.maximum(corners[:, 2:], corners[:, :2] + SMALLEST_SIDE)], axis=1)


def move_boxes(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """`boxes` [n x 4] moved by `deltas` [n x 4], measured as the release does; float64 [n x 4], not clipped."""
    return box_algebra.from_inclusive(box_algebra.decode(release_corners(boxes), deltas))


def regression_examples(boxes: np.ndarray, gt_labels: np.ndarray, min_overlap: float) -> tuple[np.ndarray, ...]:
    """Which of an image's `boxes` [n x 4] teach the regressors, and what: rows [k], labels [k], targets float64 [k x 4].

    `gt_labels` [n] is the class of a ground-truth box, -1 for a proposal. Of equal overlaps the first ground-truth box counts.
    """
    truth = np.flatnonzero(gt_labels >= 0)
    if not len(truth):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4))
    overlaps = match_boxes(boxes, boxes[truth])
    rows = np.flatnonzero(overlaps.above(min_overlap))
    assigned = truth[overlaps.nearest[rows]]
    return rows, gt_labels[assigned], box_algebra.encode(release_corners(boxes[rows]), release_corners(boxes[assigned]))


def train_box_regressors(
    store: FeatureStore, scale: float, generator: np.random.Generator, settings: RegressorSettings = RegressorSettings(),
    progress: Callable[[Iterable], Iterable] = iter,
) -> BoxRegressors:
    """Train one regressor for each of `store.classes` on the features in `store` times `scale`.

    One pass over the annotations finds the examples (about 50 bytes each stay in memory), another reads the features of as many
    classes as fit into `HELD`; each other class reads its own, image by image. `progress` wraps the range
    of images, then that of classes.

    With N > D the (D + 1)^2 matrix X'X is accumulated, otherwise the N^2 matrix XX' of the dual form, which gives the
    same Beta = X'(XX' + lambda I)^-1 Y.

    NOTE: where neither fits into `settings.memory_gigabytes`, `generator` draws as many examples as do fit, and the others are
    counted in `num_left_out`; the release has no such limit.

    Raises PipelineError for a feature that is not finite, and when the memory allowed does not hold a single example.
    """
    num_features = store.num_features
    capacity = dual_capacity(num_features, settings.memory_gigabytes)
    primal_fits = 8 * (num_features + 1) ** 2 <= settings.memory_gigabytes * 1e9
    collected = _collect_examples(store, settings.min_overlap, progress)
    in_primal = [primal_fits and len(examples) > min(num_features, capacity) for examples in collected]
    used = [examples if primal else examples.sample(capacity, generator) for examples, primal in zip(collected, in_primal)]
    features = _ClassFeatures(store, used, HELD * settings.memory_gigabytes)
    fitted = []
    for label, examples in enumerate(progress(used)):
        mu, T, T_inv = whitening(examples.targets)
        solve = _solve_primal if in_primal[label] else _solve_dual
        Beta = solve(features.read(label), num_features, (examples.targets - mu) @ T, scale, settings.ridge)
        fitted.append((mu, T, T_inv, Beta, len(examples), len(collected[label]) - len(examples)))
    mu, T, T_inv, Beta, num_examples, num_left_out = (np.array(column) for column in zip(*fitted))
    return BoxRegressors(
        tuple(store.classes), mu, T, T_inv, Beta, float(scale), float(settings.ridge), num_examples, num_left_out
    )


def whitening(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mu [4], T [4 x 4] and its inverse for `targets` [N x 4]; 0 and identities without targets."""
    if not len(targets):
        return np.zeros(4), np.eye(4), np.eye(4)
    mu = targets.mean(axis=0)
    centred = targets - mu
    variances, V = np.linalg.eigh(centred.T @ centred / len(targets))
    roots = np.sqrt(variances + WHITENING_FLOOR)
    return mu, V / roots @ V.T, V * roots @ V.T


def dual_capacity(num_features: int, gigabytes: float) -> int:
    """The most examples N whose N^2 matrix in float64 and features [N x D] in float32 fit into `gigabytes`."""
    capacity = int((np.sqrt(num_features**2 + 2 * gigabytes * 1e9) - num_features) / 4)  # 8 N^2 + 4 N D = bytes
    if capacity < 1:
        raise PipelineError(f"box regression: not one example fits into memory_gigabytes = {gigabytes:g}; raise it")
    return capacity


@dataclass(frozen=True)
class _Examples:
    """The examples of one class: image [N], row in the image [N], targets [N x 4]; by image, then row."""

    images: np.ndarray
    rows: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, size: int, generator: np.random.Generator) -> "_Examples":
        if len(self) <= size:
            return self
        chosen = np.sort(generator.choice(len(self), size, replace=False))
        return _Examples(self.images[chosen], self.rows[chosen], self.targets[chosen])


def _collect_examples(store: FeatureStore, min_overlap: float, progress: Callable[[Iterable], Iterable]) -> list[_Examples]:
    parts_of_classes: list[list[tuple[np.ndarray, ...]]] = [[] for _ in store.classes]
    for image in progress(range(store.num_images)):
        boxes = store.annotations(image)
        rows, labels, targets = regression_examples(boxes.boxes, boxes.gt_labels, min_overlap)
        trained = (boxes.overlaps[rows] >= 0).all(axis=1)  # on regions to ignore it is -1
        rows, labels, targets = rows[trained], labels[trained], targets[trained]
        for label in np.unique(labels):
            mine = labels == label
            parts_of_classes[label].append((np.full(mine.sum(), image, np.int32), rows[mine].astype(np.int32), targets[mine]))
    nothing = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 4))
    return [_Examples(*(np.concatenate(columns) for columns in zip(nothing, *parts))) for parts in parts_of_classes]


class _ClassFeatures:
    """The features of each class's examples, to be read class by class.

    One pass over the images reads those of the first classes, as many as fit into `gigabytes` together; each other class takes
    one more pass. The first class that is not held frees what is held.
    """

    def __init__(self, store: FeatureStore, classes: list[_Examples], gigabytes: float):
        self._store, self._classes = store, classes
        ends = np.cumsum([len(examples) for examples in classes])
        count = np.searchsorted(ends * store.num_features * np.dtype(np.float16).itemsize, gigabytes * 1e9, side="right")
        images, rows = (np.concatenate([getattr(each, name) for each in classes[:count]] or [[]]) for name in ("images", "rows"))
        order = np.lexsort((rows, images))
        self._held = _gather(_read_rows(store, images[order], rows[order]), len(order))
        self._places = np.split(np.argsort(order), ends[: count - 1])[:count]  # of each held class, in `_held`

    def read(self, label: int) -> Iterable[np.ndarray]:
        """The features of the examples of class `label`, in order, in parts."""
        if self._held is not None and label < len(self._places):
            places = self._places[label]
            return [self._held[places]] if len(places) else []
        self._held = None
        return _read_rows(self._store, self._classes[label].images, self._classes[label].rows)


def _read_rows(store: FeatureStore, images: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The features of these `rows` of `images` [N], ascending, image by image."""
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    for start, wanted in zip(starts, np.split(rows, starts[1:])):
        features = store.read(int(images[start]), wanted).features
        if not np.isfinite(features).all():
            raise PipelineError(
                f"image {images[start]} of the feature store: a feature is not finite; extract the features again"
            )
        yield features


def _solve_primal(features: Iterable[np.ndarray], num_features: int, Y: np.ndarray, scale: float, ridge: float) -> np.ndarray:
    """Beta [(D + 1) x 4] = (X'X + ridge I)^-1 X'Y, one block of examples in memory at a time. `features` come in parts."""
    size = num_features + 1
    gram, XY = np.zeros((size, size), order="F"), np.zeros((size, 4))
    start = 0
    for X in _blocks(features, num_features, scale):
        gram = dsyrk(1.0, X.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
        XY += X.T @ Y[start : start + len(X)]
        start += len(X)
    return _ridge_solve(gram, XY, ridge)


def _blocks(feature_parts: Iterable[np.ndarray], num_features: int, scale: float) -> Iterator[np.ndarray]:
    """[scaled features, 1] of the parts in order, `BLOCK` rows at a time: float64 [at most BLOCK x (D + 1)], reused."""
    # An image has a few examples only; adding them singly to a large X'X would take as long as adding a whole block.
    block = np.ones((BLOCK, num_features + 1))
    filled = 0
    for part in feature_parts:
        while len(part):
            taken = part[: BLOCK - filled]
            np.multiply(widen(taken), scale, out=block[filled : filled + len(taken), :-1], dtype=np.float64)
            filled, part = filled + len(taken), part[len(taken) :]
            if filled == BLOCK:
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def _solve_dual(features: Iterable[np.ndarray], num_features: int, Y: np.ndarray, scale: float, ridge: float) -> np.ndarray:
    """Beta [(D + 1) x 4] = X'(XX' + ridge I)^-1 Y, the features in memory in the store's own precision."""
    if not len(Y):
        return np.zeros((num_features + 1, 4))
    rows = _gather(features, len(Y))
    assert rows is not None  # one for each of Y
    columns = [slice(start, start + BLOCK) for start in range(0, num_features, BLOCK)]
    gram = np.ones((len(Y), len(Y)), order="F")  # what the bias column adds to XX'
    for part in columns:
        block = widen(rows[:, part]).astype(np.float64)
        gram = dsyrk(scale**2, block.T, trans=1, beta=1.0, c=gram, lower=1, overwrite_c=1)
    alpha = _ridge_solve(gram, Y, ridge)
    weights = [scale * (widen(rows[:, part]).astype(np.float64).T @ alpha) for part in columns]
    return np.concatenate([*weights, alpha.sum(axis=0, keepdims=True)])


def _gather(parts: Iterable[np.ndarray], size: int) -> np.ndarray | None:
    """The parts [... x D] as one array of `size` rows, or None for nothing."""
    gathered, start = None, 0
    for part in parts:
        if gathered is None:
            gathered = np.empty((size, part.shape[1]), part.dtype)
        gathered[start : start + len(part)] = part
        start += len(part)
    return gathered


def _ridge_solve(gram: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """(gram + ridge I)^-1 right, of which the lower half of `gram` is read; overwrites both."""
    gram[np.diag_indices_from(gram)] += ridge
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    return cho_solve(factor, right, overwrite_b=True, check_finite=False)
