"""The whole pipeline as the user runs it, on a miniature of the embedded data set: one cold run, then what each change redoes."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from pipeline.detection.detections import Detections
from pipeline.detector import Detector, ImageDetections
from pipeline.rcnn.svm import LinearSVMs
from tasks.cache_cli.show import described, files
from tasks.engine.artefacts import Artefact
from tasks.engine.catalogue import Catalogue
from tasks.engine.printing import ShowResult
from tasks.features.stores import open_features
from tests.tasks.test_docs import check_artefact

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
# Artefacts of a cold run: a sharded stage has two shards and the list of them for each split.
COLD = Counter(
    GenerateDigits=1, IndexDataset=2, RegionProposals=6, PretrainClassifier=1, FineTune=1, ExtractFeatures=6, ConvFeatures=6,
    SpatialPyramidFeatures=6, TrainSVMs=2, TrainBoxRegressors=2, TrainFastRCNN=1, TrainRPN=2, RPNProposals=6,
    TrainSharedFastRCNN=2, SharedConvFeatures=3, DetectRCNN=6, DetectFastRCNN=3, DetectFasterRCNN=3, TimeDetection=4, Evaluate=4,
    Summarise=1,
)
# What follows the training of R-CNN; of R-CNN and SPP-net.
DETECTION = Counter(DetectRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
BOTH = Counter(DetectRCNN=6, TimeDetection=2, Evaluate=2, Summarise=1)
# What follows the training of Faster R-CNN; its four steps.
FASTER = Counter(DetectFasterRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
STEPS = Counter(TrainRPN=2, RPNProposals=6, TrainSharedFastRCNN=2, SharedConvFeatures=3)
# What a report adds: proposals of step 3 for the test split among it.
REPORT = Counter(TopRegions=1, HardNegatives=1, ProposalQuality=2, RPNProposals=3, SharedConvFeatures=3, FullPipeline=1)
NOTHING = Counter()
CLASSES = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


@pytest.fixture(scope="module")
def cold(miniatures):
    """A project after its first run, what that printed, and the manifests that it left."""
    project = miniatures()
    output = project.run("FullPipeline")
    return project, output, project.manifests()


@pytest.fixture(scope="module")
def project(cold):
    """The project of `cold`; each test adds other artefacts to its cache."""
    return cold[0]


@pytest.fixture(scope="module")
def photos(project):
    """The embedded set as a folder of the user's that was run on."""
    folder = project.folder / "photos"
    shutil.copytree(next(project.cache.glob("GenerateDigits/*/digits")), folder)
    project.run("FullPipeline", "--dataset", "photos")
    return folder


@pytest.fixture
def copied(photos, tmp_path):
    """A copy of `photos` at another place."""
    return shutil.copytree(photos, tmp_path / "photos")


