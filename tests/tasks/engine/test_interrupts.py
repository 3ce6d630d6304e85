"""Signals that end a command, at its start, in its imports and in its stages; and workers that the system kills.

Each command is a real one, on the trivial stages. Modules in the project's folder are found before the real ones: empty ones
replace the large ones, and one that hangs replaces the one in whose import the signal shall come.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.sessions import session

LINE = "stopped; the same command goes on from here"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SECONDS = 3.0  # in which a command and all its processes have to be gone
HANG = "import os, time\nfrom trivial_stages import note\nnote('hanging', 'import', os.getpid())\ntime.sleep(60)\n"
FIRST_HANG = "import os, time\nwith open('log', 'a') as file:\n    file.write('hanging import\\n')\ntime.sleep(60)\n"
CHATTER = "import os\nfrom trivial_stages import note\nnote('chatter')\nwhile True:\n    os.write(2, b'chatter\\n')\n"
FORK = """
import contextlib, os
from trivial_stages import note
threadpool_limits = contextlib.nullcontext
process = os.fork()
if not process:
    os._exit(7)
note("fork ended", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""
COMMAND = ("SumNumbers",)
REGISTRY = "from unittest.mock import MagicMock\ncpu_target = MagicMock()\n"
NUMBA = "def njit(*functions, **options):\n    return functions[0] if functions else lambda function: function\n"
# What a command of several workers imports between its forks. The real ones take seconds, and the trivial stages need none.
LIGHT_MODULES = {
    "torch/__init__.py": "", "numba/__init__.py": NUMBA, "numba/core/__init__.py": "",
    "numba/core/registry.py": REGISTRY, "h5py.py": "",
}


def write_module(project, name: str, text: str) -> None:
    path = project.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(autouse=True)
def light_modules(project):
    project.fresh = True  # the point is what happens in imports
    for name, text in LIGHT_MODULES.items():
        write_module(project, name, text)


@pytest.fixture(autouse=True)
def started(project, monkeypatch):
    """Ends what a failed test leaves behind."""
    processes, start = [], project.start

    def remember(*arguments, **options):
        processes.append(start(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(project, "start", remember)
    yield processes
    for process in processes:
        for member in session(process.pid):
            member.kill()
        process.communicate(timeout=10)


def send(process, number: signal.Signals) -> None:
    """Ctrl-C reaches all processes of the terminal; `kill` reaches the command alone."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


def stop(process, number: signal.Signals) -> str:
    """Sends the signal, checks how the command ends and returns what it printed."""
    begun = time.monotonic()
    send(process, number)
    output = process.communicate(timeout=20)[0]
    while session(process.pid) and time.monotonic() < begun + SECONDS:
        time.sleep(0.02)
    assert session(process.pid) == []
    assert time.monotonic() - begun < SECONDS, output
    assert process.returncode == STATUS[number], output
    assert output.splitlines()[-1] == LINE
    assert output.count(LINE) == 1
    assert "Traceback" not in output
    return output


def wait_for_hanging(project, process, count: int = 1) -> list[int]:
    """Waits until `count` places hang; returns the ids of their processes."""
    project.wait_until(lambda: len(project.lines("hanging")) >= count, process)
    return [int(line.split()[-1]) for line in project.lines("hanging")]


def assert_goes_on(project, *arguments: str) -> None:
    project.run(*arguments)
    assert [manifest["figures"]["sum"] for manifest in project.manifests().values() if manifest["stage"] == "SumNumbers"] == [385]
    assert project.leftovers() == []


# All three signals are handled alike. The fast tier mostly tests Ctrl-C, and SIGTERM and SIGHUP in one test each.
others = [pytest.param(number, marks=pytest.mark.exhaustive) for number in STATUS if number != signal.SIGINT]
first_signal = pytest.mark.parametrize("number", [signal.SIGINT, *others], ids=lambda number: number.name)


class TestStop:
    @first_signal
    @pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.exhaustive), "2"])
    def test_while_a_stage_hangs(self, project, workers, number):
        command = (*COMMAND, "--workers", workers)
        process = project.start(*command, moods={"RaiseNumbers": "hang"})
        wait_for_hanging(project, process, int(workers))
        output = stop(process, number)
        assert "ListNumbers" in output
        assert "failed" not in output
        assert_goes_on(project, *command)

    @first_signal
    def test_while_the_stages_are_imported(self, project, number):
        write_module(project, "sqlite3.py", FIRST_HANG)  # `tasks.engine.digests` imports it
        process = project.start(*COMMAND)
        project.wait_until(lambda: project.lines("hanging"), process)
        assert stop(process, number) == f"{LINE}\n"
        (project.folder / "sqlite3.py").unlink()
        assert_goes_on(project, *COMMAND)

    @pytest.mark.parametrize("place", [pytest.param("keys", marks=pytest.mark.exhaustive), "show"])
    def test_before_and_after_all_stages(self, project, place):
        process = project.start("SumNumbers", moods={place: "hang"})
        wait_for_hanging(project, process)
        stop(process, signal.SIGTERM)
        assert_goes_on(project, "SumNumbers")

    def test_soon_after_the_first_line(self, project):
        process = project.start(*COMMAND, "--workers", "2", moods=dict.fromkeys(("ListNumbers", "RaiseNumbers"), "slow"))
        first = process.stdout.readline()
        assert "ListNumbers" in first
        stop(process, signal.SIGINT)
        assert_goes_on(project, *COMMAND, "--workers", "2")

    def test_impatience(self, project):
        process = project.start(*COMMAND, "--workers", "2", moods={"RaiseNumbers": "hang"})
        wait_for_hanging(project, process)
        for _ in range(3):
            send(process, signal.SIGINT)
        stop(process, signal.SIGINT)


class TestInHooksOfForks:
    """Python prints what is raised in them, and drops it. They import for those forks that come later."""

    @first_signal
    def test_import_after_a_fork(self, project, number):
        write_module(project, "h5py.py", HANG)
        process = project.start(*COMMAND, "--workers", "2")
        assert process.pid in wait_for_hanging(project, process)
        stop(process, number)

    def test_fork_that_is_not_known_yet_prints_nothing_after_the_line(self, project):
        write_module(project, "h5py.py", HANG)
        write_module(project, "threadpoolctl.py", CHATTER)  # a stage imports it
        process = project.start(*COMMAND, "--workers", "2")
        project.wait_until(lambda: len(project.lines("hanging")) == 1 and project.lines("chatter"), process)
        assert "chatter" in stop(process, signal.SIGTERM)

    @first_signal
    def test_fork_that_waits_for_imports(self, project, number):
        write_module(project, "torch/__init__.py", HANG)
        process = project.start(*COMMAND, "--workers", "2")
        assert wait_for_hanging(project, process) == [process.pid]
        stop(process, number)


def test_fork_of_a_worker_lives(project):
    write_module(project, "threadpoolctl.py", FORK)
    project.run("ListNumbers", "--workers", "2")
    assert project.lines("fork ended") == ["7"]


@contextlib.contextmanager
def ignored(number: signal.Signals):
    """What is started here ignores the signal, as with `nohup`."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


class TestIgnoredFromTheStart:
    @pytest.mark.parametrize(("workers", "number"), [
        *(pytest.param(workers, signal.SIGINT, marks=pytest.mark.exhaustive) for workers in "12"), ("2", signal.SIGHUP),
    ])
    def test_stays_ignored(self, project, workers, number):
        with ignored(number):
            process = project.start(*COMMAND, "--workers", workers, moods={"ListNumbers": "slow"})
        project.wait_until(lambda: project.lines("built"), process)
        os.killpg(process.pid, number)
        output = process.communicate(timeout=20)[0]
        assert process.returncode == 0, output
        assert LINE not in output

    def test_others_are_answered(self, project):
        with ignored(signal.SIGHUP):
            process = project.start(*COMMAND, moods={"SumNumbers": "hang"})
        wait_for_hanging(project, process)
        os.killpg(process.pid, signal.SIGHUP)
        stop(process, signal.SIGTERM)


class TestKilledWorker:
    def test_is_told_in_a_line(self, project):
        process = project.start(*COMMAND, "--workers", "2", moods={"SumNumbers": "hang"})
        os.kill(wait_for_hanging(project, process)[0], signal.SIGKILL)
        output = process.communicate(timeout=20)[0]
        assert process.returncode == 30, output
        (line,) = [line for line in output.splitlines() if "SIGKILL" in line]
        assert re.search(r"SumNumbers failed: .*SIGKILL, most likely by the system because memory ran out: .*--workers 1", line)
        assert "Traceback" not in output
        assert "failed (see above)" not in output  # the line comes last anyway
        assert output.splitlines()[-1] == line
        assert_goes_on(project, *COMMAND, "--workers", "2")

    @pytest.mark.exhaustive
    def test_is_told_again_when_other_lines_came_after_it(self, project):
        process = project.start(*COMMAND, "--workers", "2", moods={"RaiseNumbers": "slow"})
        project.wait_until(lambda: len(project.lines("built RaiseNumbers")) >= 2, process)
        psutil.Process(process.pid).children()[0].kill()  # two of three shards are under way
        output = process.communicate(timeout=20)[0]
        assert process.returncode == 30, output
        assert output.count("SIGKILL") == 2, output
        assert "\nfailed (see above): " in output
        assert "SIGKILL" in output.splitlines()[-1]
        assert "Traceback" not in output

    @pytest.mark.exhaustive
    def test_other_signals_are_named(self, project):
        process = project.start(*COMMAND, "--workers", "2", moods={"SumNumbers": "hang"})
        os.kill(wait_for_hanging(project, process)[0], signal.SIGSEGV)
        output = process.communicate(timeout=20)[0]
        assert process.returncode == 30, output
        assert "SumNumbers failed: its process was ended by SIGSEGV: " in output
        assert "most likely" not in output


@pytest.mark.parametrize("first", ["", "import luigi; ", "import luigi.interface; "])
def test_a_program_that_imports_the_stages_keeps_its_handlers(first):
    state = "[signal.set_wakeup_fd(-1), *map(signal.getsignal, (2, 15, 1)), threading.active_count()]"
    code = f"import signal, threading; before = {state}; {first}import tasks; assert {state} == before, {state}"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
