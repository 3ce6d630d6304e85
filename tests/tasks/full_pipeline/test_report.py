"""The report of a whole run."""

import json
import re

import pytest

from tests.tasks.full_pipeline.runs import CLASSES, check_docs

pytestmark = pytest.mark.slow


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
        changed = page.partition("Settings that are not the default")[2].partition("<details")[0]
        assert "--max-proposals" in changed
        assert "--spp-layer" not in changed, "the run did not ask for the pyramid, as one of its stages does"
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
        assert all(negative["overlap"] < 0.3 for of_class in negatives.values() for negative in of_class)

    @pytest.mark.parametrize(("arguments", "sections"), [
        pytest.param(["--chains", "spp-net"], {"proposals"}, marks=pytest.mark.exhaustive),
        pytest.param(["--chains", "rcnn", "--layer", "fc6"], {"story", "units", "negatives"}, marks=pytest.mark.exhaustive),
        pytest.param(["--chains", "faster-rcnn", "--faster-training", "joint"], set(), marks=pytest.mark.exhaustive),
        pytest.param(
            ["--chains", "rcnn", "--box-regression", "false", "--report-image", "test00002"], {"story", "units", "negatives"},
            marks=pytest.mark.exhaustive,
        ),
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
        assert "FullPipeline failed: --report-image nowhere: no such image in split test; give one such as test00000" in output
        table = re.search(r"the report failed; the table is in (\S+)\. `--report false` makes only the table$", output, re.M)[1]
        assert "training s" in (project.folder / table).read_text()
        assert "Traceback" not in output


def test_pages_name_what_stages_read_and_write(project, reported):
    for each in (project, reported[0]):
        check_docs(each)
