"""Splits that are read for their class masks: lists, names of values, folders without boxes, and what is wrong with masks."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.label_names import LabelNames
from pipeline.datasets.mask_labels import parse_names
from pipeline.datasets.masks import VOID, write_mask
from pipeline.datasets.reading import MaskRules
from pipeline.errors import DatasetError, PipelineError
from pipeline.segmentation.label_maps import LabelMaps, label_names, usable
from tests.pipeline.datasets.layouts import HEIGHT, WIDTH, Item, Voc, counts_of, encoded, pixels_of

FOR_MASKS = MaskRules()
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[3:13, 2:12], MASK[:2] = 1, VOID


class Folder:
    """A folder with three images `1`, `2`, `3`, boxes of cat and dog, masks of 1 and 2; `3` is in no list of masks."""

    def __init__(self, root):
        self.root = root
        objects = [("cat", 2, 3, 12, 13)], [("dog", 2, 3, 12, 13), ("cat", 20, 3, 30, 13)], [("dog", 1, 1, 9, 9)]
        Voc(root, *(Item(id, encoded(pixels_of(id)), tuple(of_image)) for id, of_image in enumerate(objects, 1)))
        self.mask(1, MASK)
        self.mask(2, np.where(MASK == 1, 2, MASK))
        self.list("1", "2")

    def mask(self, id, mask):
        write_mask(self.root / f"SegmentationClass/{id}.png", mask)

    def list(self, *ids, split="train"):
        path = self.root / f"ImageSets/Segmentation/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{id}\n" for id in ids))

    def classes(self, *names):
        (self.root / "classes.txt").write_text("\n".join(names) + "\n")

    def without_boxes(self):
        for file in (*self.root.glob("Annotations/*"), *self.root.glob("ImageSets/Main/*")):
            file.unlink()
        (self.root / "Annotations").rmdir()
        (self.root / "ImageSets/Main").rmdir()

    def read(self, classes=None, split="train", masks=FOR_MASKS, **rules):
        files = split_files(self.root, split, masks=bool(masks))
        digests = {name: hashlib.sha256((self.root / name).read_bytes()).hexdigest()
                   for name in files if (self.root / name).is_file()}
        return read_split(self.root, split, classes, digests, masks=masks, **rules)

    def problems(self, *args, **kwargs):
        with pytest.raises(DatasetError) as caught:
            self.read(*args, **kwargs)
        return caught.value.problems


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


class TestLists:
    def test_masks_take_their_own_list_and_boxes_take_theirs(self, folder):
        assert [image.id for image in folder.read().images] == ["1", "2"]
        of_boxes = folder.read(masks=None)
        assert [image.id for image in of_boxes.images] == ["1", "2", "3"]
        assert of_boxes.labels is None

    def test_a_split_that_only_boxes_have(self, folder):
        folder.list("2", split="val")
        (folder.root / "ImageSets/Segmentation/train.txt").unlink()
        split = folder.read()
        assert [image.id for image in split.images] == ["1", "2", "3"]
        assert usable(split) == [0, 1]
        assert counts_of(split.notes) == [("class masks that are missing", 1)]
        assert [image.id for image in folder.read(split="val", classes=split.classes).images] == ["2"]

    def test_no_list_of_masks_at_all(self, folder):
        (folder.root / "ImageSets/Segmentation/train.txt").unlink()
        (folder.root / "ImageSets/Segmentation").rmdir()
        assert usable(folder.read()) == [0, 1]

    def test_boxes_read_the_same_files_whatever_the_masks_have(self, folder):
        before = split_files(folder.root, "train")
        folder.classes("background", "cat", "dog")
        assert split_files(folder.root, "train") == before
        assert "classes.txt" in split_files(folder.root, "train", masks=True)

    def test_unknown_split(self, folder):
        (problem,) = folder.problems(split="test")
        assert "has no split 'test'" in problem


class TestNames:
    def test_without_a_list_values_are_the_classes(self, folder):
        split = folder.read()
        assert label_names(split) == LabelNames(("background", "cat", "dog"))
        labels = LabelMaps(folder.root, label_names(split)).read(split.images[1])
        assert set(np.unique(labels)) == {0, 2, VOID}

    def test_a_list_names_values_and_orders_the_classes(self, folder):
        folder.classes("_background_", "cat", "horse", "dog")
        folder.mask(2, np.where(MASK == 1, 3, MASK))
        split = folder.read()
        assert label_names(split).names == ("background", "cat", "horse", "dog")
        assert split.classes == ("cat", "horse", "dog")
        assert split.images[1].labels.tolist() == [2, 0]

    def test_names_that_the_caller_knows(self, folder):
        names = ("background", "dog", "cat")
        assert label_names(folder.read(masks=MaskRules(names))).names == names

    def test_wrong_order_without_a_list_is_seen_in_the_objects(self, folder):
        folder.mask(1, np.where(MASK == 1, 2, MASK))
        (problem,) = folder.problems()
        assert "1.png: value 2 (100 pixels) would be 'dog', and no object of the image is of this class" in problem
        assert "name the values of the masks in classes.txt" in problem
        folder.classes("background", "dog", "cat")
        folder.read()

    def test_subset_of_the_classes(self, folder):
        folder.classes("background", "cat", "dog")
        split = folder.read(("dog",), only_classes=True, every_class=True)
        assert label_names(split).names == ("background", "dog")
        maps = LabelMaps(folder.root, label_names(split))
        assert [set(np.unique(maps.read(image))) for image in split.images] == [{0, VOID}, {0, 1, VOID}]
        (note,) = split.notes
        assert (note.kind, note.count, note.examples) == ("masks with other classes", 1, ("100 pixels of class 'cat'",))
        assert "become background, since --classes names only dog" in str(note)

    def test_a_subset_needs_names(self, folder):
        (problem,) = folder.problems(("dog",), only_classes=True)
        assert "classes.txt: no such file, and --classes needs the names of the masks' values" in problem

    def test_a_misspelt_class(self, folder):
        folder.classes("background", "cat", "dog")
        (problem,) = folder.problems(("dig",), only_classes=True)
        assert "the masks have no class 'dig' (did you mean 'dog'?); change --classes" in problem

    @pytest.mark.parametrize(("content", "fault"), [
        (b"", "names no class"), (b"a\n\nb\n", "line 2 is empty; write the name of the value 1"),
        (b"a\nb\na\n", "line 3 is 'a', as line 1"), (b"cat\nbackground\n", "line 2 is 'background'"),
        (b"\xff\xfe", "not UTF-8 text"),
        ("".join(f"{n}\n" for n in range(256)).encode(), "names 256 values; expected at most 255"),
    ])
    def test_faults_of_the_list(self, tmp_path, content, fault):
        with pytest.raises(PipelineError, match=f"classes.txt: {fault}"):
            parse_names(tmp_path / "classes.txt", content)

    def test_list_as_programs_write_it(self, tmp_path):
        content = "\ufeff__background__\r\n traffic light \r\n\r\n".encode()
        assert parse_names(tmp_path, content) == ("background", "traffic light")


class TestWithoutBoxes:
    def test_value_0_is_a_class_where_the_list_says_so(self, folder):
        folder.without_boxes()
        folder.classes("sky", "road", "car")
        split = folder.read()
        assert split.classes == label_names(split).names == ("sky", "road", "car")
        assert not label_names(split).has_background
        assert [len(image.boxes) for image in split.images] == [0, 0]
        assert folder.read(split.classes).classes == split.classes

    def test_names_are_needed(self, folder):
        folder.without_boxes()
        (problem,) = folder.problems()
        assert "classes.txt: no such file, and there are no objects whose classes would name the masks' values" in problem

    def test_is_refused_for_boxes(self, folder):
        folder.without_boxes()
        folder.classes("sky", "road", "car")
        (problem,) = folder.problems(masks=None)
        assert "it has class masks and no boxes: use it with the chains of segmentation" in problem

    def test_without_a_list_it_says_where_to_put_one(self, folder):
        folder.without_boxes()
        folder.classes("sky", "road", "car")
        (folder.root / "ImageSets/Segmentation/train.txt").unlink()
        (problem,) = folder.problems()
        assert "no list of its images: write ids into ImageSets/Segmentation/train.txt" in problem

    def test_one_image_without_an_annotation(self, folder):
        (folder.root / "Annotations/2.xml").unlink()
        folder.classes("background", "cat", "dog")
        assert [len(image.boxes) for image in folder.read().images] == [1, 0]


class TestFaults:
    def test_each_kind_once_with_files_values_and_pixels(self, folder):
        folder.list("1", "2", "3")
        folder.classes("background", "cat", "dog")
        wrong = MASK.copy()
        wrong[5, 5:8], wrong[6, 5] = 3, 200
        folder.mask(1, wrong)
        folder.mask(2, MASK[1:])
        masks = folder.root / "SegmentationClass"
        assert folder.problems() == [
            f"{masks}/2.png: the mask is 40 x 29, its image 40 x 30; replace it or take it out of the folder",
            f"{masks}/3.png: no such file; add it or take its image out of the list",
            "2 masks with values of no class; expected 0 to 2, or 255 for void; correct the mask, or name the values of the "
            "masks in classes.txt, one a line from value 0 on; "
            f"all: {masks}/1.png: value 3 (3 pixels); {masks}/1.png: value 200 (1 pixels)",
        ]

    def test_colours_in_place_of_values(self, folder):
        colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        colours[:4] = 128, 0, 0
        Image.fromarray(colours).save(folder.root / "SegmentationClass/1.png")
        (problem,) = folder.problems()
        assert "1.png: a PNG of pixel mode RGB, whose colour (128, 0, 0) has 160 pixels; expected a PNG with a palette" in problem

    def test_no_mask_at_all(self, folder):
        (folder.root / "ImageSets/Segmentation/train.txt").unlink()
        for file in folder.root.glob("SegmentationClass/*"):
            file.unlink()
        (problem,) = folder.problems()
        assert "none of its 3 image(s) has a class mask; put palette PNGs into" in problem

    def test_a_mask_of_void_alone_is_a_mask(self, folder):
        folder.mask(1, np.full_like(MASK, VOID))
        assert usable(folder.read()) == [0, 1]
