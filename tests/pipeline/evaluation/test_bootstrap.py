"""Bootstrap over images: against splits that really repeat images, and properties of intervals and paired differences."""

import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.evaluation import bootstrap as module
from pipeline.evaluation.bootstrap import bootstrap, interval, paired_difference
from pipeline.evaluation.voc_ap import evaluate, match_detections


def repeated(images, detections, counts):
    """The split in which image i stands counts[i] times in a row, and its detections."""
    source = np.repeat(np.arange(len(images)), counts)
    new_images = [replace(images[index], id=f"copy {place}") for place, index in enumerate(source)]
    rows = [(place, row) for place, index in enumerate(source) for row in np.flatnonzero(detections.image_index == index)]
    place, row = np.array(rows, int).reshape(-1, 2).T
    return new_images, Detections(
        tuple(image.id for image in new_images), detections.classes, place, detections.class_index[row],
        detections.score[row], detections.boxes[row])


def scaled_scores(detections, generator):
    """The same boxes from a detector that ranks them at random."""
    return replace(detections, score=generator.random(len(detections)))


@pytest.mark.parametrize("metric", ["07", "area"])
def test_equals_evaluation_of_repeated_images(make_split, metric, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 300)  # several chunks, the last one smaller
    images, classes, detections = make_split(np.random.default_rng(1), 7, 4, 8)
    samples = bootstrap(match_detections(detections, images, classes), 40, np.random.default_rng(2), metric)
    draws = np.random.default_rng(2).multinomial(7, np.full(7, 1 / 7), size=40)
    undefined = 0
    for sample, counts in zip(samples, draws, strict=True):
        copies, copied = repeated(images, detections, counts)
        result = evaluate(copied, copies, classes)
        expected = [getattr(of_class, f"ap_{metric}") for of_class in result.classes]
        np.testing.assert_allclose(sample, [*expected, getattr(result, f"mean_ap_{metric}")], atol=1e-12)
        undefined += np.isnan(expected).sum()
    assert undefined  # some resample lacks a class


def test_scores_that_tie_between_images(make_split):
    images, classes, detections = make_split(np.random.default_rng(3), 6, 1, 4)
    detections = replace(detections, score=np.arange(len(detections)) % 4)  # each image has the scores 3, 2, 1, 0
    samples = bootstrap(match_detections(detections, images, classes), 20, np.random.default_rng(4))
    for sample, counts in zip(samples, np.random.default_rng(4).multinomial(6, np.full(6, 1 / 6), size=20), strict=True):
        copies, copied = repeated(images, detections, counts)
        assert sample[-1] == pytest.approx(evaluate(copied, copies, classes).mean_ap_area, abs=1e-12)


def test_one_image_has_one_resample(make_split):
    images, classes, detections = make_split(np.random.default_rng(0), 1, 2, 10)
    result = evaluate(detections, images, classes)
    samples = bootstrap(result.matches, 3, np.random.default_rng(0))
    expected = [*(of_class.ap_area for of_class in result.classes), result.mean_ap_area]
    np.testing.assert_allclose(samples, 3 * [expected], atol=1e-12)


def test_same_generator_same_samples(make_split):
    images, classes, detections = make_split(np.random.default_rng(5), 6, 2, 10)
    matches = match_detections(detections, images, classes)
    first, again, another = (bootstrap(matches, 10, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, another)


def test_class_without_objects_stays_out(make_image):
    images = [make_image("a", [[0, 0, 10, 10]], [0]), make_image("b", [[0, 0, 10, 10]], [0])]
    detections = Detections(("a", "b"), ("cat", "dog"), [0, 1], [0, 0], [1, 1], [[0, 0, 10, 10]] * 2)
    samples = bootstrap(match_detections(detections, images, ("cat", "dog")), 5, np.random.default_rng(0))
    np.testing.assert_array_equal(samples, 5 * [[1, np.nan, 1]])
    np.testing.assert_array_equal(interval(samples), [[1, np.nan, 1]] * 2)


def test_no_detection_and_no_image(make_image):
    nothing = [np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, 4))]
    image = make_image("a", [[0, 0, 10, 10]], [0])
    matches = match_detections(Detections(("a",), ("cat",), *nothing), [image], ("cat",))
    assert bootstrap(matches, 2, np.random.default_rng(0)).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(PipelineError, match="without images"):
        bootstrap(match_detections(Detections((), ("cat",), *nothing), [], ("cat",)), 2, np.random.default_rng(0))


