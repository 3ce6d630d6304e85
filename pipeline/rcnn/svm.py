"""One linear SVM per class, trained with hard negative mining (Girshick et al. 2014, section 2.3 and appendix B; `rcnn_train.m`).

1. Positives of a class are its ground-truth boxes, difficult ones too; they are held throughout.
2. The first image gives each class its first negatives: all boxes with IoU < 0.3 with every object *of this class*, so that a
   ground-truth box of another class is a negative like any other. Boxes on regions to ignore are none. Each class is trained.
   Of boxes of an image that SPP-net pools from the same cells (`repeated`), the first alone may be a negative (`dedup` in
   spp_train.m of ShaoqingRen/SPP_net).
3. Each further image adds to a class's cache the negatives that its SVM scores above -1.0001. One product scores all classes.
4. When more than 2000 were added since its last training, and at the last image, the class is trained again on the positives
   and the cache, and cached negatives that now score below -1.2 are evicted.

One pass over the images, so no negative can enter a cache twice. W and B are held in float32, as in the release. A training
starts from the class's last one: kept examples have their dual variables still, new ones 0. With `solver="liblinear"` it
starts from nothing.

Shape shorthand: n boxes of an image, N examples, C classes, D feature size.
"""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from pipeline.feature_store import FeatureStore, ImageFeatures
from pipeline.prefetch import prefetch
from pipeline.rcnn.array_record import ArrayRecord
from pipeline.rcnn.scaling import widen
from pipeline.rcnn.shared_rows import SharedRows
from pipeline.rcnn.svm_liblinear import solve_by_liblinear
from pipeline.rcnn.svm_settings import LIBLINEAR, SvmSettings
from pipeline.rcnn.svm_solver import decisions, solve

EXAMPLE_BYTES = 120  # an example of a class beside its row: 40 in the cache, 80 more while it is trained or the cache changes
CROWDED_OUT = 4  # when memory is full, a quarter of the largest cache's negatives go: rarely, and few at a time
Progress = Callable[[Iterable], Iterable]  # passes its items on and may show how far it is
EVENT = np.dtype([
    ("image", np.int64), ("class", np.int64), ("positives", np.int64), ("negatives", np.int64), ("added", np.int64),
    ("kept", np.int64), ("evicted", np.int64), ("iterations", np.int64), ("objective", np.float64),
])


@dataclass(frozen=True, eq=False)
class LinearSVMs(ArrayRecord):
    """Trained SVMs and the record of their training.

    `W` float32 [D x C] and `B` float32 [C] apply to features times `scale`. `num_positives`, `num_negatives` (cached at the end),
    `num_crowded_out` (negatives that memory had no room for) are int64 [C]. `events` [trainings] of dtype `EVENT` tells of each
    training, in order: the image and class (0-based), the examples trained on, how many of the negatives were added since the
    last training, what the eviction left, the solver's passes and the primal objective. `hard_negatives` int64 [K x 3] lists
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

    The store is read one image at a time: the ground-truth rows first, then everything once, a few images ahead; `progress` wraps
    the two ranges of images. `generator` seeds the solver. Memory: four images, 0.1 GB of the solver's, and
    `settings.cache_gigabytes`; when that is full, the class with most negatives gives up its lowest-scored quarter, counted in
    `num_crowded_out`. liblinear takes up to 14 times a class's examples beside that.

    Raises PipelineError for a class without positives or without negatives, for a feature that is not finite, for a solver that
    does not converge, and when the positives alone fill the memory.

    NOTE: the release has no limit of memory.
    NOTE: the release trains every class at the first image and fails if that gives it no negative. Here a class without a
    training takes all negatives of each image, and is trained at the first image that has one.
    """
    rows, caches = _gather_positives(store, settings, progress)
    W = np.zeros((store.num_features, len(caches)), np.float32)
    B = np.zeros(len(caches), np.float32)
    events = []
    with contextlib.closing(prefetch(map(store.read, range(store.num_images)))) as ahead:
        for image in progress(range(store.num_images)):
            boxes = next(ahead)
            scores = decision_values(boxes.features, W, B, scale)
            _check_finite(scores, image)
            _mine(rows, caches, settings, image=image, boxes=boxes, scores=scores)
            _make_room(rows, caches, settings.cache_gigabytes)
            for index, cache in enumerate(caches):
                if cache.is_due(image == store.num_images - 1, settings.retrain_limit):
                    W[:, index], B[index], event = _train(cache, rows, scale, generator, settings)
                    events.append((image, index, *event))
    _require(store.classes, [cache.trained for cache in caches], f"box with IoU < {settings.negative_overlap}")
    return _summarise(store.classes, caches, events, W=W, B=B, scale=scale)


