"""Whole runs on a user's own folder of images."""

import os
import re
from collections import Counter

import pytest
from PIL import Image

from tests.tasks.full_pipeline.runs import NOTHING, read_summary

pytestmark = pytest.mark.slow
# What a changed photograph of the test split redoes: one shard and the whole of sharded stages, and other stages.
ONE_CHAIN = (
    Counter(RegionProposals=2, DetectFastRCNN=2), Counter(IndexDataset=1, TimeDetection=1, Evaluate=1, Summarise=1)
)
ALL_CHAINS = (
    Counter(
        RegionProposals=2, ExtractFeatures=2, ConvFeatures=2, SpatialPyramidFeatures=4, DetectRCNN=4, DetectFastRCNN=2,
        DetectFasterRCNN=2,
    ),
    Counter(IndexDataset=1, TimeDetection=4, Evaluate=4, Summarise=1),
)


@pytest.fixture(scope="module")
def project(photographed):
    return photographed


@pytest.fixture(scope="module")
def photos(project):
    return project.folder / "photos"


def run(project, folder: str) -> str:
    return project.run("FullPipeline", "--dataset", folder, "--chains", project.chains)


class TestOwnPhotographs:
    def test_summary_names_the_folder(self, project, photos):
        run(project, "photos")
        assert read_summary(project)["dataset"] == "photos"

    def test_results_do_not_need_the_set_that_shared_a_shard(self, project, photos):
        """Shards of the same photographs are the embedded set's; its index and generator are not what these results rest on."""
        output = run(project, "photos")
        assert "GenerateDigits" not in output
        assert re.search(r"^IndexDataset +2 ", output, re.M)

    def test_touch_and_another_place_redo_nothing(self, project, photos, copied):
        before = project.manifests()
        for image in (photos / "JPEGImages").iterdir():
            os.utime(image)
        for folder in ("photos", str(copied)):
            assert "Nothing to do" in run(project, folder)
        assert project.made(before) == NOTHING

    def test_changed_test_photograph_redoes_one_shard(self, project, copied):
        before = project.manifests()
        path = copied / "JPEGImages" / "test00003.jpg"
        with Image.open(path) as image:
            image.paste((255, 0, 0), (0, 0, 9, 9))
            image.save(path, quality=95)
        run(project, str(copied))
        shard_and_whole, others = ONE_CHAIN if project.chains == "fast-rcnn" else ALL_CHAINS
        assert project.made(before) == shard_and_whole + others
        new = {name: manifest for name, manifest in project.manifests().items() if name not in before}
        wholes = [manifest for manifest in new.values() if any(name.startswith("shard") for name in manifest["inputs"])]
        assert Counter(manifest["stage"] for manifest in wholes for _ in range(2)) == shard_and_whole
        for manifest in wholes:
            shards = [f"{manifest['stage']}/{manifest['inputs'][f'shard {number}']['key'][:12]}" for number in (0, 1)]
            assert [name in before for name in shards] == [True, False]
