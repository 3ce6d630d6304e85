"""A failure is repeated at the end of a command if other lines came after it."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PRELUDE = """
import logging, multiprocessing, sys, unittest.mock
for name in "torch", "numba", "numba.core", "numba.core.registry":  # a command imports them between forks: two seconds
    sys.modules[name] = unittest.mock.MagicMock()
import tasks
from pipeline.errors import PipelineError

def fail(stage, error):
    try:
        raise error
    except Exception:
        logging.getLogger("luigi-interface").exception("%s", stage)  # as Luigi does

def fail_in_a_worker(*arguments):
    worker = multiprocessing.get_context("fork").Process(target=fail, args=arguments)
    worker.start()
    worker.join()

go_on = logging.getLogger("stages").info
"""
HEADING = "stages failed (see above); once this is mended, the same command continues from there:"


def printed(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stderr


def test_failures_of_workers_come_last_with_the_first_line_of_each():
    code = """
fail_in_a_worker("TrainRPN", PipelineError("a: found b", "expected c"))
fail_in_a_worker("TrainRPN", PipelineError("a: found b", "expected c"))
fail("TrainSVMs", ZeroDivisionError("a bug"))
go_on("Evaluate: done")
"""
    ending = f"Evaluate: done\n\n2 {HEADING}\n  TrainRPN: a: found b\n  TrainSVMs: ZeroDivisionError: a bug\n"
    assert printed(code).endswith(ending)


def test_the_first_of_several_problems_is_repeated_with_their_number():
    code = """
from pipeline.errors import DatasetError
fail("IndexDataset", DatasetError("split 'train'", ["a.xml: no box", "b.xml: no name"]))
go_on("Evaluate: done")
"""
    assert "\nfailed (see above): IndexDataset: split 'train': 2 problem(s): a.xml: no box; once" in printed(code)


def test_one_that_is_in_sight_is_not_repeated():
    assert printed("go_on('running'); fail('TrainRPN', PipelineError('a: found b'))").count("found b") == 1


def test_nothing_is_said_without_failures():
    assert "failed" not in printed("go_on('TrainRPN: done')")


def test_a_thousand_long_ones_are_cut_short_and_block_nothing():
    output = printed("for i in range(1000): fail('TrainRPN', PipelineError(f'{i:04}' * 5000))\ngo_on('done')")
    last = output.partition("done\n\n")[2]
    assert last.count("\n") > 100
    assert max(map(len, last.splitlines())) < 600


FULL = """
from tasks.engine.errors import StorageError
for number in range(3):
    fail_in_a_worker(f"Stage{number}", StorageError(f"cache/{number}: cannot be written: No space left; free some"))
"""


def test_several_of_one_kind_are_told_once():
    lines = [line for line in printed(FULL).splitlines() if "cannot be written" in line or "stages" in line]
    assert lines == ["Stage0 failed: cache/0: cannot be written: No space left; free some"]


@pytest.mark.exhaustive
def test_several_of_one_kind_are_one_line_at_the_end_when_others_came_after():
    line = "Stage0: cache/0: cannot be written: No space left; free some (and 2 more like this)"
    ending = f"done\n\nfailed (see above): {line}; once this is mended, the same command continues from there\n"
    assert printed(FULL + "go_on('done')").endswith(ending)