def test_interval_by_hand():
    samples = np.arange(101.0)[:, None] + [0, 1000]
    np.testing.assert_allclose(interval(samples, 0.9), [[5, 1005], [95, 1095]])
    np.testing.assert_allclose(interval(samples), [[2.5, 1002.5], [97.5, 1097.5]])
    samples[:50, 0] = np.nan
    np.testing.assert_allclose(interval(samples, 0.5)[:, 0], [62.5, 87.5])


def test_interval_covers_the_truth_about_as_often_as_it_says(make_image):
    # Each image holds one object, found first of all with probability 0.6 and never otherwise: AP by area is the share found.
    generator, covered = np.random.default_rng(6), 0
    box = [0, 0, 10, 10]
    images = [make_image(str(index), [box], [0]) for index in range(60)]
    for _ in range(100):
        hits = np.flatnonzero(generator.random(60) < 0.6)
        detections = Detections(tuple(image.id for image in images), ("cat",), hits, np.zeros(len(hits)), np.ones(len(hits)),
                                [box] * len(hits))
        low, high = interval(bootstrap(match_detections(detections, images, ("cat",)), 200, generator))[:, -1]
        covered += low <= 0.6 <= high
    assert 85 <= covered <= 99


def test_paired_difference_uses_the_same_resamples(make_split):
    images, classes, detections = make_split(np.random.default_rng(7), 20, 2, 10)
    first = match_detections(detections, images, classes)
    second = match_detections(scaled_scores(detections, np.random.default_rng(8)), images, classes)
    samples = bootstrap(first, 50, np.random.default_rng(9)) - bootstrap(second, 50, np.random.default_rng(9))
    difference = paired_difference(first, second, 50, np.random.default_rng(9), level=0.8)
    np.testing.assert_allclose(difference.mean, samples.mean(axis=0), atol=1e-12)
    np.testing.assert_array_equal([difference.low, difference.high], interval(samples, 0.8))
    np.testing.assert_allclose(difference.share_above, (samples > 0).mean(axis=0))
    assert difference.mean.shape == (3,)
    same = paired_difference(first, first, 50, np.random.default_rng(9))
    assert (same.mean == 0).all()
    assert (same.share_above == 0).all()


def test_paired_difference_leaves_out_resamples_without_the_class(make_image):
    images = [make_image("a", [[0, 0, 10, 10]], [0]), make_image("b")]
    found = Detections(("a", "b"), ("cat", "dog"), [0], [0], [1], [[0, 0, 10, 10]])
    missed = Detections(("a", "b"), ("cat", "dog"), [0], [0], [1], [[50, 0, 60, 10]])
    matches = [match_detections(detections, images, ("cat", "dog")) for detections in (found, missed)]
    difference = paired_difference(*matches, 50, np.random.default_rng(0))
    for values in (difference.mean, difference.low, difference.high, difference.share_above):
        np.testing.assert_array_equal(values, [1, np.nan, 1])


def test_paired_difference_needs_one_split(make_split):
    images, classes, detections = make_split(np.random.default_rng(7), 5, 2, 3)
    first = match_detections(detections, images, classes)
    images, classes, detections = make_split(np.random.default_rng(7), 4, 2, 3)
    with pytest.raises(PipelineError, match="5 images, 2 classes and 4 images, 2 classes"):
        paired_difference(first, match_detections(detections, images, classes), 5, np.random.default_rng(0))


def test_a_thousand_resamples_take_seconds(make_split):
    images, classes, detections = make_split(np.random.default_rng(0), 200, 5, 40)
    matches = match_detections(detections, images, classes)
    start = time.process_time()
    assert bootstrap(matches, 1000, np.random.default_rng(0)).shape == (1000, 6)
    assert time.process_time() - start < 10
