"""Label maps of records: values, void, subsets of classes, and what is wrong with a mask."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.label_names import LabelNames, chosen_labels
from pipeline.datasets.masks import write_mask
from pipeline.datasets.records import ImageRecord, MaskFile, Split
from pipeline.errors import ChangedFile, PipelineError
from pipeline.segmentation.label_maps import VOID, LabelMaps, label_names, usable

MASK = np.array([[0, 1, 1], [2, 3, VOID]], np.uint8)
NAMES = LabelNames(("background", "cat", "cow", "dog"))


@pytest.fixture
def record(tmp_path):
    """A record with the mask MASK."""
    write_mask(tmp_path / "SegmentationClass" / "a.png", MASK)
    return with_mask(tmp_path, "SegmentationClass/a.png")


def with_mask(root, name, width=3, height=2):
    digest = hashlib.sha256((root / name).read_bytes()).hexdigest()
    none = np.zeros(0, np.int64)
    return ImageRecord("a", "a.jpg", "", width, height, np.zeros((0, 4), np.float32), none, none.astype(bool),
                       class_mask=MaskFile(name, digest))


def test_values_are_labels(tmp_path, record):
    labels = LabelMaps(tmp_path, NAMES).read(record)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, MASK)


def test_grey_levels_are_values_too(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "b.png")
    assert np.array_equal(LabelMaps(tmp_path, NAMES).read(with_mask(tmp_path, "b.png")), MASK)


def test_other_classes_become_background(tmp_path, record):
    names = chosen_labels(NAMES.names, ("dog", "cat"))
    assert names.names == ("background", "dog", "cat")
    assert len(names) == 3
    assert LabelMaps(tmp_path, names).read(record).tolist() == [[0, 2, 2], [0, 1, VOID]]


def test_value_0_can_be_a_class(tmp_path, record):
    names = LabelNames(("sky", "road", "tree", "car"))
    assert not names.has_background
    assert NAMES.has_background
    assert np.array_equal(LabelMaps(tmp_path, names).read(record), MASK)
    chosen = chosen_labels(names.names, ("sky",))
    assert LabelMaps(tmp_path, chosen).read(record).tolist() == [[1, 0, 0], [0, 0, VOID]]


def test_unknown_values_are_named_with_their_pixels(tmp_path, record):
    counts = r"1 \(2 pixels\), 2 \(1 pixels\), 3 \(1 pixels\)"
    with pytest.raises(PipelineError, match=rf"a\.png: has the value {counts}; expected 0 to 0"):
        LabelMaps(tmp_path, LabelNames(("background",))).read(record)


def test_a_list_as_long_as_the_values_leaves_void_alone(tmp_path, record):
    names = LabelNames(tuple(map(str, range(255))))
    assert np.array_equal(LabelMaps(tmp_path, names).read(record), MASK)


def test_faults(tmp_path, record):
    maps = LabelMaps(tmp_path, NAMES)
    with pytest.raises(PipelineError, match="the mask is 3 x 2, its image 4 x 2"):
        maps.read(with_mask(tmp_path, "SegmentationClass/a.png", width=4))
    with pytest.raises(PipelineError, match="image 'b' has no class mask"):
        maps.read(ImageRecord("b", "b.jpg", "", 3, 2, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool)))
    write_mask(tmp_path / "SegmentationClass" / "a.png", MASK[::-1])
    with pytest.raises(ChangedFile, match=r"a\.png: changed since it was indexed"):
        maps.read(record)
    (tmp_path / "SegmentationClass" / "a.png").unlink()
    with pytest.raises(PipelineError, match=r"a\.png"):
        maps.read(record)


class TestSplits:
    def test_labels_without_a_list_are_background_and_classes(self, record):
        split = Split("train", ("cat", "dog"), (record,))
        assert label_names(split) == LabelNames(("background", "cat", "dog"))

    def test_labels_of_the_index_come_first_and_survive_json(self, record):
        labels = chosen_labels(NAMES.names, ("dog",))
        split = Split("train", ("dog",), (record,), labels=labels)
        assert label_names(Split.from_json(split.to_json())) == labels == label_names(split.select([0]))
        assert "labels" not in Split("train", ("dog",), (record,)).to_json()

    def test_usable_images_have_a_mask(self, record, make_record):
        assert usable(Split("train", (), (make_record("x"), record, make_record("y")))) == [1]
