"""Region proposals and their quality, as stages."""

import json
import re
import shutil

import pytest

import tasks
from pipeline.errors import PipelineError
from tests.tasks.conftest import Miniature


@pytest.fixture(scope="module")
def measured(miniatures, shared_run):
    """The miniature, after a run, and what that printed."""
    folder, output = shared_run("measured", lambda folder: Miniature(folder).run("ProposalQuality", "--split", "test"))
    return miniatures(folder / "cache"), output


def test_the_table_is_shown_and_the_files_are_named(measured):
    project, output = measured
    (folder,) = (project.cache / "ProposalQuality").iterdir()
    assert f"results: cache/ProposalQuality/{folder.name}/ (quality.json, table.txt, curve.svg)" in output
    table = (folder / "table.txt").read_text()
    assert table in output
    assert table.startswith("proposals 'balanced' on 4 images of 'test', ")
    assert (folder / "curve.svg").stat().st_size > 1000


def test_quality_as_json(measured):
    project, _ = measured
    document = json.loads(next(project.cache.glob("ProposalQuality/*/quality.json")).read_text())
    assert (document["method"], document["split"], document["images"]) == ("balanced", "test", 4)
    assert document["core_seconds_per_image"] > 0
    assert document["counts"][-1] == 60  # max_proposals
    assert len(document["recalls"]) == len(document["counts"])
    assert document["recalls"][-1][0] > 0.9
    assert document["mabo"][-1] > 0.7


def test_proposals_beyond_the_limit_are_counted_and_told_of(measured):
    project, output = measured
    (figures,) = [manifest["figures"] for manifest in project.manifests().values()
                  if manifest["stage"] == "RegionProposals" and "boxes_per_image" in manifest["figures"]]
    assert figures["left_out_proposals"] > 100
    assert output.count(f"--max-proposals 60 leaves out {figures['left_out_proposals']} proposals") == 1
    assert figures["objects"] >= figures["objects_reached"] > 0


def test_it_is_shown_again_without_being_computed_again(measured):
    project, output = measured
    before = project.manifests()
    again = project.run("ProposalQuality", "--split", "test")
    assert not project.made(before)
    assert again.splitlines()[-3:] == output.splitlines()[-3:]


@pytest.mark.parametrize("settings", [
    ("--proposals", "fast"), *(pytest.param(settings, marks=pytest.mark.exhaustive) for settings in (
        ("--image-width", "200"), ("--proposals", "selectivesearch"),
    )),
])
def test_other_settings_give_other_proposals(measured, settings):
    project, _ = measured
    before = project.manifests()
    project.run("ProposalQuality", "--split", "test", *settings)
    assert set(project.made(before)) == {"RegionProposals", "ProposalQuality"}


@pytest.mark.parametrize(("dataset", "limit"), [("digits", 500), ("mydata", 2000)])
def test_the_most_proposals_are_what_suits_the_data_set(dataset, limit):
    task = tasks.RegionProposals(dataset=dataset)
    assert task.key_inputs()["outside"]["max_boxes"] == limit
    assert tasks.RegionProposals(dataset=dataset, max_proposals=7).key_inputs()["outside"]["max_boxes"] == 7


@pytest.fixture(scope="module")
def exported(measured):
    """The .mat file of the test split's proposals."""
    project, _ = measured
    output = project.run("ExportProposals", "--split", "test")
    return project.folder / output.splitlines()[-1].removeprefix("proposals: ")


class TestFiles:
    """Proposals written into a file, in a run of its own, and read from it, in this process."""

    @pytest.fixture
    def make(self, measured, stages):
        """make(stage, files, ...) -> the finished task on the miniature's test split, with proposals from `files`."""
        cache = str(measured[0].cache)

        def make(stage, files, **settings):
            settings = {"split": "test", "shard_size": 2, "max_proposals": 60, "threads": 1, **settings}
            images = {"digits_train_images": 4, "digits_val_images": 1, "digits_test_images": 4}
            return stages.make(stage(proposals=str(files), cache_dir=cache, **images, **settings))

        return make

    @pytest.mark.parametrize("kind", ["mat", "npz"])
    def test_exported_ones_are_read_as_the_same(self, make, exported, tmp_path, kind):
        path = make(tasks.ExportProposals, "balanced", format=kind).artefact.path(f"proposals.{kind}")
        if kind == "mat":
            assert path.resolve() == exported.resolve()
        copied = shutil.copy(path, tmp_path)
        own, read = (make(tasks.RegionProposals, name).artefact for name in ("balanced", copied))
        assert [shard.manifest["digest"] for shard in read.shards()] == [shard.manifest["digest"] for shard in own.shards()]
        assert read.key != own.key

    def test_the_content_counts_and_not_the_path(self, make, exported, tmp_path):
        copied = shutil.copy(exported, tmp_path / "another.mat")
        assert make(tasks.RegionProposals, copied).key == make(tasks.RegionProposals, exported).key

    def test_boxes_beyond_the_limit_are_counted_and_told_of(self, make, exported, caplog):
        everything = make(tasks.RegionProposals, exported).artefact.manifest["figures"]
        assert "left_out_proposals" not in everything
        assert "leaves out" not in caplog.text
        few = make(tasks.RegionProposals, exported, max_proposals=7).artefact.manifest["figures"]
        left_out = everything["boxes"] - 4 * 7
        assert (few["boxes_per_image"], few["left_out_proposals"]) == (7, left_out)
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert f": --max-proposals 7 leaves out {left_out} proposals, those of the lowest priority; raise it" in line

    def test_quality_names_no_seconds(self, make, exported):
        table = make(tasks.ProposalQuality, exported).artefact.path("table.txt").read_text()
        assert re.match(r"proposals 'file' on 4 images of 'test', \d+ objects\n", table)

    def test_a_file_for_each_split(self, make, exported, tmp_path):
        train = make(tasks.ExportProposals, "balanced", split="train", format="npz").artefact.path("proposals.npz")
        both = f"{exported}, {train}"
        assert [make(tasks.RegionProposals, both, split=split).artefact.exists() for split in ("train", "test")] == [True, True]

    def test_what_no_file_has(self, make, exported):
        with pytest.raises(PipelineError, match=r"proposals of image 'train00000' are not in .*proposals\.mat"):
            make(tasks.RegionProposals, exported, split="train")
        with pytest.raises(PipelineError, match=r"--proposals none\.npz: no such file; give files, or one of balanced, "):
            make(tasks.RegionProposals, f"{exported},none.npz")


@pytest.mark.parametrize(("settings", "message"), [
    (("--proposals", "edges"), "--proposals: found 'edges', expected one of balanced, single, fast, quality, selectivesearch"),
    (("--image-width", "-3"), "--image-width: found -3"),
])
def test_bad_settings_are_named(miniatures, settings, message):
    assert message in miniatures().run("ProposalQuality", *settings, status=40)
