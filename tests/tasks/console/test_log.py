"""Names from outside are escaped in the terminal and in the log: they can neither control the terminal nor start a line."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tables import format_table
from tasks.engine.printing import tell

REPOSITORY = Path(__file__).resolve().parents[3]
NAME = "a\x1b[31m\x1b]0;title\x07\nERROR: forged\r\x9b2J\u202e\u2028\udcff"
SHOWN = r"a\x1b[31m\x1b]0;title\x07\nERROR: forged\r\x9b2J\u202e\u2028\udcff"
NEXT = "what follows is told of the next task"
PRELUDE = f"""
import logging, sys, warnings
import luigi, tasks
from luigi.setup_logging import InterfaceLogging
from pipeline.errors import PipelineError
from tasks.engine.printing import tell

NAME = {NAME!r}

class Failing(luigi.Task):
    stage = "Failing"
    name = luigi.Parameter(default=NAME)
    where = luigi.Parameter(default="run")

    def complete(self):
        self.fail("complete")
        return False

    def requires(self):
        self.fail("requires")
        return []

    def run(self):
        self.fail("run")

    def fail(self, where):
        if self.where == where:
            raise PipelineError(f"{{self.name}}: wrong")
        if self.where == "bug in " + where:
            raise ZeroDivisionError("bug\\x1b[31m")
"""


def run(code: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", PRELUDE + code], cwd=REPOSITORY, capture_output=True, check=True)
    return done.stdout.decode(), done.stderr.decode()


def is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n")) and "\nERROR: forged" not in text


@pytest.mark.parametrize(("place", "workers"), [
    ("run", 2), ("complete", 1), ("requires", 1),
    *(pytest.param(*values, marks=pytest.mark.exhaustive) for values in (("run", 1), ("complete", 2), ("requires", 2))),
])
def test_luigis_lines_and_its_summary(place, workers):
    """With the most detailed log level, Luigi names the task in each line."""
    _, output = run(f"""
for where in {place!r}, "bug in " + {place!r}:
    luigi.build([Failing(where=where)], local_scheduler=True, workers={workers}, log_level="DEBUG")
    print({NEXT!r}, file=sys.stderr, flush=True)
""")
    of_failure, of_bug, _ = output.split(f"{NEXT}\n")
    for lines in of_failure, of_bug:
        assert is_plain(lines)
        assert SHOWN in lines  # the task's name
    assert f"Failing failed: {SHOWN}: wrong\n" in of_failure
    assert "Traceback" not in of_failure
    assert "Traceback (most recent call last):\n" in of_bug
    assert "ZeroDivisionError: bug\\x1b[31m\n" in of_bug


def test_a_stages_line_is_one_line():
    _, log = run("""
logging.getLogger("stages").info("Stage: %s", NAME)
logging.getLogger("pipeline").warning(f"Stage: {NAME}")
""")
    assert log.count("\n") == 2
    assert all(line.endswith(f" Stage: {SHOWN}") for line in log.splitlines())


def test_an_exception_in_the_log_keeps_its_lines():
    _, log = run("""
try:
    raise ValueError(NAME)
except ValueError:
    logging.getLogger("stages").exception("%s", NAME)
""")
    assert "Traceback (most recent call last):\n" in log
    assert "\x1b" not in log


def test_luigis_other_loggers():
    _, log = run("""
for logger in "luigi-interface", "luigi.scheduler", "luigi":
    logging.getLogger(logger).warning("%s: gone", NAME)
""")
    assert log.endswith("\\udcff: gone\n")
    assert log.count("\\udcff: gone\n") == 3
    assert "\x1b" not in log


def test_warnings_of_libraries():
    assert "UserWarning: a\\x1b[31m" in (log := run("warnings.warn(NAME)")[1])
    assert "\x1b" not in log


def test_what_failed_is_told_again_in_one_line():
    _, log = run("""
for error in (PipelineError(f"{NAME}: wrong"), ZeroDivisionError(NAME)):
    try:
        raise error
    except Exception:
        logging.getLogger("luigi-interface").exception("%s", "Stage" + type(error).__name__[:1])
logging.getLogger("stages").info("done")
""")
    repeated = log.partition("done\n\n")[2].splitlines()
    assert repeated[1] == f"  StageP: {SHOWN}: wrong"
    assert repeated[2].startswith("  StageZ: ZeroDivisionError: a\\x1b[31m")
    assert len(repeated) == 3


def test_what_a_command_prints(capsys):
    tell(f"\n{NAME}\nb")
    printed = capsys.readouterr().out
    assert printed.startswith("\na\\x1b[31m")
    assert printed.endswith("\\udcff\nb\n")
    assert "\x1b" not in printed


def test_rows_of_a_table_stay_lines():
    table = format_table(["class", "AP\x1b"], [[NAME, 1.0], ["cat", None]], footer=1)
    assert table.split("\n") == [
        "class" + " " * (len(SHOWN) - 5) + "  AP\\x1b", "-" * (len(SHOWN) + 8), f"{SHOWN}     1.0", "-" * (len(SHOWN) + 8),
        "cat" + " " * (len(SHOWN) - 3) + "       -",
    ]


@pytest.mark.parametrize("arguments", [["Tr\x1b[31mainSVMs"], ["TrainSVMs", "--svm-\x1b[31mc", "1"]])
def test_the_command_line(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "luigi", "--module", "tasks", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert r"\x1b[31m" in done.stderr
    assert "\x1b" not in done.stderr
