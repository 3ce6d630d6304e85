"""The list of files in docs/architecture.md is that of the code.

    python -m tests.tasks.test_architecture_page --write    writes it
"""

import ast
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "architecture.md"
HEADING = "## Files\n\n"
FLOORS = {"pipeline": "The algorithms", "tasks": "The stages and the engine"}


def files_part() -> str:
    """A table per folder: each file with the first sentence of its docstring."""
    parts = []
    for floor, title in FLOORS.items():
        parts.append(f"### `{floor}/`: {title[0].lower()}{title[1:]}\n")
        paths = [path for path in (REPOSITORY / floor).rglob("*.py") if path.read_text().strip()]
        for folder in sorted({path.parent for path in paths}, key=lambda path: path.relative_to(REPOSITORY).parts):
            rows = [f"| `{path.name}` | {first_sentence(path)} |" for path in sorted(paths) if path.parent == folder]
            parts.append(f"| `{folder.relative_to(REPOSITORY)}/` | |\n|-|-|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, f"{path}: has no docstring"
    return text.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|").strip()


def test_lists_every_file():
    assert PAGE.read_text().split(HEADING)[1] == files_part(), "python -m tests.tasks.test_architecture_page --write"


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], "usage: python -m tests.tasks.test_architecture_page --write"
    before = PAGE.read_text().split(HEADING)[0]
    PAGE.write_text(before + HEADING + files_part())
