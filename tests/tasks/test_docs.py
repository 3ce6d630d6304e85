"""README and docs say what is so. `python -m tests.tasks.test_docs --write` writes the tables of settings in `docs/stages`."""

import re
import sys
from pathlib import Path

import pytest

from tasks.engine.task import CachedTask, all_stages
from tasks.report.setting_sources import SOURCES, source_of

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = REPOSITORY / "docs" / "stages"
DOCS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
STAGES = {stage.stage: stage for stage in all_stages() if stage.__module__.startswith("tasks.")}
HEADING = "## Settings\n\n"
OF_OTHERS = {"--module", "--workers", "--help", "--dry-run", "--keep", "--assistant", "--address"}  # others' options
NOT_GIVEN = ("shard",)  # a stage gives it to its own shards


def settings_table(stage: type[CachedTask]) -> str:
    """The stage's own settings; those of the stages that it reads are on their pages."""
    names = [name for name in stage.own_parameters if name not in NOT_GIVEN]
    if not names:
        return "None of its own.\n"
    rows = ["| setting | default | | source of the default |", "|-|-|-|-|"]
    for name in names:
        parameter = getattr(stage, name)
        cells = f"`{parameter.option}`", f"`{parameter.default_text}`", parameter.description, source_of(name)
        rows.append(f"| {' | '.join(cells).replace('``', '')} |")
    return "\n".join(rows) + "\n"


def part(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_stage_has_a_page_with_its_settings(name):
    text = (PAGES / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert text.split(HEADING)[1] == settings_table(STAGES[name]), "python -m tests.tasks.test_docs --write"


def test_there_is_no_other_page_and_no_source_of_a_setting_that_is_gone():
    assert {path.stem for path in PAGES.glob("*")} == set(STAGES)
    assert set(SOURCES) <= {name for stage in STAGES.values() for name in stage.own_parameters}


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in headings(target.read_text()), link


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.stem)
def test_settings_exist(page):
    known = {parameter.option for stage in STAGES.values() for _, parameter in stage.get_params()}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text())) <= known | OF_OTHERS


def check_artefact(stage: str, files: set[str], inputs: set[str]) -> None:
    """That the page of `stage` names all that one of its artefacts holds and was made from."""
    text = (PAGES / f"{stage}.md").read_text()
    written, read = part(text, "Writes"), part(text, "Reads")
    for file in files:
        top, *below = file.split("/")
        assert f"`{top}/" in written if below else f"`{top}`" in written, f"{stage} writes {file}"
    for other in inputs - {stage}:
        assert f"`{other}`" in read, f"{stage} reads {other}"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    for page in PAGES.glob("*.md"):
        page.write_text(page.read_text().split(HEADING)[0] + HEADING + settings_table(STAGES[page.stem]))
