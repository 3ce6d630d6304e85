import hashlib
from collections import Counter
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab

from pipeline import boxes as box_algebra
from pipeline.datasets import digits
from pipeline.datasets.digits import CLASSES, PHOTOGRAPHS, make_digits, make_images, scan_indices
from pipeline.datasets.voc import read_split, split_files
from pipeline.errors import PipelineError
from pipeline.images.reading import read_image

SPLITS = ("train", "val", "test")
COUNTS = {"train": 8, "val": 4, "test": 4}


def file_digests(root):
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    make_digits(root, **{f"{split}_images": count for split, count in COUNTS.items()})
    return root


@pytest.fixture(scope="module", params=SPLITS)
def split(root, request):
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in split_files(root, request.param)}
    return read_split(root, request.param, CLASSES, digests)


def test_same_bytes_twice_and_others_with_another_seed(root, tmp_path):
    digits._load_photograph.cache_clear()
    make_digits(tmp_path / "same", 8, 4, val_images=4)
    assert file_digests(tmp_path / "same") == file_digests(root)
    make_digits(tmp_path / "other", 1, 1, seed=1, val_images=1)
    digests = file_digests(tmp_path / "other")
    assert len(digests) == 16
    assert not digests.items() & file_digests(root).items()


def test_a_miniature_is_the_beginning_of_a_larger_set():
    for few, many in zip(make_images("test", 3, 0), make_images("test", 5, 0), strict=False):
        assert few.id == many.id
        np.testing.assert_array_equal(few.pixels, many.pixels)
        np.testing.assert_array_equal(few.boxes, many.boxes)


def test_counts_sizes_and_classes(split):
    assert len(split.images) == COUNTS[split.name]
    assert {(image.width, image.height) for image in split.images} == {(320, 240)}
    for start in range(0, len(split.images), 4):
        images = split.images[start:start + 4]
        assert sorted(len(image.boxes) for image in images) == [1, 2, 3, 4]
        assert sorted(np.concatenate([image.labels for image in images])) == list(range(10))
    for image in split.images:
        longer = (image.boxes[:, 2:] - image.boxes[:, :2]).max(axis=1)
        assert ((longer >= 36) & (longer <= 120)).all()
        overlaps = box_algebra.iou(image.boxes, image.boxes)
        assert overlaps.sum() == len(image.boxes)


@pytest.fixture
def recorded(monkeypatch):
    """A function that records the calls of a private function of the generator: their arguments and results."""

    def record(name):
        calls, function = [], getattr(digits, name)
        monkeypatch.setattr(digits, name, lambda *args: calls.append((args, function(*args))) or calls[-1][1])
        return calls

    return record


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_are_tight_around_what_was_drawn(split, recorded):
    backgrounds = recorded("_draw_background")
    for image in make_images(split, 4, 3):
        changed = (image.pixels != backgrounds[-1][1]).any(axis=2)
        for x1, y1, x2, y2 in image.boxes.astype(int):
            drawn = np.argwhere(changed[y1:y2, x1:x2])
            # A pixel may happen to have the digit's colour before it is drawn.
            assert (drawn.min(axis=0) <= 1).all()
            assert (drawn.max(axis=0) >= np.array([y2 - y1, x2 - x1]) - 2).all()
            changed[y1:y2, x1:x2] = False
        assert not changed.any()


def test_digits_are_of_one_colour_that_stands_out(recorded):
    backgrounds = recorded("_draw_background")
    for image in make_images("train", 12, 5):
        background = backgrounds[-1][1]
        for x1, y1, x2, y2 in image.boxes.astype(int):
            covered, drawn = background[y1:y2, x1:x2], image.pixels[y1:y2, x1:x2]
            changed = drawn[(drawn != covered).any(axis=2)]
            colours, counts = np.unique(changed, axis=0, return_counts=True)
            # The rest are antialiased edges.
            assert counts.max() > 0.6 * len(changed)
            assert 0.15 < counts.max() / covered[..., 0].size < 0.95
            distances = np.linalg.norm(rgb2lab(covered) - rgb2lab(colours[counts.argmax()]), axis=2)
            assert (distances > digits.MIN_CONTRAST - 2).mean() > 0.88


