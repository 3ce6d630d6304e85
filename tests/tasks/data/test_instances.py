"""Masks of single objects: the files of a data set, or drawn from the outlines of COCO's layout."""

import luigi
import numpy as np
import pytest

from pipeline.conversion.convert import convert
from pipeline.datasets.instances import masked_images, object_masks
from pipeline.datasets.masks import write_mask
from tasks.data.index import IndexDataset
from tasks.data.index_masks import IndexMasks
from tasks.data.instances import DRAWN, drawn_indexes, masks_from
from tasks.data.splits import load_split
from tasks.evaluation.evaluate import Evaluate
from tasks.evaluation.summary import Summarise
from tasks.later_detectors.training import TrainDetector
from tests.pipeline.datasets.layouts import HEIGHT, WIDTH, Item, Voc, encoded, pixels_of

OBJECTS = ("cat", 2, 3, 12, 13), ("dog", 20, 5, 30, 25)
MASK_RCNN = "mask-rcnn"


@pytest.fixture
def folders(tmp_path):
    """One data set in VOC's and in COCO's layout."""
    root = Voc(tmp_path / "voc", Item(1, encoded(pixels_of(), "JPEG"), OBJECTS)).root
    (root / "ImageSets/Main/test.txt").write_text("1\n")
    for folder, values in ("SegmentationClass", (1, 2)), ("SegmentationObject", (1, 2)):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[3:13, 2:11], mask[5:24, 20:30] = values
        write_mask(root / f"{folder}/1.png", mask)
    convert(root, tmp_path / "coco", "coco")
    return {"voc": root, "coco": tmp_path / "coco"}


@pytest.fixture
def make(tmp_path, folders):
    """make(stage, layout, ...) -> a task on the data set in this layout."""

    def make(stage, layout, **settings):
        luigi.task_register.Register.clear_instance_cache()
        return stage(cache_dir=str(tmp_path / "cache"), data_dir=str(tmp_path), dataset=str(folders[layout]), **settings)

    yield make
    luigi.task_register.Register.clear_instance_cache()


def test_both_layouts_give_the_same_masks(make):
    masks = []
    for layout in "voc", "coco":
        task = make(TrainDetector, layout, architecture=MASK_RCNN)
        required = task.requires()
        assert (DRAWN in required) is (layout == "coco")
        for name in {"train", DRAWN} & required.keys():
            required[name].make_artefact()
        images, read = masks_from(task, "train", load_split(required["train"].artefact))
        assert masked_images(images, read) == [0]
        (image,) = images
        masks.append(object_masks(read(image), image.boxes))
    np.testing.assert_array_equal(*masks)
    assert masks[0].sum(axis=(1, 2)).tolist() == [90, 190]


def test_who_draws_masks(make):
    """Chains with masks alone; and all indexes come before anything else."""
    for chain, layout, splits in (MASK_RCNN, "coco", ["train", "test"]), (MASK_RCNN, "voc", []), ("ssd", "coco", []):
        run, evaluation = make(Summarise, layout, chains=("fast-rcnn", chain)), make(Evaluate, layout, chain=chain)
        assert [index.split for index in drawn_indexes(run, run.chains)] == splits
        for task in run, evaluation:
            assert [index.split for index in task.deps() if isinstance(index, IndexMasks)] == splits
            assert {index.split for index in task.deps() if type(index) is IndexDataset} == {"train", "test"}
        assert (DRAWN in evaluation.requires()) is bool(splits)
