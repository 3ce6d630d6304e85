"""Keypoints and masks: what VOC's and COCO's readers make of them, and what they refuse by name."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.keypoints import Skeleton, inside, pairs_by_name, parse_keypoints
from pipeline.datasets.masks import VOID, decode_mask, palette, write_mask
from pipeline.datasets.records import ImageRecord, ImageTable, MaskFile, Split
from pipeline.datasets.voc_writing import AnnotatedImage, write_split
from pipeline.errors import DatasetError, PipelineError

POINTS = [[1, 2, 1], [0, 0, 0], [30.5, 20, 1]]
DOCUMENT = {
    "names": ["left_eye", "right_eye", "tail"], "skeleton": [[0, 1], [1, 2]], "flip_pairs": [[0, 1]],
    "objects": [
        {"image": "a", "object": 1, "keypoints": POINTS}, {"image": "of another split", "object": 7, "keypoints": POINTS},
    ],
}


def read(root):
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in split_files(root, "train")}
    return read_split(root, "train", None, digests)


@pytest.fixture
def voc(tmp_path):
    """A folder of one image with two objects; a function that adds keypoints, or a mask, and reads it."""
    boxes = np.array([[2, 3, 12, 13], [20, 10, 35, 25]])
    image = AnnotatedImage("a", np.full((30, 40, 3), 90, np.uint8), boxes, ["cat", "dog"], [False, False])
    write_split(tmp_path, "train", [image])

    def make(document=None, class_mask=None):
        if document is not None:
            (tmp_path / "keypoints.json").write_text(document if isinstance(document, str) else json.dumps(document))
        if class_mask is not None:
            write_mask(tmp_path / "SegmentationClass/a.png", class_mask)
        return read(tmp_path)

    make.root = tmp_path
    return make


def test_keypoints_belong_to_the_object_of_their_place(voc):
    split = voc(DOCUMENT)
    assert split.skeleton == Skeleton(("left_eye", "right_eye", "tail"), ((0, 1), (1, 2)), ((0, 1),))
    np.testing.assert_array_equal(split.images[0].keypoints, np.array([np.zeros((3, 3)), POINTS], np.float32))


def test_a_folder_without_keypoints_and_masks_keeps_its_files_and_bytes(voc):
    split = voc()
    assert split_files(voc.root, "train") == ["ImageSets/Main/train.txt", "Annotations/a.xml", "JPEGImages/a.jpg"]
    assert split.skeleton is None
    assert split.images[0].keypoints is None
    assert split.images[0].class_mask is None
    assert not {"skeleton", "keypoints", "class_mask"} & {*split.to_json(), *split.images[0].to_json()}


def test_records_with_keypoints_and_masks_survive_json_and_the_table(voc):
    mask = np.zeros((30, 40), np.uint8)
    mask[3:13, 2:12] = 1
    split = voc(DOCUMENT, mask)
    images = ImageTable()
    data = json.loads(json.dumps(split.to_json()), object_hook=images.take)
    again = Split.from_json(data, images)
    assert again.skeleton == split.skeleton
    assert again.images[0].class_mask == split.images[0].class_mask == MaskFile(
        "SegmentationClass/a.png", hashlib.sha256((voc.root / "SegmentationClass/a.png").read_bytes()).hexdigest())
    np.testing.assert_array_equal(again.images[0].keypoints, split.images[0].keypoints)
    np.testing.assert_array_equal(again.images[0].select([1]).keypoints, [np.array(POINTS, np.float32)])
    assert again.to_json() == split.to_json()


def test_an_image_without_an_object_survives_json_beside_those_with_keypoints(voc):
    split = voc(DOCUMENT)
    (record,) = split.images
    images = ImageTable()
    data = replace(split, images=(record.select([]), record)).to_json()
    again = Split.from_json(json.loads(json.dumps(data), object_hook=images.take), images)
    assert [image.keypoints.shape for image in again.images] == [(0, 3, 3), (2, 3, 3)]
    assert again.to_json() == data


@pytest.mark.parametrize(("change", "message"), [
    ({"names": ["a", "a", "b"]}, "names a keypoint twice"),
    ({"names": []}, r"has the names \[\]; expected a list of words"),
    ({"skeleton": [[0, 3]]}, r"skeleton has \[0, 3\]; expected pairs of numbers from 0 to 2"),
    ({"flip_pairs": [[0, 1], [1, 2]]}, "flip_pairs name a keypoint twice"),
    ({"objects": {}}, "has no list of objects"),
    ({"objects": [{"image": "a", "object": 2, "keypoints": POINTS}]}, r"image a has 2 object\(s\), and no object 2"),
    ({"objects": [{"image": "a", "object": 0, "keypoints": POINTS[:2]}]}, "expected 3 of x, y, labelled"),
    ({"objects": [{"image": "a", "object": 0, "keypoints": [[1, 2, 1], [3, 4, 1], [5, "x", 1]]}]}, "expected 3 of x, y, label"),
    ({"objects": [{"image": "a", "keypoints": POINTS}]}, "has the image 'a' and the object None"),
    ({"objects": 2 * DOCUMENT["objects"][:1]}, "image a, object 1 came before"),
])
def test_files_of_keypoints_that_cannot_be_right_are_errors(voc, change, message):
    with pytest.raises(DatasetError, match=message):
        voc({**DOCUMENT, **change})


def test_a_file_that_is_no_json(voc):
    with pytest.raises(DatasetError, match=r"keypoints\.json: not readable as JSON"):
        voc("{")


def test_keypoints_outside_the_image_lose_their_label_and_are_counted(voc):
    points = [[1, 2, 1], [41.5, 3, 1], [40.9, 30.9, 1]]
    split = voc({**DOCUMENT, "objects": [{"image": "a", "object": 0, "keypoints": points}]})
    assert split.images[0].keypoints[0, :, 2].tolist() == [1, 0, 1]
    assert [note.count for note in split.notes] == [1]
    assert "1 keypoint(s) outside the image of 40 x 30" in str(split.notes[0])


def test_masks_of_another_size_or_kind_are_errors(voc):
    with pytest.raises(DatasetError, match="the mask is 39 x 30, its image 40 x 30"):
        voc(class_mask=np.zeros((30, 39), np.uint8))
    Image.new("RGB", (40, 30)).save(voc.root / "SegmentationClass/a.png")
    with pytest.raises(DatasetError, match="a PNG of pixel mode RGB; expected a PNG with a palette"):
        read(voc.root)


def test_masks_are_palette_images_of_vocs_colours(tmp_path):
    mask = np.array([[0, 1, 2], [15, 20, VOID]], np.uint8)
    path = tmp_path / "SegmentationClass" / "a.png"
    write_mask(path, mask)
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(decode_mask(path, path.read_bytes(), (2, 3)), mask)
    # As in the development kit: background, aeroplane, bicycle, person, tv monitor, void.
    assert palette()[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]]


def test_mirroring_exchanges_pairs():
    skeleton = Skeleton(("a", "b", "c", "d"), flip_pairs=((0, 2), (3, 1)))
    assert skeleton.mirrored.tolist() == [2, 3, 0, 1]
    assert Skeleton.from_json(skeleton.to_json()) == skeleton
    assert pairs_by_name(["nose", "left_eye", "right_eye", "left_paw"]) == ((1, 2),)


def test_numbers_that_are_no_keypoints():
    for values in (None, 3, [], [[1, 2, 1]], [[1, 2], [3, 4]], [[1, 2, 1], [np.inf, 0, 1]], [["a", 2, 1], [1, 2, 1]]):
        assert parse_keypoints(values, 2) is None
    assert parse_keypoints([[5, 6, 0], [1, 2, 2]], 2).tolist() == [[0, 0, 0], [1, 2, 2]]
    assert inside(np.array([[-1, 0, 1], [-1.1, 0, 1], [-9, 0, 0]]), 10, 10).tolist() == [True, False, True]


def test_a_record_without_keypoints_has_none(make_record):
    record = make_record("a", [[0, 0, 5, 5]], [0])
    assert ImageRecord.from_json(record.to_json()).keypoints is None


@pytest.fixture
def coco(tmp_path):
    """A function that writes COCO's file of one image with keypoints and reads it."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "train/a.png")

    def make(points, **category):
        document = {
            "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
            "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"],
                            "skeleton": [[1, 2], [1, 3]], **category}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 1, 9, 9]},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 20], "keypoints": points, "num_keypoints": 2},
            ],
        }
        (tmp_path / "annotations/instances_train.json").write_text(json.dumps(document))
        return read(tmp_path)

    return make


def test_cocos_keypoints(coco):
    split = coco([5, 6, 2, 0, 0, 0, 9, 9, 1])
    assert split.skeleton == Skeleton(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2)), ((1, 2),))
    assert split.images[0].keypoints.tolist() == [[[0, 0, 0]] * 3, [[5, 6, 2], [0, 0, 0], [9, 9, 1]]]


@pytest.mark.parametrize(("points", "category", "message"), [
    ([5, 6, 2], {}, "annotation 2 .* expected 3 of x, y, v"),
    ([5, 6, "2", 0, 0, 0, 9, 9, None], {}, "expected 3 of x, y, v"),
    ("none", {}, "expected 3 of x, y, v"),
    ([5, 6, 2, 0, 0, 0, 9, 9, 1], {"skeleton": [[0, 1]]}, "skeleton has .* expected pairs of numbers from 1 to 3"),
    ([5, 6, 2, 0, 0, 0, 9, 9, 1], {"keypoints": ["nose", "nose"]}, "expected a list of different words"),
])
def test_cocos_keypoints_that_cannot_be_right(coco, points, category, message):
    with pytest.raises((DatasetError, PipelineError), match=message):
        coco(points, **category)