class _ClassCache:
    """The examples of one class, by their places in `SharedRows`: all positives, and the negatives mined so far.

    `alphas` are the dual variables of both, positives first; the negatives have scores and (image, row) as well.
    """

    def __init__(self, index: int, name: str):
        self.index = index
        self.name = name
        self.positives = np.zeros(0, np.int64)
        self.negatives = np.zeros(0, np.int64)
        self.alphas = np.zeros(0)
        self.scores = np.zeros(0)
        self.keys = np.zeros((0, 2), np.int64)
        self.trained = False
        self.added = 0
        self.crowded_out = 0

    def __len__(self) -> int:
        return len(self.positives) + len(self.negatives)

    def add_positives(self, places: np.ndarray) -> None:
        """Before there are negatives."""
        self.positives = np.concatenate([self.positives, places])
        self.alphas = np.zeros(len(self.positives))

    def add_negatives(self, places: np.ndarray, scores: np.ndarray, keys: np.ndarray) -> None:
        self.negatives = np.concatenate([self.negatives, places])
        self.alphas = np.concatenate([self.alphas, np.zeros(len(places))])
        self.scores = np.concatenate([self.scores, scores])
        self.keys = np.concatenate([self.keys, keys])
        self.added += len(places)

    def keep(self, mask: np.ndarray, rows: SharedRows) -> None:
        """Drop the negatives where `mask` is False."""
        rows.release(self.negatives[~mask])
        self.alphas = self.alphas[np.append(np.ones(len(self.positives), bool), mask)]
        self.negatives, self.scores, self.keys = self.negatives[mask], self.scores[mask], self.keys[mask]

    def is_due(self, is_last_image: bool, retrain_limit: int) -> bool:
        return len(self.negatives) > 0 and (not self.trained or self.added > retrain_limit or is_last_image)

    def crowd_out(self, rows: SharedRows) -> None:
        """Drop the easiest negatives; there are `CROWDED_OUT` at least."""
        easiest = np.argsort(self.scores, kind="stable")[: len(self.scores) // CROWDED_OUT]
        self.keep(~np.isin(np.arange(len(self.scores)), easiest), rows)
        self.crowded_out += len(easiest)


def _gather_positives(store: FeatureStore, settings: SvmSettings, progress: Progress) -> tuple[SharedRows, list[_ClassCache]]:
    """A cache for each class with its ground-truth boxes in it; reads no other features."""
    caches = [_ClassCache(index, name) for index, name in enumerate(store.classes)]
    rows = SharedRows(_capacity(store, settings.cache_gigabytes), store.num_features)
    for image in progress(range(store.num_images)):
        objects = np.flatnonzero(store.annotations(image).gt_labels >= 0)
        if len(objects):
            boxes = store.read(image, objects)
            _check_finite(boxes.features, image)
            places = rows.add(boxes.features, np.ones_like(objects))
            for label in np.unique(boxes.gt_labels):
                caches[label].add_positives(places[boxes.gt_labels == label])
            _make_room(rows, caches, settings.cache_gigabytes)
    _require(store.classes, [len(cache.positives) > 0 for cache in caches], "ground-truth box")
    return rows, caches


def _capacity(store: FeatureStore, gigabytes: float) -> int:
    """Upper bound of the rows held at once: what fits into memory plus one image, or all rows and each positive twice."""
    labels = [store.annotations(image).gt_labels for image in range(store.num_images)]
    total = sum(len(gt_labels) + int(np.count_nonzero(gt_labels >= 0)) for gt_labels in labels)
    smallest = np.dtype(np.float16).itemsize * store.num_features
    return min(total, int(gigabytes * 1e9 // smallest) + max(map(len, labels), default=0))


def _mine(
    rows: SharedRows, caches: list[_ClassCache], settings: SvmSettings, *, image: int, boxes: ImageFeatures, scores: np.ndarray
) -> None:
    """Add an image's hard negatives to the caches; all negatives of a class that has no SVM yet to tell which are hard."""
    untrained = np.array([not cache.trained for cache in caches])
    is_negative = (boxes.overlaps >= 0) & (boxes.overlaps < settings.negative_overlap)  # on regions to ignore it is -1
    wanted = is_negative & (untrained | (scores > settings.hard_threshold))
    if boxes.repeated is not None:
        wanted &= ~boxes.repeated[:, None]
    users = wanted.sum(axis=1)
    places = np.zeros(len(users), np.int64)
    places[users > 0] = rows.add(boxes.features[users > 0], users[users > 0])
    for cache in caches:
        negatives = np.flatnonzero(wanted[:, cache.index])
        keys = np.stack([np.full_like(negatives, image), negatives], axis=1)
        cache.add_negatives(places[negatives], scores[negatives, cache.index], keys)


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


def _make_room(rows: SharedRows, caches: list[_ClassCache], gigabytes: float) -> None:
    """Crowd out easy negatives until the caches fit into memory."""
    while _memory(rows, caches) > gigabytes * 1e9:
        largest = max(caches, key=lambda cache: len(cache.negatives))
        if len(largest.negatives) < CROWDED_OUT:
            raise PipelineError(
                f"SVM training: the positives alone need {_memory(rows, caches) / 1e9:.3g} GB, allowed are cache_gigabytes = "
                f"{gigabytes:g}; raise it to several times that"
            )
        largest.crowd_out(rows)


def _memory(rows: SharedRows, caches: list[_ClassCache]) -> int:
    return rows.held * rows.row_bytes + EXAMPLE_BYTES * sum(map(len, caches))


def _train(
    cache: _ClassCache, rows: SharedRows, scale: float, generator: np.random.Generator, settings: SvmSettings
) -> tuple[np.ndarray, np.float32, tuple]:
    """Train on the cache and evict what has become easy: w float32 [D], b float32, and an `EVENT` without image and class."""
    chosen = np.concatenate([cache.positives, cache.negatives])
    is_positive = np.arange(len(chosen)) < len(cache.positives)
    seed = int(generator.integers(2**31))
    if settings.solver == LIBLINEAR:
        solution = solve_by_liblinear(
            rows=rows.values, chosen=chosen, is_positive=is_positive, scale=scale, settings=settings, seed=seed
        )
    else:
        solution = solve(
            rows.values, chosen, is_positive, cache.alphas, scale=scale, cost=settings.cost,
            positive_weight=settings.positive_weight, bias_multiplier=settings.bias_multiplier, tolerance=settings.tolerance,
            max_passes=settings.max_iterations, seed=seed,
        )
    if not solution.converged:
        raise PipelineError(
            f"SVM of class {cache.name}: not converged after {settings.max_iterations} iterations on {len(chosen)} examples; "
            f"lower cost ({settings.cost:g}), or raise max_iterations or tolerance ({settings.tolerance:g})"
        )
    w, b = solution.w.astype(np.float32), np.float32(solution.b)
    scores = decisions(rows.values, chosen, w, b, scale)
    cache.alphas, cache.scores = solution.alphas, scores[~is_positive]
    kept = cache.scores >= settings.evict_threshold
    event = (
        len(cache.positives), len(kept), cache.added, kept.sum(), (~kept).sum(), solution.passes,
        primal_objective(w, b, scores, is_positive, settings),
    )
    cache.keep(kept, rows)
    cache.trained, cache.added = True, 0
    return w, b, event


def primal_objective(
    w: np.ndarray, b: float | np.float32, decisions: np.ndarray, is_positive: np.ndarray, settings: SvmSettings
) -> float:
    """What the solver minimises: half the squared weights, the bias's among them, plus the cost of the hinge losses.

    0.5 w.w + 0.5 (b / 10)^2 + C [2 sum over positives of max(0, 1 - z) + sum over negatives of max(0, 1 + z)], z = `decisions`.
    """
    weights = np.append(w.astype(np.float64), b / settings.bias_multiplier)
    losses = np.maximum(0, 1 - np.where(is_positive, decisions, -decisions))
    return float(0.5 * weights @ weights + settings.cost * (losses @ np.where(is_positive, settings.positive_weight, 1.0)))


def _summarise(
    classes: tuple[str, ...], caches: list, events: list, *, W: np.ndarray, B: np.ndarray, scale: float
) -> LinearSVMs:
    hard_negatives = [np.insert(cache.keys, 0, cache.index, axis=1) for cache in caches]
    return LinearSVMs(
        classes=tuple(classes), W=W, B=B, scale=float(scale),
        num_positives=np.array([len(cache.positives) for cache in caches]),
        num_negatives=np.array([len(cache.negatives) for cache in caches]),
        num_crowded_out=np.array([cache.crowded_out for cache in caches]),
        events=np.array(events, EVENT), hard_negatives=np.concatenate(hard_negatives),
    )
