"""Records: what JSON and the table keep of them, and the memory that they take."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.faults import Remark
from pipeline.datasets.records import ImageRecord, ImageTable, Split

FIELDS = tuple(ImageRecord.__dataclass_fields__)
DROPPED = Remark("boxes too far", "mend them", 2, ("a: 1", "a: 2"))
NOTED = Remark("turned images", "save them upright", 1, ("ä",))


def make_split():
    """Two images: one with float32 coordinates of every kind, one without objects."""
    boxes = np.float32([[0, 0, 10.1, 1 / 3], [1e-7, 2.5, 16777215, 1e9]])
    full = ImageRecord("a/b", "images/ä.jpg", "12ab", 640, 480, boxes, np.array([1, 0]), np.array([False, True]))
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    return Split("train", ("cat", "dog"), (full, ImageRecord("c", "c.png", "", 1, 2, *nothing)), (DROPPED,), (NOTED,))


def assert_same(record: ImageRecord, expected: ImageRecord) -> None:
    for name in FIELDS:
        value, wanted = getattr(record, name), getattr(expected, name)
        assert type(value) is type(wanted)
        if isinstance(value, np.ndarray):
            assert (value.dtype, value.shape, value.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())
        else:
            assert value == wanted


def test_json_keeps_every_bit_and_type():
    split = make_split()
    restored = Split.from_json(json.loads(json.dumps(split.to_json())))
    assert (restored.name, restored.classes) == (split.name, split.classes)
    assert (restored.dropped, restored.notes) == ((DROPPED,), (NOTED,))
    for image, expected in zip(restored.images, split.images, strict=True):
        assert_same(image, expected)


def test_equal_splits_give_equal_json():
    assert json.dumps(make_split().to_json()) == json.dumps(Split.from_json(make_split().to_json()).to_json())


def test_regions_to_ignore_are_in_json_where_there_are_some_alone():
    """Without one, indices and keys of shards keep their bytes."""
    plain = make_split().images[0]
    assert list(plain.to_json()) == ["id", "path", "digest", "width", "height", "boxes", "labels", "difficult"]
    record = replace(plain, ignored=np.array([True, False]))
    data = json.loads(json.dumps(record.to_json()))
    assert data.pop("ignored") == [True, False]
    assert data == plain.to_json()
    assert_same(ImageRecord.from_json(record.to_json()), record)
    assert_same(ImageTable([plain, record, plain])[1], record)


def test_what_counts_and_what_is_ignored():
    record = replace(make_split().images[0], ignored=np.array([True, False]))
    assert record.counted.tolist() == [False, False]  # the second is difficult
    assert_same(record.without_ignored(), record.select(np.array([1])))
    np.testing.assert_array_equal(record.ignored_boxes, record.boxes[:1])
    assert make_split().images[0].counted.tolist() == [True, False]


def test_a_part_of_a_split():
    split = make_split()
    part = split.select([1, 0])
    assert [image.id for image in part.images] == ["c", "a/b"]
    assert (part.name, part.classes, part.dropped, part.notes) == ("train", ("cat", "dog"), (), ())
    assert split.select(range(0)).images == ()


class TestTable:
    def test_is_a_sequence_of_the_records(self):
        records = [*make_split().images, *make_split().images[::-1]]
        table = ImageTable(records)
        assert len(table) == 4
        for images, expected in [
            (list(table), records), (table[:], records), (table[1:3], records[1:3]), (table[::-2], records[::-2]),
            ([table[np.int64(2)], table[-1], table[-4]], [records[2], records[3], records[0]]), (table[9:], []),
            (reversed(table), records[::-1]),
        ]:
            for image, record in zip(images, expected, strict=True):
                assert_same(image, record)
        for number in (4, -5):
            with pytest.raises(IndexError):
                table[number]

    def test_without_an_image(self):
        assert (len(ImageTable()), list(ImageTable()), ImageTable()[:], list(ImageTable().shapes())) == (0, [], (), [])

    def test_shapes_are_those_of_the_records(self):
        records = make_split().images
        assert list(ImageTable(records).shapes()) == [(record.width, record.height, len(record.boxes)) for record in records]

    def test_records_are_their_own(self):
        table = ImageTable(make_split().images)
        changed = table[0]
        changed.boxes[:], changed.labels[:], changed.difficult[:], changed.ignored[:] = 7, 7, True, True
        assert_same(table[0], make_split().images[0])
        table.add(changed)  # a record that was handed out keeps no column from growing
        assert_same(table[2], changed)

    def test_takes_images_out_of_json_and_leaves_the_rest(self):
        split, table = make_split(), ImageTable()
        data = json.loads(json.dumps(split.to_json()), object_hook=table.take)
        assert data["images"] == [None, None]
        assert Split.from_json(data, table).to_json() == split.to_json()

    def test_boxes_without_labels_are_refused(self):
        record = ImageRecord("a", "a.png", "", 9, 9, np.zeros((2, 4), np.float32), np.zeros(1, np.int64), np.zeros(2, bool))
        with pytest.raises(ValueError, match="image a has 2 boxes, 1 labels and 2 marks"):
            ImageTable([record])

    def test_an_image_with_three_objects_takes_400_bytes(self):
        text = json.dumps({"images": [
            {"id": f"2008_{n:08}", "path": f"JPEGImages/2008_{n:08}.jpg", "digest": f"{n:064}", "width": 500, "height": 375,
             "boxes": [[0.5, 1.5, 20.5, 30.5]] * 3, "labels": [1, 2, 3], "difficult": [False] * 3} for n in range(2000)
        ]})
        tracemalloc.start()
        try:
            table = ImageTable()
            json.loads(text, object_hook=table.take)
            used, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(table) == 2000
        assert used / 2000 < 450
        assert peak / 2000 < 600
