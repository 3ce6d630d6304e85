"""The settings of IndexDataset that say how files are read, what it tells, and that all splits are indexed first."""

import logging

import luigi
import pytest

import tasks
from pipeline.errors import PipelineError
from tasks.engine.task import all_stages
from tests.pipeline.datasets.layouts import Item, Voc, encoded, pixels_of

ALL_OF_BOTH_SPLITS = (tasks.FullPipeline, tasks.Summarise, tasks.Evaluate, tasks.TimeDetection, tasks.DetectRCNN,
                      tasks.DetectFastRCNN, tasks.DetectFasterRCNN, tasks.DetectRFCN, tasks.DetectSlidingWindow,
                      tasks.DetectWithNetwork, tasks.WindowCosts, tasks.EvaluateLocalisation, tasks.EvaluatePose)


def items(*numbers, orientation=None, objects=(("cat", 2, 3, 12, 13),)):
    return [Item(number, encoded(pixels_of(number), orientation=orientation), objects) for number in numbers]


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def make(tmp_path):
    """make(stage, ...) -> a task on the data set in `tmp_path`/data."""

    def make(stage, **settings):
        luigi.task_register.Register.clear_instance_cache()
        return stage(dataset=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"), **settings)

    yield make
    luigi.task_register.Register.clear_instance_cache()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


class TestTelling:
    def test_images_of_both_splits(self, make, root, caplog):
        Voc(root, *items(1, 2, 3))
        Voc(root, *items(2, 3, 4, 5), split="test")
        make(tasks.IndexDataset).make_artefact()
        index = make(tasks.IndexDataset, split="test")
        with caplog.at_level(logging.WARNING, "stages"):
            index.make_artefact()
        text = "2 images of split 'test' that are also in split 'train'; results on them are better than on new images"
        assert [text in warning for warning in warnings_in(caplog)] == [True]
        figures = index.artefact.manifest["figures"]
        assert (figures["noted"], len(figures["noted_kinds"])) == (2, 1)
        assert text in figures["noted_kinds"][0]
        assert index.artefact.json("index.json")["notes"][0]["count"] == 2

    def test_classes_that_are_chosen(self, make, root, caplog):
        Voc(root, *items(1, objects=[("cat", 2, 3, 12, 13), *[("dog", 2, 3, 99, 13)] * 500]), *items(2, objects=()))
        with caplog.at_level(logging.WARNING, "stages"):
            index = make(tasks.IndexDataset, classes="cat")
            index.make_artefact()
        figures = index.artefact.manifest["figures"]
        assert (figures["objects"], figures["dropped"], figures["noted"]) == (1, 500, 1)
        assert len(figures["dropped_kinds"]) == len(figures["noted_kinds"]) == 1
        assert len(warnings_in(caplog)) == 2
        with pytest.raises(PipelineError, match=r"no object is of class 'dgo' \(did you mean 'dog'\?\)"):
            make(tasks.IndexDataset, classes="cat,dgo").make_artefact()

    def test_names_that_no_stage_can_use_are_one_line(self, make, root):
        names = [f"{number:03}{'x' * 300}" for number in range(100)]
        Voc(root, *items(1, objects=[(name, 2, 3, 12, 13) for name in names]))
        with pytest.raises(PipelineError, match=r"is too long.*; and 90 more like these; change --classes or the") as error:
            make(tasks.IndexDataset).make_artefact()
        assert len(str(error.value)) < 3000

    def test_a_slash_in_a_name_is_none_of_them(self, make, root):
        Voc(root, *items(1, objects=[("Cabinet/shelf", 2, 3, 12, 13)]))
        index = make(tasks.IndexDataset)
        index.make_artefact()
        assert index.artefact.json("index.json")["classes"] == ["Cabinet/shelf"]


class TestMarks:
    def test_a_mark_is_in_the_keys_of_its_image_alone(self, make, root):
        """Whatever reads pixels makes the turned image again, and no other."""
        Voc(root, *items(1), *items(2, orientation=6))
        keys = {}
        for exif in ("upright", "stored"):
            proposals = make(tasks.RegionProposals, exif=exif, shard_size=1)
            proposals.index_task().make_artefact()
            keys[exif] = [shard.key for shard in proposals.shards()]
        assert [first == second for first, second in zip(*keys.values(), strict=True)] == [True, False]

    def test_of_the_users_folder_it_is_an_error(self, make, root):
        Voc(root, *items(1, orientation=3))
        with pytest.raises(PipelineError, match=r"EXIF orientation\) 3; if the boxes were drawn on"):
            make(tasks.IndexDataset).make_artefact()

    @pytest.mark.parametrize(("given", "rule"), [("error", "stored"), ("upright", "upright")])
    def test_boxes_of_data_sets_by_name_count_stored_pixels(self, given, rule):
        assert tasks.IndexDataset(dataset="voc2007", exif=given)._rules()["exif"] == rule


class TestAllSplitsFirst:
    @pytest.mark.parametrize("stage", ALL_OF_BOTH_SPLITS)
    def test_luigi_runs_nothing_before_the_indexes(self, make, root, stage):
        Voc(root, *items(1))
        Voc(root, *items(2), split="test")
        task = make(stage)
        assert {(type(dep), dep.split) for dep in task.deps()} == {(tasks.IndexDataset, "train"), (tasks.IndexDataset, "test")}
        for dep in sorted(task.deps(), key=lambda dep: dep.split, reverse=True):
            dep.make_artefact()
        (required,) = (set(next(task.run())),)
        assert required == set(task.requires().values())

    def test_those_are_all_that_train_and_test(self):
        both = {stage for stage in all_stages() if {"train_split", "test_split"} <= {name for name, _ in stage.get_params()}}
        one_split_alone = {tasks.TopRegions, tasks.ExportDetector, tasks.FindThresholds, tasks.DetectImages}
        # Parts of a chain with an evaluation of its own, which comes first in its runs.
        parts = {tasks.Localise, tasks.TimeLocalisation, tasks.CompareLocalisers, tasks.EstimatePoses, tasks.TimePose,
                 tasks.SegmentImages, tasks.TimeSegmentation, tasks.CompareSegmenters, tasks.CompareUpsampling,
                 tasks.SegmentationCosts}
        of_masks = {tasks.EvaluateSegmentation}  # tests/tasks/test_segmentation.py
        of_runs = {tasks.Sweep}  # each of its rows is a FullPipeline
        assert both - one_split_alone - parts - of_masks - of_runs == set(ALL_OF_BOTH_SPLITS)

    @pytest.mark.parametrize(("stage", "workers"), [("FullPipeline", "2"), ("Evaluate", "1")])
    def test_a_bad_test_split_ends_the_run(self, miniatures, root, stage, workers):
        Voc(root, *items(1, 2))
        Voc(root, *items(3, objects=()), split="test")
        project = miniatures()
        output = project.run(stage, "--dataset", str(root), "--workers", workers, status=30)
        assert "ImageSets/Main/test.txt: none of its 1 image(s) has an object of cat; annotate some" in output
        assert {path.parent.parent.name for path in project.cache.glob("*/*/manifest.json")} == {"IndexDataset"}