def test_splits_share_neither_photograph_nor_scan():
    scans, labels = digits._load_scans()
    pools = {split: [scan_indices(split, label) for label in range(10)] for split in SPLITS}
    assert all((labels[pool] == label).all() for split in SPLITS for label, pool in enumerate(pools[split]))
    assert all(len(pool) >= 15 for split in SPLITS for pool in pools[split])
    indices = [index for split in SPLITS for pool in pools[split] for index in pool]
    assert sorted(indices) == list(range(len(scans)))
    assert len({scan.tobytes() for scan in scans}) == len(scans)  # no scan is there twice
    photographs = [photograph for split in SPLITS for photograph in PHOTOGRAPHS[split]]
    assert len({read_image(files(package) / name).tobytes() for package, name in photographs}) == len(photographs)
    assert ("skimage", "data/motorcycle_right.png") not in photographs  # it shows what motorcycle_left shows


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.tuples(*[st.integers(1, 120)] * 3))
def test_whatever_seed_and_counts_splits_are_disjoint(seed, counts):
    """What the generator takes for each split; nothing is drawn."""
    taken: dict[str, tuple[set, set]] = {}
    for split, count in zip(SPLITS, counts, strict=True):
        photographs, scans = taken[split] = set(), set()

        def draw(background, chosen, rng, scans=scans):
            scans.update(scan.tobytes() for scan, _ in chosen)
            return digits.Drawing(background, np.zeros((len(chosen), 4)), np.zeros((0, 7, 3)), np.zeros((1, 1), np.uint8))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digits, "_load_photograph", lambda *name, photographs=photographs: photographs.add(name))
            patch.setattr(digits, "_draw_background", lambda photograph, rng: np.zeros((1, 1, 3), np.uint8))
            patch.setattr(digits, "_draw_digits", draw)
            assert len(list(make_images(split, count, seed))) == count
        assert len(photographs) == min(count, len(PHOTOGRAPHS[split]))
    for first, second in combinations(SPLITS, 2):
        assert all(mine.isdisjoint(theirs) for mine, theirs in zip(taken[first], taken[second], strict=True))


def test_the_test_split_is_that_of_version_1():
    """Figures are published for it, so `val` took its photographs and scans from elsewhere."""
    first, second, third = make_images("test", 3, 0)
    assert [list(image.names) for image in (first, second, third)] == [["seven", "eight", "nine"], ["two"], ["zero", "five"]]
    assert first.boxes.tolist() == [[236, 47, 282, 115], [83, 42, 151, 151], [16, 38, 70, 123]]
    assert second.boxes.tolist() == [[205, 117, 271, 213]]
    assert third.boxes.tolist() == [[282, 185, 305, 222], [130, 116, 212, 236]]


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_made_of_its_own_photographs_and_scans(split, recorded):
    photographs, drawn = recorded("_load_photograph"), recorded("_draw_scan")
    list(make_images(split, 8, 0))
    scans = digits._load_scans()[0]
    own = {scans[index].tobytes() for label in range(10) for index in scan_indices(split, label)}
    assert {args[0].tobytes() for args, _ in drawn} <= own
    assert {args for args, _ in photographs} == set(PHOTOGRAPHS[split])


def test_photographs_are_shipped_in_the_packages():
    for package, name in [photograph for split in SPLITS for photograph in PHOTOGRAPHS[split]]:
        height, width = read_image(files(package) / name).shape[:2]
        assert min(height, width) >= 300


def test_a_scan_is_cropped_to_its_ink_and_turned():
    scan = np.zeros((8, 8))
    scan[1:7, 3:5] = 16
    upright = digits._draw_scan(scan, 10.0, 0.0)[0]
    assert upright.shape == pytest.approx((60, 20), abs=3)
    assert upright.max() == 1
    assert upright.mean() > 0.9
    for row in (upright[0], upright[-1], upright[:, 0], upright[:, -1]):
        assert row.max() >= digits.MIN_OPACITY
    assert digits._draw_scan(scan, 10.0, np.pi / 2)[0].shape == upright.shape[::-1]
    # The canvas holds all of a scan whose ink reaches its corners.
    assert digits._draw_scan(np.full((8, 8), 16.0), 10.0, np.pi / 4)[0].shape == pytest.approx((110, 110), abs=8)


def test_contrast_is_what_nine_tenths_of_the_background_have():
    black, white = [0, 0, 0], [255, 255, 255]
    pixels = np.uint8([black] * 95 + [white] * 5)[:, None]
    np.testing.assert_allclose(digits._contrast(np.array([black, white]), pixels), [0, 100], atol=0.1)
    pixels = np.uint8([black] * 85 + [white] * 15)[:, None]
    np.testing.assert_allclose(digits._contrast(np.array([black, white]), pixels), [0, 0], atol=0.1)


