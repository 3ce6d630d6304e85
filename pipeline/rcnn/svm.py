"""One linear SVM a class, trained with hard negative mining (Girshick et al. 2014, section 2.3 and appendix B; `rcnn_train.m`).

1. Positives of a class are its ground-truth boxes, difficult ones too; they are held throughout.
2. The first image gives each class its first negatives: all boxes with IoU < 0.3 with every object *of this class*, so that a
   ground-truth box of another class is a negative like any other. Each class is trained.
3. Each further image adds to a class's cache the negatives that its SVM scores above -1.0001. One product scores all classes.
4. When more than 2000 were added since its last training, and at the last image, the class is trained again on the positives
   and the cache, and cached negatives that now score below -1.2 are evicted.

One pass over the images, so no negative can enter a cache twice. W and B are held in float32, as in the release.

Shape shorthand: n boxes of an image, N examples, C classes, D feature size.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from pipeline.errors import PipelineError
from pipeline.feature_store import FeatureStore, ImageFeatures
from pipeline.rcnn.array_record import ArrayRecord
from pipeline.rcnn.packed_rows import PackedRows, to_csr
from pipeline.rcnn.scaling import widen

SOLVER_BYTES = 28  # a non-zero value at training: 12 in float64 CSR, 16 in liblinear's list of (index, value)
CROWDED_OUT = 4  # one in so many negatives of the largest cache goes when memory is full: rarely, and few at a time
Progress = Callable[[Iterable], Iterable]  # passes its items on and may show how far it is
EVENT = np.dtype([
    ("image", np.int64), ("class", np.int64), ("positives", np.int64), ("negatives", np.int64), ("added", np.int64),
    ("kept", np.int64), ("evicted", np.int64), ("iterations", np.int64), ("objective", np.float64),
])


@dataclass(frozen=True)
class SvmSettings:
    """How the SVMs are trained. Defaults: `rcnn_train.m`, except where a comment says otherwise."""

    cost: float = 1e-3  # liblinear -c
    positive_weight: float = 2.0  # liblinear -w1: a positive's slack costs so many times a negative's
    bias_multiplier: float = 10.0  # liblinear -B: the bias is a weight of a feature of this value, and is regularised
    negative_overlap: float = 0.3  # a negative has IoU < this with every object of the class
    hard_threshold: float = -1.0001  # a negative is hard when it scores > this
    evict_threshold: float = -1.2  # a cached negative is easy when it scores < this
    retrain_limit: int = 2000  # train again when more than this many negatives were added
    # NOTE: the release stops at liblinear's 0.1, 2 % from the optimum. At 1e-4 the mined negatives are those of the optimum.
    tolerance: float = 1e-4
    max_iterations: int = 100_000  # liblinear stops at 1000, converged or not
    cache_gigabytes: float = 1.0  # ours: memory for the examples of all classes and the solver's copy of the largest class


@dataclass(frozen=True, eq=False)
class LinearSVMs(ArrayRecord):
    """Trained SVMs and how they came about.

    `W` float32 [D x C] and `B` float32 [C] apply to features times `scale`. `num_positives`, `num_negatives` (cached at the end),
    `num_crowded_out` (negatives that memory had no room for) are int64 [C]. `events` [trainings] of dtype `EVENT` tells of each
    training, in order: the image and class (0-based), the examples trained on, how many of the negatives were added since the
    last training, what the eviction left, the solver's iterations and the primal objective. `hard_negatives` int64 [K x 3] lists
    (class, image, row in the store) of the negatives in the caches at the end.
    """

    classes: tuple[str, ...]
    W: np.ndarray
    B: np.ndarray
    scale: float
    num_positives: np.ndarray
    num_negatives: np.ndarray
    num_crowded_out: np.ndarray
    events: np.ndarray
    hard_negatives: np.ndarray

    def score(self, features: np.ndarray) -> np.ndarray:
        """Decision values [n x C] of unscaled `features` [n x D]: float32, or float64 for float64 features."""
        return decision_values(features, self.W, self.B, self.scale)


def decision_values(features: np.ndarray, W: np.ndarray, B: np.ndarray, scale: float) -> np.ndarray:
    """(scale * features) W + B: [n x D], [D x C], [C] -> [n x C], in float32, or in float64 for float64 features."""
    features = widen(features)
    return features @ (W * scale).astype(features.dtype) + B.astype(features.dtype)


def train_svms(
    store: FeatureStore, scale: float, generator: np.random.Generator, settings: SvmSettings = SvmSettings(),
    progress: Progress = iter,
) -> LinearSVMs:
    """Train one SVM for each of `store.classes` on the features in `store` times `scale`.

    The store is read one image at a time: the ground-truth rows first, then everything once; `progress` wraps the two ranges of
    images. `generator` seeds the solver. Memory: one image, and `settings.cache_gigabytes`; when that is full, the class with
    most negatives gives up its lowest-scored quarter, counted in `num_crowded_out`.

    Raises PipelineError for a class without positives or without negatives, for a feature that is not finite, for a solver that
    does not converge, and when the positives alone fill the memory.

    NOTE: the release has no limit of memory.
    NOTE: the release trains every class at the first image and fails if that gives it no negative. Here a class without a
    training takes all negatives of each image, and is trained at the first image that has one.
    """
    caches = _gather_positives(store, settings, progress)
    W = np.zeros((store.num_features, len(caches)), np.float32)
    B = np.zeros(len(caches), np.float32)
    events = []
    for image in progress(range(store.num_images)):
        boxes = store.read(image)
        scores = decision_values(boxes.features, W, B, scale)
        _check_finite(scores, image)
        for index, cache in enumerate(caches):
            cache.mine(image, boxes, scores[:, index], settings)
            _make_room(caches, settings.cache_gigabytes)
            if cache.is_due(image == store.num_images - 1, settings.retrain_limit):
                W[:, index], B[index], event = _train(cache, scale, generator, settings)
                events.append((image, index, *event))
    _require(store.classes, [cache.trained for cache in caches], f"box with IoU < {settings.negative_overlap}")
    return _summarise(store.classes, W, B, scale, caches, events)


class _ClassCache:
    """The examples of one class: all positives, and the negatives mined so far with their scores and (image, row)."""

    def __init__(self, index: int, name: str, num_features: int):
        self.index = index
        self.name = name
        self.positives = PackedRows(num_features)
        self.negatives = PackedRows(num_features)
        self.scores = np.zeros(0)
        self.keys = np.zeros((0, 2), np.int64)
        self.trained = False
        self.added = 0
        self.crowded_out = 0

    def mine(self, image: int, boxes: ImageFeatures, scores: np.ndarray, settings: SvmSettings) -> None:
        """Add an image's hard negatives; all its negatives as long as there is no SVM to tell which are hard."""
        is_negative = boxes.overlaps[:, self.index] < settings.negative_overlap
        rows = np.flatnonzero(is_negative & (scores > settings.hard_threshold) if self.trained else is_negative)
        self.negatives.append(boxes.features[rows])
        self.scores = np.concatenate([self.scores, scores[rows]])
        self.keys = np.concatenate([self.keys, np.stack([np.full_like(rows, image), rows], axis=1)])
        self.added += len(rows)

    def keep(self, mask: np.ndarray) -> None:
        self.negatives.keep(mask)
        self.scores, self.keys = self.scores[mask], self.keys[mask]

    def is_due(self, is_last_image: bool, retrain_limit: int) -> bool:
        return len(self.negatives) > 0 and (not self.trained or self.added > retrain_limit or is_last_image)

    def crowd_out(self) -> None:
        """Drop the easiest negatives; there are `CROWDED_OUT` at least."""
        easiest = np.argsort(self.scores, kind="stable")[: len(self.scores) // CROWDED_OUT]
        self.keep(~np.isin(np.arange(len(self.scores)), easiest))
        self.crowded_out += len(easiest)


def _gather_positives(store: FeatureStore, settings: SvmSettings, progress: Progress) -> list[_ClassCache]:
    """A cache for each class with its ground-truth boxes in it; reads no other features."""
    caches = [_ClassCache(index, name, store.num_features) for index, name in enumerate(store.classes)]
    for image in progress(range(store.num_images)):
        rows = np.flatnonzero(store.annotations(image).gt_labels >= 0)
        if len(rows):
            boxes = store.read(image, rows)
            _check_finite(boxes.features, image)
            for label in np.unique(boxes.gt_labels):
                caches[label].positives.append(boxes.features[boxes.gt_labels == label])
            _make_room(caches, settings.cache_gigabytes)
    _require(store.classes, [len(cache.positives) > 0 for cache in caches], "ground-truth box")
    return caches


def _check_finite(values: np.ndarray, image: int) -> None:
    if not np.isfinite(values).all():
        raise PipelineError(f"image {image} of the feature store: a feature is not finite; extract the features again")


def _require(classes: tuple[str, ...], present: list[bool], what: str) -> None:
    absent = [name for name, there in zip(classes, present) if not there]
    if absent:
        raise PipelineError(
            f"class {', '.join(absent)}: no {what} in the training images, expected at least one; "
            "add images that have one or leave the class out"
        )


def _make_room(caches: list[_ClassCache], gigabytes: float) -> None:
    """Crowd out easy negatives until the caches, and the solver's copy of the largest, fit into memory."""
    limit = min(gigabytes * 1e9, SOLVER_BYTES * 2**31)  # the solver's copy has 32-bit indices
    while _memory(caches) > limit:
        largest = max(caches, key=lambda cache: cache.negatives.nonzeros)
        if len(largest.negatives) < CROWDED_OUT:
            raise PipelineError(
                f"SVM training: the positives alone need {_memory(caches) / 1e9:.3g} GB, allowed are cache_gigabytes = "
                f"{gigabytes:g}; raise it to several times that"
            )
        largest.crowd_out()


def _memory(caches: list[_ClassCache]) -> int:
    held = sum(cache.positives.nbytes + cache.negatives.nbytes for cache in caches)
    return held + SOLVER_BYTES * max(cache.positives.nonzeros + cache.negatives.nonzeros for cache in caches)


def _train(cache: _ClassCache, scale: float, generator: np.random.Generator, settings: SvmSettings) -> tuple:
    """Train on the cache and evict what has become easy: w float32 [D], b float32, and an `EVENT` without image and class."""
    examples = to_csr([cache.positives, cache.negatives], scale)
    is_positive = np.arange(examples.shape[0]) < len(cache.positives)
    w, b, iterations = _solve(examples, is_positive, cache.name, generator, settings)
    decisions = examples @ w.astype(np.float64) + np.float64(b)
    objective = primal_objective(w, b, decisions, is_positive, settings)
    cache.scores = decisions[~is_positive]
    kept = cache.scores >= settings.evict_threshold
    event = len(cache.positives), len(kept), cache.added, kept.sum(), (~kept).sum(), iterations, objective
    cache.keep(kept)
    cache.trained, cache.added = True, 0
    return w, b, event


def _solve(examples, is_positive: np.ndarray, name: str, generator: np.random.Generator, settings: SvmSettings) -> tuple:
    """w float32 [D], b float32 and the solver's iterations for `examples` [N x D], dense or sparse."""
    solver = LinearSVC(
        loss="hinge", dual=True, C=settings.cost, class_weight={1: settings.positive_weight}, tol=settings.tolerance,
        intercept_scaling=settings.bias_multiplier, max_iter=settings.max_iterations,
        random_state=int(generator.integers(2**31)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            solver.fit(examples, np.where(is_positive, 1, -1))
        except ConvergenceWarning as error:
            raise PipelineError(
                f"SVM of class {name}: not converged after {settings.max_iterations} iterations on {len(is_positive)} examples; "
                f"lower cost ({settings.cost:g}), or raise max_iterations or tolerance ({settings.tolerance:g})"
            ) from error
    return solver.coef_[0].astype(np.float32), solver.intercept_[0].astype(np.float32), solver.n_iter_


def primal_objective(w: np.ndarray, b: float, decisions: np.ndarray, is_positive: np.ndarray, settings: SvmSettings) -> float:
    """What the solver minimises: half the squared weights, the bias's among them, plus the cost of the hinge losses.

    0.5 w.w + 0.5 (b / 10)^2 + C [2 sum over positives of max(0, 1 - z) + sum over negatives of max(0, 1 + z)], z = `decisions`.
    """
    weights = np.append(w.astype(np.float64), b / settings.bias_multiplier)
    losses = np.maximum(0, 1 - np.where(is_positive, decisions, -decisions))
    return float(0.5 * weights @ weights + settings.cost * (losses @ np.where(is_positive, settings.positive_weight, 1.0)))


def _summarise(classes: tuple[str, ...], W: np.ndarray, B: np.ndarray, scale: float, caches: list, events: list) -> LinearSVMs:
    hard_negatives = [np.insert(cache.keys, 0, cache.index, axis=1) for cache in caches]
    return LinearSVMs(
        classes=tuple(classes), W=W, B=B, scale=float(scale),
        num_positives=np.array([len(cache.positives) for cache in caches]),
        num_negatives=np.array([len(cache.negatives) for cache in caches]),
        num_crowded_out=np.array([cache.crowded_out for cache in caches]),
        events=np.array(events, EVENT), hard_negatives=np.concatenate(hard_negatives),
    )
