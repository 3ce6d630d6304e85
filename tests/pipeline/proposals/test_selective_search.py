"""Selective search of our own."""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.datasets.voc import read_split, split_files
from pipeline.errors import PipelineError
from pipeline.images.reading import read_image
from pipeline.proposals import grouping
from pipeline.proposals import selective_search as module
from pipeline.proposals.grouping import COLOUR, FILL, SIZE, TEXTURE
from pipeline.proposals.propose import propose
from pipeline.proposals.ranking import NEAR, merge_hierarchies, select_boxes
from pipeline.proposals.recall import measure_quality
from pipeline.proposals.selective_search import MODES, Mode, group_regions, selective_search
from tests.pipeline.proposals import reference
from tests.pipeline.proposals.test_propose import draw_blocks
from tests.pipeline.proposals.test_segmentation import draw_image


@pytest.fixture
def calls(monkeypatch):
    """Counts what an image is put through."""
    counter = Counter()

    def counted(name):
        function = getattr(module, name)

        def call(*arguments):
            counter[name] += 1
            return function(*arguments)

        return call

    for name in ("convert_colours", "sort_edges", "pixel_bins", "join_edges", "describe_regions", "similarities", "group"):
        monkeypatch.setattr(module, name, counted(name))
    return counter


@pytest.mark.parametrize(("mode", "colours", "segmentations", "groupings"), [
    ("single", 1, 1, 1), ("fast", 2, 4, 8), ("quality", 5, 20, 80), ("balanced", 5, 5, 20),
])
def test_each_mode_segments_and_groups_as_often_as_it_should_and_shares_the_rest(calls, mode, colours, segmentations, groupings):
    selective_search(draw_blocks(60, 80), mode)
    assert calls == {
        "convert_colours": colours, "sort_edges": colours, "pixel_bins": colours, "join_edges": segmentations,
        "describe_regions": segmentations, "similarities": segmentations, "group": groupings,
    }


def test_the_modes_of_the_paper():
    four, three = (COLOUR, TEXTURE, SIZE, FILL), (TEXTURE, SIZE, FILL)
    assert MODES["single"] == Mode(("hsv",), (100,), (four,), None, 20, None)
    assert MODES["fast"] == Mode(("hsv", "lab"), (50, 100), (four, three), None, 20, None)
    assert MODES["quality"] == Mode(
        ("hsv", "lab", "rgi", "hue", "intensity"), (50, 100, 150, 300), (four, three, (FILL,), (SIZE,)), None, 20, None
    )


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_hierarchies_agree_with_a_slow_version(seed):
    """Colour space by colour space, scale by scale, grouping by grouping; the least region has k pixels."""
    image = draw_image(3, 33, 40, seed).transpose(1, 2, 0).copy()
    settings = Mode(("lab", "hue"), (15, 40), ((COLOUR, TEXTURE, SIZE, FILL), (FILL,)))
    expected = []
    for space in settings.colours:
        channels = module.convert_colours(image, space)
        for k in settings.scales:
            labels = reference.segment(channels, k, 0.8, k)
            expected += [reference.group(labels, channels, chosen) for chosen in settings.groupings]
    assert [boxes.tolist() for boxes in group_regions(image, settings)] == [[list(box) for box in boxes] for boxes in expected]


@pytest.mark.parametrize(("mode", "count"), [("single", 1), ("fast", 8), ("quality", 80)])
def test_the_modes_of_the_paper_give_all_different_boxes_in_order_of_priority(mode, count):
    """As selective_search_boxes.m does: sorted by priority, short sides and equal boxes removed, and no more."""
    image = draw_blocks(120, 160)
    hierarchies = group_regions(image, MODES[mode])
    assert len(hierarchies) == count
    rows = map(tuple, merge_hierarchies(hierarchies, np.random.default_rng(3)).tolist())
    expected = list(dict.fromkeys(box for box in rows if min(box[2] - box[0], box[3] - box[1]) >= 20))
    assert list(map(tuple, selective_search(image, mode, seed=3).tolist())) == expected
    assert mode == "single" or len(select_boxes(np.array(expected), (120, 160), near=NEAR)) < len(expected)


