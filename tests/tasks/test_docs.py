"""README and docs are true.

    python -m tests.tasks.test_docs --write    writes the tables of settings in docs/stages, and docs/settings.md
"""

import hashlib
import re
import sys
from collections import defaultdict
from pathlib import Path

import luigi
import pytest

import rcnn
import tasks
from tasks.engine.task import CachedTask, all_stages
from tasks.report.setting_sources import SOURCES, source_of

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = REPOSITORY / "docs" / "stages"
FRONT = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCS = [*FRONT, *sorted((REPOSITORY / "docs").rglob("*.md"))]
STAGES = {stage.stage: stage for stage in all_stages() if stage.__module__.startswith("tasks.")}
HEADING = "## Settings\n\n"
# Options of Luigi, luigid, Dask, Slurm, rcnn, rcnn-cache, rcnn-data, pip, docker and the scripts in tests.
OF_OTHERS = {
    "--module", "--workers", "--help", "--assistant", "--address", "--dry-run", "--keep", "--yes", "--index-url", "--write",
    "--record", "--to", "--link", "--only", "--without", "--splits", "--output", "--json", "--start", "--photographs",
    "--experiment", "--no-deps", "--rm", "--user", "--backend-store-uri", "--gigabytes",
    "--port", "--nworkers", "--nthreads", "--memory-limit", "--resources", "--array", "--cpus-per-task", "--locks", "--jobqueue",
    "--recompute",
}
NOT_GIVEN = ("shard", "finished")  # the program gives them: a stage to its own shards, a sweep to the one without failed rows
# Phrases that have to be read twice, in place of "an unknown stage", "the user's own folder", "is used instead", "makes x do y".
RIDDLES = (r"that\s+there\s+is\s+none\s+of", r"of\s+one's\s+own", r"goes\s+before", r"Has [a-z]+ .* (be|speak|see|keep)")
SETTINGS_PAGE = REPOSITORY / "docs" / "settings.md"
# The sections of an experiment file, in the order of the page.
SECTIONS = {
    "run": "The whole run", "dataset": "Data set", "digits": "The embedded data set", "proposals": "Region proposals",
    "network": "Network", "training": "Training: going on, validation, warm-up",
    "pretrain": "First weights from nothing", "finetune": "R-CNN: fine-tuning",
    "features": "R-CNN: features",
    "svm": "R-CNN and SPP-net: SVMs", "boxes": "R-CNN and SPP-net: box regression", "maps": "Maps of the conv layers",
    "spp": "SPP-net", "fast": "Fast R-CNN", "rpn": "Faster R-CNN: proposal network", "faster": "Faster R-CNN: four steps",
    "joint": "Faster R-CNN and R-FCN: joint training", "rfcn": "R-FCN", "windows": "Sliding windows",
    "detector": "SSD, RetinaNet, Mask R-CNN and torchvision's detectors",
    "localisation": "Classification + localisation", "pose": "Pose by regression",
    "segmentation": "Semantic segmentation", "detect": "Detection",
    "evaluate": "Evaluation", "report": "Report", "sweep": "Sweeps",
}
SETTINGS_INTRODUCTION = """# All settings

Written by `python -m tests.tasks.test_docs --write` from the code. Do not edit it by hand.

Give a setting on the command line (`--svm-c 0.01`), or under its section in an
[experiment file](voc-and-experiments.md#experiment-files):

```ini
[svm]
c = 0.01
```

Settings marked \u2020 say where and how to compute, not what. They are in no [key](cache.md#the-key): another value makes
nothing again.
"""


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


