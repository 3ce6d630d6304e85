"""A cold run makes every stage, a second run nothing."""

import json
import re
from collections import Counter

import pytest

from tests.tasks.full_pipeline.runs import CLASSES, COLD, NOTHING, STEPS, read_summary

pytestmark = pytest.mark.slow


def results(output: str) -> str:
    """What a run printed of the results: all before the table of the stages."""
    return re.search(r"^rcnn on .*?(?=\n\nstage )", output, re.M | re.S).group()


class TestRun:
    def test_first_makes_every_stage(self, cold):
        project, output, manifests = cold
        assert Counter(manifest["stage"] for manifest in manifests.values()) == COLD
        assert re.search(r"^results: cache/Summarise/[0-9a-f]{12}/ .* also as cache/latest$", output, re.M)
        assert re.findall(r"^(\w+) +\d+ .* computed$", output, re.M) == list(dict.fromkeys(
            re.findall(r"^(\w+) +\d+ .*(?:computed|from the cache)$", output, re.M)
        ))
        assert project.leftovers() == []

    def test_second_computes_nothing_and_shows_the_same(self, cold):
        project, first, _ = cold
        before = project.manifests()
        output = project.run("FullPipeline")
        assert project.made(before) == NOTHING
        assert "Nothing to do: every stage was in the cache." in output
        assert " computed" not in output
        assert results(output) == results(first)

    def test_summary(self, cold):
        project, _, manifests = cold
        project.run("FullPipeline")
        assert str((project.cache / "latest").resolve().relative_to(project.cache.resolve())) in manifests
        summary = read_summary(project)
        assert summary["dataset"] == "digits"
        assert summary["chains"].keys() == {"rcnn", "spp-net", "fast-rcnn", "faster-rcnn"}
        for name, chain in summary["chains"].items():
            assert chain["ap"].keys() == CLASSES
            assert chain["interval_95"].keys() == CLASSES | {"mean"}
            assert chain["map"] == pytest.approx(sum(chain["ap"].values()) / len(CLASSES))
            assert (chain["proposal_seconds_per_image"] == 0) == (name == "faster-rcnn")
            assert chain["test_seconds_per_image"] > 0

    def test_every_chain_has_coco_metrics_and_errors(self, cold):
        project, output, manifests = cold
        folders = [project.cache / name for name, manifest in manifests.items() if manifest["stage"] == "Evaluate"]
        for folder in folders:
            evaluation, errors = (json.loads((folder / f"{name}.json").read_text()) for name in ("evaluation", "errors"))
            assert 0 <= evaluation["coco"]["metrics"]["ap"] <= 1
            assert evaluation["coco"]["classes"].keys() == errors["classes"].keys() == CLASSES
            assert (folder / "table.txt").read_text() in output

    def test_training_seconds_are_those_of_all_that_training_needed(self, cold):
        project, _, manifests = cold
        project.run("FullPipeline")
        common = ["GenerateDigits", "IndexDataset", "PretrainClassifier"]
        own = {
            "rcnn": ["RegionProposals", "FineTune", "ExtractFeatures", "TrainSVMs", "TrainBoxRegressors"],
            "spp-net": [
                "RegionProposals", "ConvFeatures", "FineTuneSPP", "SpatialPyramidFeatures", "TrainSVMs", "TrainBoxRegressors",
            ],
            "fast-rcnn": ["RegionProposals", "TrainFastRCNN"],
            "faster-rcnn": list(STEPS),
        }
        for chain, stages in own.items():
            unused = {"rcnn": "pyramid", "spp-net": "crops"}.get(chain)
            needed = [
                manifest["seconds"] for manifest in manifests.values() if manifest["stage"] in common + stages
                and manifest["settings"].get("split") != "test" and manifest["settings"].get("region_features", "") != unused
            ]
            assert len(needed) == {"rcnn": 12, "spp-net": 18, "fast-rcnn": 7, "faster-rcnn": 16}[chain]
            assert read_summary(project)["chains"][chain]["train_seconds"] == pytest.approx(sum(needed))
