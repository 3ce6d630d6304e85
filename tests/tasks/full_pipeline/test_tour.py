"""The notebook docs/tour.ipynb on the cache of a first run: its cells run, and say what is true."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.tasks.full_pipeline.runs import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def tour(cold_run):
    """The names that the cells set, after all of them."""
    names: dict = {}
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cold_run[0].parent)
        for number, cell in enumerate(cells):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        yield names


@pytest.mark.slow
def test_finds_what_is_in_the_cache(tour, cold_run):
    manifests = [json.loads(path.read_text()) for path in cold_run[0].glob("*/*/manifest.json") if not path.parent.is_symlink()]
    assert tour["counts"] == Counter(manifest["stage"] for manifest in manifests)
    assert tour["latest"]["stage"] == "Summarise"


@pytest.mark.slow
def test_computes_every_key_as_the_engine_does(tour):
    hashed = {folder: tour["hashlib"].sha256(tour["key_text"](manifest).encode()).hexdigest()
              for folder, manifest in tour["manifests"].items() if manifest["settings"].get("shard", "-1") == "-1"}
    assert len(hashed) > 30
    assert hashed == {folder: tour["manifests"][folder]["key"] for folder in hashed}


@pytest.mark.slow
def test_scores_and_detections_are_those_of_the_stage(tour):
    """An object's own region is most like itself, and the best raw score is that of the image's best detection."""
    assert (tour["nearest"][0], round(float(tour["likeness"][0]), 5)) == (0, 1)
    best = tour["detections"]["score"][tour["shown"][0]]
    proposals = tour["scores"][tour["overlaps"].max(axis=1) < 1]  # the stage scores proposals, not the ground truth
    assert abs(proposals.max() - best) < 1e-3
    assert isinstance(tour["picture"], Image.Image)
    assert Path("cache") / "GenerateDigits" in [artefact.parent for artefact in tour["behind"](tour["evaluation"], [])]


def test_is_kept_without_results():
    """Results would differ on each machine, and a reader could not tell old ones from new ones."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
