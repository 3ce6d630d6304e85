"""`rcnn-cache` on the cache of a whole run."""

import ast
import re
from pathlib import Path

import pytest

from pipeline.rcnn.svm import LinearSVMs
from tasks.cache_cli.show import description, files
from tasks.engine.artefacts import Artefact
from tasks.engine.catalogue import Catalogue
from tasks.features.stores import open_features
from tasks.file_checks import read_arrays
from tests.tasks.full_pipeline.runs import COLD, REPOSITORY, cache_tool, printed

pytestmark = pytest.mark.slow


class TestCacheTool:
    def test_ls(self, copy):
        *lines, common = cache_tool(copy, "ls").splitlines()
        listed = [re.match(r"(\w+) +([0-9a-f]{12}) +\d+ \w+ +[\d.]+ \w+ .* latest ", line + " ") for line in lines[1:]]
        whole = {name for name, manifest in copy.manifests().items() if manifest["settings"].get("shard", "-1") == "-1"}
        assert {"/".join(line.groups()) for line in listed} == whole
        assert " max_proposals=60 " in common

    def test_show_of_every_artefact(self, copy, task_of, monkeypatch):
        """All of it can be read, and its command gives the same key, even without the project's settings."""
        monkeypatch.chdir(copy.folder)
        catalogue = Catalogue(Path("cache"))
        for entry in catalogue.entries.values():
            lines = [*description(catalogue, entry), *files(catalogue, entry)]
            assert not re.search("cannot be|another key|not belong|no longer", "\n".join(lines))
            is_pooled = entry.stage == "SpatialPyramidFeatures" and "maps" in entry.sources
            assert any("in no file: pooled from ConvFeatures/" in line for line in lines) == is_pooled
            (command,) = [line.removeprefix("again      ") for line in lines if line.startswith("again ")]
            assert task_of(command).key == entry.key
        assert len(catalogue.entries) == sum(COLD.values())

    def test_recipe_of_the_docs_finds_what_an_svm_is_most_wrong_about(self, copy):
        page = REPOSITORY / "docs" / "feature-store-and-recipes.md"
        recipes = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
        (recipe,) = [code for code in recipes if "worst" in code]
        listed = printed(copy, "-c", recipe.replace('"cat"', '"three"')).splitlines()
        mistakes = [ast.literal_eval(line) for line in listed]

        sources = [entry.manifest["inputs"] for entry in Catalogue(copy.cache).entries.values()
                   if entry.stage == "DetectRCNN" and not entry.is_shard]
        (inputs,) = [inputs for inputs in sources if inputs["features"]["stage"] == "ExtractFeatures"]  # the other is SPP-net's
        models, features = (Artefact(copy.cache, inputs[part]["stage"], inputs[part]["key"]) for part in ("svms", "features"))
        svms, store = LinearSVMs.from_arrays(read_arrays(models, "svms.npz")), open_features(features)
        three, wrong = svms.classes.index("three"), {}
        for image, rows in zip(store.image_ids, store, strict=True):
            scores = svms.score(rows.features)[:, three]
            for score, box, overlap, label in zip(scores, rows.boxes, rows.overlaps[:, three], rows.gt_labels, strict=True):
                if label == three or overlap < 0.3:
                    wrong[image, tuple(box.tolist())] = -score if label == three else score
        margins = [margin for margin, _, _ in mistakes]
        assert margins == pytest.approx(sorted(wrong.values(), reverse=True)[:10], abs=1e-5)
        assert margins == pytest.approx([wrong[image, tuple(box)] for _, image, box in mistakes], abs=1e-5)

    def test_verify(self, copy):
        assert cache_tool(copy, "verify") == f"{sum(COLD.values())} artefacts checked, 0 faults\n"
        damaged = next(copy.cache.glob("TrainSVMs/*/svms.npz"))
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.unlink()  # it is a hard link to the file of the first run
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
