"""Trainings that go on from a finished one, and that are validated, in whole runs."""

import re
from collections import Counter

import pytest

from tasks.engine.catalogue import Catalogue
from tests.tasks.full_pipeline.runs import check_docs, inputs_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(miniatures, cold_run):
    """A project with the results of a first run."""
    project = miniatures(cold_run[0])
    yield project
    check_docs(project)


def test_a_longer_training_names_the_shorter_one(project):
    before = project.manifests()
    (parent,) = [name for name in before if name.startswith("TrainFastRCNN/")]
    output = project.run("TrainFastRCNN", "--fast-iterations", "5", "--continue-from", parent[:20], "--keep-state", "true")
    assert f"goes on from {parent} after 3 steps, with its weights alone" in output
    (child,) = project.manifests().keys() - before.keys()
    assert inputs_of(project, before, "TrainFastRCNN")["continued"]["key"] == before[parent]["key"]
    figures, files = (project.manifests()[child][name] for name in ("figures", "files"))
    assert (figures["steps"], figures["continued_steps"]) == (5, 3)
    assert "state.safetensors" in files
    steps = [line.split(",")[0] for line in (project.cache / child / "training.csv").read_text().splitlines()]
    assert steps == ["step", "4", "5"]
    catalogue = Catalogue(project.cache)
    assert parent in catalogue.closure([catalogue.entries[child]])  # which `prune` keeps and `rcnn-cache` lists
    refused = project.run("TrainFastRCNN", "--continue-from", parent, status=35)
    assert re.search(r"has made 3 steps, and this training shall make 3 in all; give more", refused)


def test_the_best_network_is_kept(project):
    before = project.manifests()
    output = project.run(
        "DetectFastRCNN", "--fast-iterations", "4", "--validate", "val", "--validate-every", "2", "--patience", "1"
    )
    assert project.made(before) == Counter(IndexDataset=1, RegionProposals=2, TrainFastRCNN=1, DetectFastRCNN=3)
    scores = re.findall(r"after (\d) steps the mAP on val is ([\d.]+), the best", output)
    assert [done for done, _ in scores] == ["2", "4"]
    (folder,) = [name for name in project.manifests().keys() - before.keys() if name.startswith("TrainFastRCNN/")]
    rows = (project.cache / folder / "validation.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4"]
    best = max(range(2), key=lambda number: float(scores[number][1]))
    assert project.manifests()[folder]["figures"]["best_step"] == 2 * best + 2
    refused = project.run("DetectFastRCNN", "--validate", "test", status=35)
    assert "--validate test: is the split that is tested" in refused
