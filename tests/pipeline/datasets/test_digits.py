import hashlib
from importlib.resources import files

import numpy as np
import pytest
from skimage.color import rgb2lab

from pipeline import boxes as box_algebra
from pipeline.datasets import digits
from pipeline.datasets.digits import CLASSES, PHOTOGRAPHS, make_digits, make_images, scan_indices
from pipeline.datasets.voc import read_split, split_files
from pipeline.errors import PipelineError
from pipeline.images.reading import read_image

COUNTS = {"train": 8, "test": 4}


def file_digests(root):
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    make_digits(root, COUNTS["train"], COUNTS["test"])
    return root


@pytest.fixture(scope="module", params=["train", "test"])
def split(root, request):
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in split_files(root, request.param)}
    return read_split(root, request.param, CLASSES, digests)


def test_same_bytes_twice_and_others_with_another_seed(root, tmp_path):
    digits._load_photograph.cache_clear()
    make_digits(tmp_path / "same", 8, 4)
    assert file_digests(tmp_path / "same") == file_digests(root)
    make_digits(tmp_path / "other", 1, 1, seed=1)
    other = file_digests(tmp_path / "other")
    assert len(other) == 6
    assert not other.items() & file_digests(root).items()


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
    """A function that makes each call of a private function of the generator noted: its arguments and its result."""

    def record(name):
        calls, function = [], getattr(digits, name)
        monkeypatch.setattr(digits, name, lambda *args: calls.append((args, function(*args))) or calls[-1][1])
        return calls

    return record


@pytest.mark.parametrize("split", ["train", "test"])
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
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])
    scans, labels = digits._load_scans()
    pools = {split: [scan_indices(split, label) for label in range(10)] for split in ("train", "test")}
    train, test = np.concatenate(pools["train"]), np.concatenate(pools["test"])
    assert sorted([*train, *test]) == list(range(len(scans)))
    assert all((labels[pool] == label).all() for split in pools for label, pool in enumerate(pools[split]))
    assert not {scan.tobytes() for scan in scans[train]} & {scan.tobytes() for scan in scans[test]}


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_a_split_is_made_of_its_own_photographs_and_scans(split, other, recorded):
    photographs, drawn = recorded("_load_photograph"), recorded("_draw_scan")
    list(make_images(split, 8, 0))
    scans = digits._load_scans()[0]
    foreign = {scans[index].tobytes() for label in range(10) for index in scan_indices(other, label)}
    assert not {args[0].tobytes() for args, _ in drawn} & foreign
    assert {args for args, _ in photographs} == set(PHOTOGRAPHS[split])


def test_photographs_are_shipped_in_the_packages():
    for package, name in PHOTOGRAPHS["train"] + PHOTOGRAPHS["test"]:
        height, width = read_image(files(package) / name).shape[:2]
        assert min(height, width) >= 300


def test_a_scan_is_cropped_to_its_ink_and_turned():
    scan = np.zeros((8, 8))
    scan[1:7, 3:5] = 16
    upright = digits._draw_scan(scan, 10.0, 0.0)
    assert upright.shape == pytest.approx((60, 20), abs=3)
    assert upright.max() == 1
    assert upright.mean() > 0.9
    for row in (upright[0], upright[-1], upright[:, 0], upright[:, -1]):
        assert row.max() >= digits.MIN_OPACITY
    assert digits._draw_scan(scan, 10.0, np.pi / 2).shape == upright.shape[::-1]
    # The canvas holds all of a scan whose ink reaches its corners.
    assert digits._draw_scan(np.full((8, 8), 16.0), 10.0, np.pi / 4).shape == pytest.approx((110, 110), abs=8)


def test_contrast_is_what_nine_tenths_of_the_background_have():
    black, white = [0, 0, 0], [255, 255, 255]
    pixels = np.uint8([black] * 95 + [white] * 5)[:, None]
    np.testing.assert_allclose(digits._contrast(np.array([black, white]), pixels), [0, 100], atol=0.1)
    pixels = np.uint8([black] * 85 + [white] * 15)[:, None]
    np.testing.assert_allclose(digits._contrast(np.array([black, white]), pixels), [0, 0], atol=0.1)


def test_numbers_below_one(tmp_path):
    with pytest.raises(PipelineError, match="digits: 0 test images asked for; expected 1 or more"):
        make_digits(tmp_path, 1, 0)
