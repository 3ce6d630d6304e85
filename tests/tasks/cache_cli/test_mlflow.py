"""`rcnn-cache mlflow`: the file store that it writes, by hand and on a whole run."""

import json
from pathlib import Path

import pytest
import yaml

from tasks.cache_cli import main
from tasks.engine.catalogue import Catalogue
from tests.tasks.cache_cli.artefacts import OUTSIDE, make_consistent


def runs_in(store: Path) -> dict[str, Path]:
    """The folders of the runs, by their names."""
    return {yaml.safe_load(path.read_text())["run_name"].split()[0]: path.parent for path in store.glob("*/*/meta.yaml")}


@pytest.fixture(scope="module")
def exported(cold_run, tmp_path_factory):
    """The cache of a run on the miniature, and the store after two exports of it."""
    store = tmp_path_factory.mktemp("mlflow") / "mlruns"
    for _ in range(2):
        assert main(["--cache-dir", str(cold_run[0]), "mlflow", str(store), "--name", "first runs"]) == 0
    return Catalogue(cold_run[0]), store


@pytest.mark.slow
class TestStore:
    def test_there_is_one_run_for_each_evaluation(self, exported):
        _, store = exported
        (experiment,) = [yaml.safe_load(path.read_text()) for path in store.glob("*/meta.yaml")]
        assert (experiment["name"], experiment["lifecycle_stage"]) == ("first runs", "active")
        assert [path.name for path in store.iterdir()] == [experiment["experiment_id"]]
        assert runs_in(store).keys() == {"rcnn", "spp-net", "fast-rcnn", "faster-rcnn"}

    def test_a_run_has_what_the_manifest_says(self, exported):
        catalogue, store = exported
        folder = runs_in(store)["fast-rcnn"]
        meta = yaml.safe_load((folder / "meta.yaml").read_text())
        (entry,) = [entry for entry in catalogue.entries.values()
                    if entry.stage == "Evaluate" and entry.manifest["settings"]["chain"] == "fast-rcnn"]
        assert meta["run_id"] == meta["run_uuid"] == folder.name == entry.key[:32]
        assert meta["start_time"] == int(entry.started * 1000) <= meta["end_time"]
        assert Path(meta["artifact_uri"].removeprefix("file://")) == folder / "artifacts"
        assert {path.name: path.read_text() for path in (folder / "params").iterdir()} == entry.manifest["settings"]
        assert (folder / "tags" / "key").read_text() == entry.key
        assert json.loads((folder / "artifacts" / "evaluation.json").read_text())["iou_threshold"] == 0.5
        _, value, step = (folder / "metrics" / "map").read_text().split()
        assert (float(value), step) == (entry.manifest["figures"]["map"], "0")

    def test_a_curve_has_a_line_for_each_step(self, exported):
        catalogue, store = exported
        metrics = runs_in(store)["fast-rcnn"] / "metrics"
        (entry,) = [entry for entry in catalogue.entries.values() if entry.stage == "TrainFastRCNN"]
        rows = [line.split(",") for line in (entry.folder / "training.csv").read_text().splitlines()[1:]]
        lines = [line.split() for line in (metrics / "TrainFastRCNN" / "loss").read_text().splitlines()]
        assert [(int(step), float(value)) for _, value, step in lines] == [(int(row[0]), float(row[2])) for row in rows]
        assert len({path.parent.name for path in (runs_in(store)["faster-rcnn"] / "metrics").glob("TrainRPN*/loss")}) == 2


def test_nothing_to_export_is_an_error(total, tool):
    assert "found no evaluation; `rcnn run` makes some" in tool("mlflow", "mlruns", status=2)


def test_a_hostile_manifest_leads_to_no_other_file(total, tool):
    """Its stage is taken for an evaluation; a link in it is not followed, and no name leads out of the folder."""
    Path("cache/EvaluateSum").mkdir()
    folder = total.folder.rename(Path("cache/EvaluateSum") / total.folder.name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"stage": "EvaluateSum", "settings": {"../../up": "1", "..": "2", **manifest["settings"]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "training.csv").write_text("step,loss\n1,x\n")
    make_consistent(folder, "more.json", b"1")
    (folder / "more.json").unlink()
    (folder / "more.json").symlink_to(Path("secret").absolute())
    assert "training.csv: not a training's curve (could not convert string to float: 'x')" in tool("mlflow", "mlruns", status=2)
    (folder / "training.csv").write_text("step,loss\n1,0.5\n")
    tool("mlflow", "mlruns")
    texts = {str(path.relative_to("mlruns")): path.read_text() for path in Path("mlruns").rglob("*") if path.is_file()}
    assert not any(OUTSIDE in text for text in texts.values())
    assert [text for path, text in texts.items() if path.endswith("/params/_._.._up")] == ["1"]