def test_numbers_below_one(tmp_path):
    with pytest.raises(PipelineError, match="digits: 0 test images asked for; expected 1 or more"):
        make_digits(tmp_path, 1, 0, val_images=1)
    with pytest.raises(PipelineError, match="digits: 0 val images asked for; expected 1 or more"):
        make_digits(tmp_path, 1, 1, val_images=0)


def test_the_frame_of_a_scan_is_turned_with_it():
    scan = np.zeros((8, 8))
    scan[0, 0] = scan[7, 7] = scan[0, 7] = scan[7, 0] = 16  # ink in all corners: the box is the scan's
    opacity, frame = digits._draw_scan(scan, 10.0, 0.0)
    height, width = opacity.shape
    # A quarter of the scan's side lies around it.
    np.testing.assert_allclose(frame[4], [width / 2, height / 2], atol=0.6)
    np.testing.assert_allclose(frame[:4] - frame[4], [[-60, -60], [60, -60], [60, 60], [-60, 60]], atol=1e-6)
    turned = digits._draw_scan(scan, 10.0, np.pi / 2)[1]
    radius = np.linalg.norm(turned[:4] - turned[4], axis=1)
    np.testing.assert_allclose(radius, 60 * np.sqrt(2))
    # A quarter turn brings each corner to the place of a neighbour.
    places = [int(np.linalg.norm(turned[:4] - turned[4] - corner, axis=1).argmin()) for corner in frame[:4] - frame[4]]
    assert sorted(places) == [0, 1, 2, 3]
    assert places[0] in (1, 3)


def test_keypoints_of_an_image_follow_the_ink():
    """The frame that is returned is the one that was drawn: a scan whose ink is a cross has the cross in the frame's centre."""
    scan = np.zeros((8, 8))
    scan[3:5, :] = scan[:, 3:5] = 16
    for angle in (-0.25, 0.0, 0.2):
        opacity, frame = digits._draw_scan(scan, 8.0, angle)
        rows, columns = np.nonzero(opacity >= digits.OWN_OPACITY)
        np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], frame[4], atol=0.5)
        # The ends of the vertical bar lie on the line from the middle of the upper edge to that of the lower one.
        upper, lower = frame[[0, 1]].mean(axis=0), frame[[2, 3]].mean(axis=0)
        top = np.array([columns[rows == rows.min()].mean() + 0.5, rows.min() + 0.5])
        along = (lower - upper) / np.linalg.norm(lower - upper)
        across = (top - frame[4]) - (top - frame[4]) @ along * along
        assert np.linalg.norm(across) < 8.0 + 2  # within the bar's width


def test_strokes_start_and_end_on_the_ink():
    scan = np.zeros((8, 8))
    scan[0:2, :] = scan[:, 6:8] = 16  # a seven of right angles
    opacity = digits._draw_scan(scan, 10.0, 0.0)[0]
    start, end = digits._stroke_ends(opacity, 0.0, 7)
    height, width = opacity.shape
    np.testing.assert_allclose(start, [0.5, 0.5], atol=6)
    assert end[1] == pytest.approx(height - 0.5, abs=8)
    assert end[0] > 0.6 * width


def test_masks_agree_with_boxes_and_classes():
    for image in make_images("train", 4, 0):
        assert set(np.unique(image.instance_mask)) == {*range(len(image.names) + 1), 255}
        for number, (box, name) in enumerate(zip(image.boxes.astype(int), image.names, strict=True), 1):
            rows, columns = np.nonzero(image.instance_mask == number)
            x1, y1, x2, y2 = box
            assert x1 <= columns.min() <= x1 + 2
            assert x2 - 3 <= columns.max() < x2
            assert y1 <= rows.min() <= y1 + 2
            assert y2 - 3 <= rows.max() < y2
            assert set(image.class_mask[rows, columns]) == {digits.CLASSES.index(name) + 1}
        assert ((image.class_mask == 255) == (image.instance_mask == 255)).all()
        inside = image.keypoints[..., 2] == 1
        assert ((image.keypoints[inside][:, :2] >= 0) & (image.keypoints[inside][:, :2] <= (320, 240))).all()
        assert not image.keypoints[~inside].any()


def test_images_of_up_to_so_many_digits():
    singles = list(make_images("train", 20, 0, most=1))
    assert [len(image.names) for image in singles] == [1] * 20
    assert Counter(name for image in singles for name in image.names) == dict.fromkeys(CLASSES, 2)
    assert {len(image.names) for image in make_images("train", 12, 0, most=3)} == {1, 2, 3}