def test_a_seed_may_be_a_generator():
    image = draw_blocks(120, 160)
    assert np.array_equal(selective_search(image, seed=5), selective_search(image, seed=np.random.default_rng(5)))


@pytest.mark.parametrize("mode", ["fast", "balanced"])
def test_threads_give_the_same_boxes(mode):
    images = [draw_blocks(120, 160, seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        proposals = list(pool.map(lambda image: selective_search(image, mode), images))
    assert all(np.array_equal(*pair) for pair in zip(proposals, [selective_search(image, mode) for image in images], strict=True))


def test_balanced_shrinks_what_is_large_and_enlarges_nothing():
    image = draw_blocks(400, 600, side=100)
    shrunk = selective_search(image, "balanced")
    assert np.array_equal(shrunk, selective_search(image, "balanced", image_width=400))
    small = image[:240, :320]
    assert np.array_equal(selective_search(small, "balanced"), selective_search(small, "balanced", image_width=320))
    assert [0, 0, 600, 400] in shrunk.tolist()


def test_paper_modes_keep_the_size():
    image = draw_blocks(60, 700)
    assert np.array_equal(selective_search(image, "fast"), selective_search(image, "fast", image_width=700))


def test_noise_and_thin_images():
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (5, 300), (300, 5), (2, 2), (19, 19), (20, 20), (64, 90)):
        image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        for mode in MODES:
            boxes = selective_search(image, mode)
            assert (boxes[:, 2:] <= shape[::-1]).all()
            assert len(boxes) or min(shape) < 20


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["balanced", pytest.param("fast", marks=pytest.mark.exhaustive)])
def test_a_very_large_image(mode):
    image = draw_blocks(4000, 4200, side=500)  # more pixels than float32 can count one by one (2**24)
    image[1000:2500, 1500:3500] = [250, 20, 20]
    boxes = selective_search(image, mode)
    assert measure_quality([boxes], [np.float32([[1500, 1000, 3500, 2500]])], [np.zeros(1, int)], 1).mabo[-1] > 0.94
    assert [0, 0, 4200, 4000] in boxes.tolist()


@pytest.mark.parametrize(("settings", "message"), [
    ({"mode": "slow"}, "no mode 'slow' of selective search; choose one of balanced, single, fast, quality"),
    ({"max_boxes": 0}, "max_boxes is 0"),
    ({"image_width": -1}, "image_width is -1"),
])
def test_bad_settings_are_named(settings, message):
    with pytest.raises(PipelineError, match=message):
        selective_search(draw_blocks(40, 40), **settings)


def test_an_image_beyond_what_counts_can_hold_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with pytest.raises(PipelineError, match=r"40 x 30 pixels is too large .* set image_width"):
        selective_search(draw_blocks(30, 40))
    assert len(selective_search(draw_blocks(30, 40), image_width=20))


def test_similarity_columns():
    assert (grouping.COLOUR, grouping.TEXTURE, grouping.SIZE, grouping.FILL) == (0, 1, 2, 3)


@pytest.fixture
def photographs(shared):
    folder = shared / "datasets" / "voc5"
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in split_files(folder, "trainval")}
    split = read_split(folder, "trainval", None, digests)
    records = split.images[::25]
    return [read_image(folder / record.path) for record in records], records, len(split.classes)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_ours_finds_more_objects_of_photographs_than_the_package(photographs):
    images, records, classes = photographs
    truth, labels = [record.boxes for record in records], [record.labels for record in records]

    def recalls(method: str, count: int) -> np.ndarray:
        return measure_quality([propose(image, method, count, 0) for image in images], truth, labels, classes).recalls[-1]

    package = recalls("selectivesearch", 2000)
    for mode in ("balanced", "fast"):
        ours = recalls(mode, 2000)
        assert ours[0] >= package[0] + 0.05
        assert ours[4] >= package[4] + 0.05