def printed(project, *arguments: str, status: int = 0) -> str:
    """Runs Python in the project's folder, checks the exit status and returns what was printed."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def cache_tool(project, *arguments: str, status: int = 0) -> str:
    """Runs `rcnn-cache`, checks the exit status and returns what was printed."""
    return printed(project, "-m", "tasks.cache_cli", *arguments, status=status)


def read_summary(project) -> dict:
    return json.loads((project.cache / "latest" / "summary.json").read_text())


def results(output: str) -> str:
    """What a run printed of the results: all before the table of the stages."""
    return re.search(r"^rcnn on .*?(?=\n\nstage )", output, re.M | re.S).group()


def inputs_of(project, before: dict, stage: str) -> dict[str, dict]:
    """The inputs, shards left out, of each artefact of `stage` that was made since `before`; one set for all of them."""
    made = [manifest for name, manifest in project.manifests().items() if manifest["stage"] == stage and name not in before]
    inputs = [{name: made for name, made in manifest["inputs"].items() if not name.startswith("shard")} for manifest in made]
    return max(inputs, key=len)


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
            "spp-net": ["RegionProposals", "ConvFeatures", "SpatialPyramidFeatures", "TrainSVMs", "TrainBoxRegressors"],
            "fast-rcnn": ["RegionProposals", "TrainFastRCNN"],
            "faster-rcnn": list(STEPS),
        }
        for chain, stages in own.items():
            other = {"rcnn": "pyramid", "spp-net": "crops"}.get(chain)
            needed = [
                manifest["seconds"] for manifest in manifests.values() if manifest["stage"] in common + stages
                and manifest["settings"].get("split") != "test" and manifest["settings"].get("region_features", "") != other
            ]
            assert len(needed) == {"rcnn": 12, "spp-net": 14, "fast-rcnn": 7, "faster-rcnn": 16}[chain]
            assert read_summary(project)["chains"][chain]["train_seconds"] == pytest.approx(sum(needed))


@pytest.fixture(scope="module")
def reported(cold, miniatures):
    """A project with the cache of the first run after a run with a report, and what that printed."""
    project = copy_of(cold, miniatures)
    before = project.manifests()
    output = project.run("FullPipeline", "--report", "true")
    assert project.made(before) == REPORT
    return project, output


class TestReport:
    def test_page_lies_beside_the_table(self, reported):
        project, output = reported
        latest = project.cache / "latest"
        assert sorted(path.name for path in latest.iterdir()) == ["manifest.json", "report.html", "summary.json", "table.txt"]
        files = r"\(summary.json, table.txt, report.html\)"
        assert re.search(rf"^results: cache/FullPipeline/[0-9a-f]{{12}}/ {files}, also as", output, re.M)
        page = (latest / "report.html").read_text()
        for section in ("story", "units", "negatives", "proposals", "training", "run"):
            assert f'<section id="{section}">' in page
        assert all(page.count(f">{chain}</h3>") == 1 for chain in ("R-CNN", "SPP-net", "Fast R-CNN", "Faster R-CNN"))
        assert len(page) < 4e6
        assert "Nothing to do" in project.run("FullPipeline", "--report", "true")

    def test_insights_are_of_the_stores(self, reported):
        project, _ = reported
        units = json.loads(next(project.cache.glob("TopRegions/*/units.json")).read_text())
        assert len({unit["unit"] for unit in units}) == len({unit["class"] for unit in units}) == len(units)
        for unit in units:
            activations = [region["activation"] for region in unit["regions"]]
            assert activations == sorted(activations, reverse=True)
            assert len({region["image"] for region in unit["regions"]}) == len(activations) <= 4
        negatives = json.loads(next(project.cache.glob("HardNegatives/*/negatives.json")).read_text())
        assert negatives.keys() == CLASSES
        assert all(negative["overlap"] < 0.3 for found in negatives.values() for negative in found)

    @pytest.mark.parametrize(("arguments", "sections"), [
        (["--chains", "spp-net"], {"proposals"}), (["--chains", "rcnn", "--layer", "fc6"], {"story", "units", "negatives"}),
        (["--chains", "faster-rcnn", "--faster-training", "joint"], set()),
        (["--chains", "rcnn", "--box-regression", "false", "--report-image", "test00002"], {"story", "units", "negatives"}),
    ])
    def test_whatever_is_missing(self, reported, arguments, sections):
        project, _ = reported
        project.run("FullPipeline", "--report", "true", *arguments)
        page = (project.cache / "latest" / "report.html").read_text()
        assert set(re.findall(r'<section id="(story|units|negatives)">', page)) == sections - {"proposals"}
        assert ("Test image <em>test00002</em>, as asked for" in page) == ("--report-image" in arguments)

    def test_unknown_image_leaves_the_table(self, reported):
        project, _ = reported
        output = project.run("FullPipeline", "--report", "true", "--report-image", "nowhere", status=30)
        assert "FullPipeline failed: --report-image nowhere: no such image in split test; name one of it, as test00000" in output
        table = re.search(r"no report; the table is (\S+), `--report false` leaves it at that$", output, re.M)[1]
        assert "training s" in (project.folder / table).read_text()
        assert "Traceback" not in output


class TestSettings:
    def test_cost_of_the_svms_redoes_them_and_what_follows(self, project):
        before = project.manifests()
        output = project.run("FullPipeline", "--svm-c", "0.01")
        assert project.made(before) == BOTH + Counter(TrainSVMs=2)
        assert re.search(r"^ExtractFeatures .* from the cache$", output, re.M)

    def test_deeper_layer(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--layer", "fc6")
        assert project.made(before) == DETECTION + Counter(ExtractFeatures=6, TrainSVMs=1)
        inputs = inputs_of(project, before, "DetectRCNN")
        assert inputs.keys() == {"index", "svms", "regressors", "features", "pool5"}
        assert inputs["pool5"]["key"][:12] in {name.split("/")[1] for name in before}
        assert inputs["features"]["key"] != inputs["pool5"]["key"]
        regressors = project.manifests()["TrainBoxRegressors/" + inputs["regressors"]["key"][:12]]
        read = project.manifests()["ExtractFeatures/" + regressors["inputs"]["features"]["key"][:12]]
        assert read["parameters"]["layer"] == "pool5"

    def test_without_box_regression(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--box-regression", "false")
        assert project.made(before) == BOTH
        assert inputs_of(project, before, "DetectRCNN").keys() == {"index", "svms", "features"}
        assert "regressors" not in inputs_of(project, before, "TimeDetection")

    def test_without_fine_tuning(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--finetune-iterations", "0")
        assert project.made(before) == DETECTION + Counter(ExtractFeatures=6, TrainSVMs=1, TrainBoxRegressors=1)
        assert inputs_of(project, before, "ExtractFeatures")["network"]["stage"] == "PretrainClassifier"

    def test_forced_stage_comes_out_the_same(self, project):
        before = project.manifests()
        digests = project.digests()
        project.run("FullPipeline", "--force", "TrainSVMs")
        assert project.made(before) == Counter(TrainSVMs=2)
        assert project.digests() == digests

    def test_unknown_chain(self, project):
        output = project.run("FullPipeline", "--chains", "nonsense", status=40)
        assert output == "ERROR: chains 'nonsense': choose one or more of rcnn, spp-net, fast-rcnn, faster-rcnn\n"

    def test_frozen_layers_train_from_cached_maps(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--freeze", "all", "--chains", "fast-rcnn")
        redone = Counter(TrainFastRCNN=1, DetectFastRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
        assert project.made(before) - Counter(ConvFeatures=3) == redone
        assert "maps" in inputs_of(project, before, "TrainFastRCNN")
        layers = [
            load_file(next(project.cache.glob(f"{stage}/{key}/{name}"))) for stage, key, name in (
                ("PretrainClassifier", "*", "backbone.safetensors"),
                ("TrainFastRCNN", *{name.split("/")[1] for name in project.manifests().keys() - before if "Train" in name},
                 "fast_rcnn.safetensors"),
            )
        ]
        trunk = [name for name in layers[0] if name.startswith("trunk")]
        assert all((layers[0][name] == layers[1][f"backbone.{name}"]).all() for name in trunk)
        assert (layers[0]["fc.fc6.weight"] != layers[1]["backbone.fc.fc6.weight"]).any()

    def test_compressed_layers(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--svd-fc6", "16")
        redone = Counter(CompressFastRCNN=1, DetectFastRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
        assert project.made(before) == redone
        (figures,) = [m["figures"] for m in project.manifests().values() if m["stage"] == "CompressFastRCNN"]
        assert figures["parameters_before"] - figures["parameters"] == 2048 * 256 - 16 * (2048 + 256)


def tensors_of(project, stage: str, name: str, **settings) -> dict:
    """The weights in the file `name` of the one artefact of `stage` whose manifest bears these settings."""
    (folder,) = [folder for folder, manifest in project.manifests().items() if manifest["stage"] == stage
                 and settings.items() <= manifest["settings"].items()]
    return load_file(project.cache / folder / name)


def trunk_of(tensors: dict) -> dict:
    """The tensors of the trunk, by their names in a backbone."""
    return {name.removeprefix("backbone."): value for name, value in tensors.items() if "trunk" in name}


def same(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys() != set()
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


class TestFasterRCNN:
    def test_steps_3_and_4_leave_the_trunk_of_step_2_as_it_is(self, cold, miniatures):
        """To the bit; steps 1 and 2 have each trained one of their own."""
        project = copy_of(cold, miniatures)
        pretrained = trunk_of(tensors_of(project, "PretrainClassifier", "backbone.safetensors"))
        first = trunk_of(tensors_of(project, "TrainRPN", "backbone.safetensors", rpn_step="1"))
        second, fourth = (
            tensors_of(project, "TrainSharedFastRCNN", "fast_rcnn.safetensors", fast_step=step) for step in ("2", "4")
        )
        assert same(trunk_of(second), trunk_of(fourth))
        assert not same({"fc6": second["backbone.fc.fc6.weight"]}, {"fc6": fourth["backbone.fc.fc6.weight"]})
        trunks = [pretrained, first, trunk_of(second)]
        assert not any(same(trunks[one], trunks[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
        (third,) = [folder for folder, manifest in project.manifests().items() if manifest["stage"] == "TrainRPN"
                    and manifest["settings"]["rpn_step"] == "3"]
        assert sorted(path.name for path in (project.cache / third).iterdir()) == [
            "manifest.json", "rpn.safetensors", "training.csv",
        ]

    def test_table_tells_what_proposals_by_the_network_gain(self, cold):
        _, output, _ = cold
        told = r"^Proposals included, Faster R-CNN is [\d.]+ times as fast as Fast R-CNN \(published: 9\.2\)\.$"
        assert re.search(told, output, re.M)

    def test_number_of_test_proposals_redoes_detection(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--rpn-test-proposals", "20")
        assert project.made(before) == FASTER

    def test_number_of_training_proposals_redoes_all_but_step_1(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--rpn-proposals", "40")
        assert project.made(before) == FASTER + STEPS - Counter(TrainRPN=1)

    def test_anchors_that_do_not_fit_are_told_of(self, project):
        before = project.manifests()
        output = project.run("FullPipeline", "--anchor-scales", "4,8,32")
        assert project.made(before) == FASTER + STEPS
        told = "anchors of 736 x 384, 512 x 512, 352 x 704 pixels fit into no scaled image and learn nothing; lower --anchor-"
        assert len(re.findall(rf"TrainRPN/[0-9a-f]+: {told}scales$", output, re.M)) == 2

    def test_joint_training_on_request(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--faster-training", "joint")
        assert project.made(before) == FASTER + Counter(TrainFasterRCNN=1)
        assert inputs_of(project, before, "DetectFasterRCNN").keys() == {"index", "network"}
        before_training = ["GenerateDigits", "PretrainClassifier", "TrainFasterRCNN"]
        needed = [manifest["seconds"] for manifest in project.manifests().values() if manifest["stage"] in before_training
                  or (manifest["stage"] == "IndexDataset" and manifest["settings"]["split"] == "train")]
        assert read_summary(project)["chains"]["faster-rcnn"]["train_seconds"] == pytest.approx(sum(needed))

    @pytest.mark.parametrize("training", ["alternating", "joint"])
    def test_frozen_layers_train_from_cached_maps(self, project, training):
        before = project.manifests()
        project.run("FullPipeline", "--freeze", "all", "--chains", "faster-rcnn", "--faster-training", training)
        stage = {"alternating": "TrainSharedFastRCNN", "joint": "TrainFasterRCNN"}[training]
        steps = STEPS if training == "alternating" else Counter({stage: 1})
        assert project.made(before) - Counter(ConvFeatures=3) == FASTER + steps
        assert "maps" in inputs_of(project, before, stage)
        pretrained = trunk_of(tensors_of(project, "PretrainClassifier", "backbone.safetensors"))
        for name, manifest in project.manifests().items():
            if manifest["stage"] == stage and name not in before:
                assert same(trunk_of(load_file(project.cache / name / "fast_rcnn.safetensors")), pretrained)

    @pytest.mark.parametrize(("source", "maps"), [("rpn1", 0), ("rpn3", 3)])
    def test_quality_of_its_proposals(self, project, source, maps):
        before = project.manifests()
        output = project.run("ProposalQuality", "--source", source, "--split", "test")
        assert f"proposals '{source}' on 4 images of 'test', " in output
        assert project.made(before) == Counter(ProposalQuality=1, RPNProposals=3) + Counter(SharedConvFeatures=maps)
        assert inputs_of(project, before, "ProposalQuality")["proposals"]["stage"] == "RPNProposals"


class TestDetectors:
    @pytest.mark.parametrize(("chain", "stage", "settings"), [
        ("rcnn", "DetectRCNN", {"region_features": "crops"}), ("spp-net", "DetectRCNN", {"region_features": "pyramid"}),
        ("fast-rcnn", "DetectFastRCNN", {}), ("faster-rcnn", "DetectFasterRCNN", {}),
    ])
    def test_exported_detector_finds_what_the_stage_does(self, cold, chain, stage, settings):
        """But for the worst of a class, which the stage leaves out over the whole split."""
        project, _, manifests = cold
        before = project.manifests()
        output = project.run("ExportDetector", "--chain", chain)
        assert project.made(before) == Counter(ExportDetector=1)
        detector = Detector.load(project.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1], threads=1)
        (folder,) = {name for name, made in manifests.items() if made["stage"] == stage and "shard 0" in made["inputs"]
                     and settings.items() <= made["settings"].items()}
        stored = Detections.load(project.cache / folder / "detections.npz")
        assert detector.classes == stored.classes
        lowest = [min(stored.score[stored.class_index == label], default=0) for label in range(10)]
        images = next(project.cache.glob("GenerateDigits/*/digits")) / "JPEGImages"
        # R-CNN's stage fills batches with crops of several images.
        tolerance = {"rtol": 1e-3, "atol": 2e-2} if chain == "rcnn" else {"rtol": 0}
        for number, image_id in enumerate(stored.image_ids):
            found, expected = detector.detect(images / f"{image_id}.jpg"), ImageDetections.of(stored, number)
            for label in range(10):
                mine, theirs = found.labels == label, expected.labels == label
                count = theirs.sum()
                assert (found.scores[mine][count:] <= lowest[label] + tolerance.get("atol", 0)).all()
                np.testing.assert_allclose(found.scores[mine][:count], expected.scores[theirs], **tolerance)
                np.testing.assert_allclose(found.boxes[mine][:count], expected.boxes[theirs], **tolerance)


def copy_of(cold, miniatures):
    """A project of its own with the cache of the first run."""
    project, _, manifests = cold
    copy = miniatures(project.cache)
    for name in copy.manifests().keys() - manifests.keys():
        shutil.rmtree(copy.cache / name)
    return copy


class TestCacheTool:
    @pytest.fixture
    def copy(self, cold, miniatures):
        """A project of its own with the cache of the first run."""
        copy = copy_of(cold, miniatures)
        copy.run("FullPipeline")
        return copy

    def test_ls(self, copy):
        *lines, common = cache_tool(copy, "ls").splitlines()
        listed = [re.match(r"(\w+) +([0-9a-f]{12}) +\d+ \w+ +[\d.]+ \w+ .* latest ", line + " ") for line in lines[1:]]
        whole = {name for name, manifest in copy.manifests().items() if manifest["settings"].get("shard", "-1") == "-1"}
        assert {"/".join(line.groups()) for line in listed} == whole
        assert " max_proposals=60 " in common

    def test_show_of_every_artefact(self, copy, task_of, monkeypatch):
        """All in it can be read, and its command gives the same key, without the settings of the project as well."""
        monkeypatch.chdir(copy.folder)
        catalogue = Catalogue(Path("cache"))
        for entry in catalogue.entries.values():
            lines = [*described(catalogue, entry), *files(catalogue, entry)]
            assert not re.search("cannot be read|another key|not of this|no longer", "\n".join(lines))
            (command,) = [line.removeprefix("again      ") for line in lines if line.startswith("again ")]
            task = task_of(command)
            assert (task.requires() if isinstance(task, ShowResult) else task).key == entry.key
        assert len(catalogue.entries) == sum(COLD.values())

    def test_recipe_of_the_docs_finds_what_an_svm_is_most_wrong_about(self, copy):
        page = REPOSITORY / "docs" / "feature-store-and-recipes.md"
        recipes = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
        (recipe,) = [code for code in recipes if "worst" in code]
        listed = printed(copy, "-c", recipe.replace('"cat"', '"three"')).splitlines()
        found = [ast.literal_eval(line) for line in listed]

        made = [entry.manifest["inputs"] for entry in Catalogue(copy.cache).entries.values()
                if entry.stage == "DetectRCNN" and not entry.is_shard]
        (inputs,) = [inputs for inputs in made if inputs["features"]["stage"] == "ExtractFeatures"]  # the other is SPP-net's
        models, features = (Artefact(copy.cache, inputs[part]["stage"], inputs[part]["key"]) for part in ("svms", "features"))
        svms, store = LinearSVMs.from_arrays(models.arrays("svms.npz")), open_features(features)
        three, wrong = svms.classes.index("three"), {}
        for image, rows in zip(store.image_ids, store, strict=True):
            scores = svms.score(rows.features)[:, three]
            for score, box, overlap, label in zip(scores, rows.boxes, rows.overlaps[:, three], rows.gt_labels, strict=True):
                if label == three or overlap < 0.3:
                    wrong[image, tuple(box.tolist())] = -score if label == three else score
        margins = [margin for margin, _, _ in found]
        assert margins == pytest.approx(sorted(wrong.values(), reverse=True)[:10], abs=1e-5)
        assert margins == pytest.approx([wrong[image, tuple(box)] for _, image, box in found], abs=1e-5)

    def test_verify(self, copy):
        assert cache_tool(copy, "verify") == f"{sum(COLD.values())} artefacts checked, 0 faults\n"
        damaged = next(copy.cache.glob("TrainSVMs/*/svms.npz"))
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        output = cache_tool(copy, "verify", status=1)
        assert f"{damaged.relative_to(copy.folder)}: changed: content differs from the recorded SHA-256" in output
        assert "1 faults" in output

    def test_prune(self, copy):
        needed = copy.manifests()
        copy.run("IndexDataset", "--split", "test", "--on-bad-annotation", "drop")
        unneeded = copy.manifests().keys() - needed.keys()
        assert len(unneeded) == 2
        output = cache_tool(copy, "prune", "--dry-run")
        assert set(re.findall(r"^would remove cache/(\S+)", output, re.M)) == unneeded
        assert copy.manifests().keys() == needed.keys() | unneeded
        cache_tool(copy, "prune", "--yes")
        assert copy.manifests() == needed
        assert "Nothing to do" in copy.run("FullPipeline")


class TestOwnPhotographs:
    def test_summary_names_the_folder(self, project, photos):
        project.run("FullPipeline", "--dataset", "photos")
        assert read_summary(project)["dataset"] == "photos"

    def test_results_do_not_need_the_set_that_shared_a_shard(self, project, photos):
        """Shards of the same photographs are the embedded set's; its index and generator are not what these results rest on."""
        output = project.run("FullPipeline", "--dataset", "photos")
        assert "GenerateDigits" not in output
        assert re.search(r"^IndexDataset +2 ", output, re.M)

    def test_touch_and_another_place_redo_nothing(self, project, photos, copied):
        before = project.manifests()
        for image in (photos / "JPEGImages").iterdir():
            os.utime(image)
        for folder in ("photos", str(copied)):
            assert "Nothing to do" in project.run("FullPipeline", "--dataset", folder)
        assert project.made(before) == NOTHING

    def test_changed_test_photograph_redoes_one_shard(self, project, copied):
        before = project.manifests()
        path = copied / "JPEGImages" / "test00003.jpg"
        with Image.open(path) as image:
            image.paste((255, 0, 0), (0, 0, 9, 9))
            image.save(path, quality=95)
        project.run("FullPipeline", "--dataset", str(copied))
        shard_and_whole = Counter(
            RegionProposals=2, ExtractFeatures=2, ConvFeatures=2, SpatialPyramidFeatures=2, DetectRCNN=4, DetectFastRCNN=2,
            DetectFasterRCNN=2,
        )
        others = Counter(IndexDataset=1, TimeDetection=4, Evaluate=4, Summarise=1)
        assert project.made(before) == shard_and_whole + others
        new = {name: manifest for name, manifest in project.manifests().items() if name not in before}
        wholes = [manifest for manifest in new.values() if any(name.startswith("shard") for name in manifest["inputs"])]
        assert Counter(manifest["stage"] for manifest in wholes for _ in range(2)) == shard_and_whole
        for manifest in wholes:
            shards = [f"{manifest['stage']}/{manifest['inputs'][f'shard {number}']['key'][:12]}" for number in (0, 1)]
            assert [name in before for name in shards] == [True, False]