def settings_page() -> str:
    """`docs/settings.md`: of each section of experiment files a table of its settings."""
    settings: dict[str, dict[str, luigi.Parameter]] = defaultdict(dict)
    for _, parameter in (pair for stage in STAGES.values() for pair in stage.get_params()):
        if place := parameter.place:
            settings[place["section"]][place["name"]] = parameter
    assert set(settings) == set(SECTIONS), "give each section of settings a title in SECTIONS"
    parts = [SETTINGS_INTRODUCTION]
    for section, title in SECTIONS.items():
        rows = [settings_row(name, parameter) for name, parameter in sorted(settings[section].items())]
        table = ["| option | in a file | default | what it does | source of the default |", "|-|-|-|-|-|", *rows]
        parts.append(f"## {title}: `[{section}]`\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def settings_row(name: str, parameter: luigi.Parameter) -> str:
    mark = "" if parameter.significant else " \u2020"
    attribute = parameter._attribute_name
    cells = f"`{parameter.option}`{mark}", f"`{name}`", f"`{parameter.default_text}`", parameter.description, source_of(attribute)
    return f"| {' | '.join(cells).replace('``', '')} |"


def part(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_stage_has_a_page_with_its_settings(name):
    text = (PAGES / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert text.split(HEADING)[1] == settings_table(STAGES[name]), "python -m tests.tasks.test_docs --write"


def test_the_page_of_all_settings_is_up_to_date():
    assert SETTINGS_PAGE.read_text() == settings_page(), "python -m tests.tasks.test_docs --write"


def test_the_example_of_a_key_is_the_text_that_is_hashed():
    page = (REPOSITORY / "docs" / "cache.md").read_text()
    text, key = re.search(r"```json\n(.+?)\n```.*?```\n([0-9a-f]{64})\n```", page, re.S).groups()
    assert hashlib.sha256(text.encode()).hexdigest() == key == tasks.GenerateDigits().key


def test_readme_is_short_and_names_every_guide():
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert {path.name for path in (REPOSITORY / "docs").glob("*.md")} <= set(re.findall(r"docs/([\w-]+\.md)", text))


def test_there_is_no_other_page_and_no_source_of_a_setting_that_is_gone():
    assert {path.stem for path in PAGES.glob("*")} == set(STAGES)
    assert set(SOURCES) <= {name for stage in STAGES.values() for name in stage.own_parameters}


def riddles(text: str) -> list[str]:
    """The phrases of `text` that readers have to read twice."""
    return [match[0] for pattern in RIDDLES for match in re.finditer(pattern, text)]


def test_no_text_is_a_riddle():
    assert len(riddles("a stage that there is\nnone of; a folder of one's own goes before; Has it all be printable")) == 4
    assert riddles("an unknown stage; the user's own folder is used instead; makes it all printable") == []
    folders = [REPOSITORY / name for name in ("pipeline", "tasks", "docs")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md", ".html")]
    assert len(paths) > 150
    assert {path: phrases for path in [*paths, REPOSITORY / "README.md"] if (phrases := riddles(path.read_text()))} == {}


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


def commands(text: str) -> list[str]:
    """The commands after `luigi --module tasks` in a page's blocks of code, without placeholders such as SETTINGS."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", "").splitlines()
    texts = [line.partition("luigi --module tasks ")[2].partition(" #")[0] for line in lines]
    texts = [re.sub(r"\$\w+", "0", command) for command in texts]  # a variable of Slurm is a number
    return [re.sub(r"(--\S+ )?\b(SETTINGS|SPLIT|MODE)\b", "", command) for command in texts if command]


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.stem)
def test_commands_can_be_given(page, task_of):
    for command in commands(page.read_text()):
        words = [word for word in command.split() if word not in ("--help", "--assistant")]
        task_of(" ".join(["luigi", "--module", "tasks", *words]))


def test_short_commands_exist():
    text = "\n".join(page.read_text() for page in DOCS)
    commands, stages = zip(*re.findall(r"(?:^|`)rcnn ([a-z]+)(?: ([A-Z][a-z]\w+))?", text, re.MULTILINE))
    assert {"run", "detect", "stage", "cache"} <= set(commands) <= rcnn.COMMANDS.keys()
    assert set(stages) - {""} <= STAGES.keys()


def test_settings_of_the_published_rows_can_be_given(task_of):
    stage, checked = "", set()
    for line in (REPOSITORY / "docs" / "reproduce.md").read_text().splitlines():
        if command := re.search(r"tasks (\w+) .*SETTINGS|SETTINGS of `(\w+)`", line):
            stage = command[1] or command[2]
        elif row := re.search(r"^\|.*\| `(--[^`]+)`", line):
            task_of(f"luigi --module tasks {stage} {row[1]}")
            checked.add((stage, row[1]))
    assert len(checked) > 12
    assert {stage for stage, _ in checked} == {"Evaluate", "FullPipeline"}


def check_artefact(stage: str, files: set[str], inputs: set[str]) -> None:
    """Checks that the page of `stage` names these files and inputs of its artefact."""
    text = (PAGES / f"{stage}.md").read_text()
    written, read = part(text, "Writes"), part(text, "Reads")
    for file in files:
        top, *below = file.split("/")
        assert f"`{top}/" in written if below else f"`{top}`" in written, f"{stage} writes {file}"
    for source in inputs - {stage}:
        assert f"`{source}`" in read, f"{stage} reads {source}"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    for page in PAGES.glob("*.md"):
        page.write_text(page.read_text().split(HEADING)[0] + HEADING + settings_table(STAGES[page.stem]))
    SETTINGS_PAGE.write_text(settings_page())