class TestErrors:
    """Each ends in one message and an exit status, without a traceback."""

    @pytest.fixture
    def message(self, project):
        def run(*arguments: str, status: int = 30, **variables: str) -> str:
            before = project.manifests()
            output = project.run("FullPipeline", *arguments, status=status, **variables)
            assert "Traceback" not in output
            assert "latest" not in output
            assert project.made(before) - Counter(IndexDataset=9) == NOTHING
            return output

        return run

    def test_bad_annotations_are_reported_at_once(self, message, copied):
        boxes = [("train00000", r"<xmax>\d+", "<xmax>999"), ("train00001", r"<ymin>\d+", "<ymin>few"),
                 ("train00002", r"<name>\w+", "<name>")]
        for name, pattern, replacement in boxes:
            path = copied / "Annotations" / f"{name}.xml"
            path.write_text(re.sub(pattern, replacement, path.read_text(), count=1))
        (copied / "JPEGImages" / "train00003.jpg").write_bytes(b"no picture")
        output = message("--dataset", str(copied))
        assert f"IndexDataset failed: data set {copied}, split 'train': 4 problem(s)\n" in output
        problems = [line.removeprefix(f"  {copied}/") for line in output.splitlines() if line.startswith("  ")]
        assert [problem.split(" ")[0] for problem in problems] == [
            "Annotations/train00000.xml:", "Annotations/train00001.xml:", "Annotations/train00002.xml:",
            "JPEGImages/train00003.jpg:",
        ]
        assert "999" in problems[0]
        assert "which is not inside (1, 1, 320, 240)" in problems[0]
        assert "few" in problems[1]
        assert "has no <name>" in problems[2]

    def test_missing_data_set(self, message, project):
        output = message("--dataset", "nowhere")
        assert f"{project.folder}/nowhere: no such folder; expected a data set in VOC layout" in output

    def test_missing_split(self, message, copied):
        output = message("--dataset", str(copied), "--train-split", "learn")
        assert f"{copied}/ImageSets/Main/learn.txt: no such list; the splits of this data set are: test, train" in output

    def test_anchors_larger_than_every_image(self, message):
        output = message("--anchor-scales", "64", "--chains", "faster-rcnn")
        assert re.search(
            r"TrainRPN failed: no anchor \(.*1024 x 1024, .* pixels\) fits into any scaled image \(480 x 360 at most\): "
            r"lower --anchor-scales, or raise --fast-scale$", output, re.M,
        )

    def test_missing_weights(self, message):
        output = message("--weights", "nowhere.pth")
        assert "LoadWeights failed: --weights nowhere.pth: no such file; give a file, or imagenet, or scratch" in output

    def test_imagenet_weights_without_a_connection(self, message, project):
        refusing = "http://127.0.0.1:9"  # nothing listens at the port "discard"
        output = message("--backbone", "alexnet", "--weights", "imagenet", https_proxy=refusing, HTTPS_PROXY=refusing)
        assert "LoadWeights failed: the weights of alexnet are not here and cannot be downloaded" in output
        assert re.search(r"get https://\S+/alexnet-owt-7be5be79\.pth .* put it at data/weights/alexnet-owt-7be5be79\.pth", output)
        assert list((project.folder / "data" / "weights").iterdir()) == []

    def test_no_imagenet_weights_of_our_own_backbone(self, message):
        output = message("--weights", "imagenet", status=35)
        assert "there are no ImageNet weights for backbone 'tiny'" in output

    def test_unknown_backbone(self, message):
        assert message("--backbone", "resnet", status=40).startswith("ERROR: --backbone: found 'resnet', expected one of ")


def test_pages_name_what_stages_read_and_write(project, reported):
    for made in (project, reported[0]):
        for manifest in made.manifests().values():
            check_artefact(manifest["stage"], set(manifest["files"]), {one["stage"] for one in manifest["inputs"].values()})
