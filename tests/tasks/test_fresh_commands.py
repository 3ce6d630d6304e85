"""Most tests run forks of one process (fork_server.py). Here fresh commands are compared with forks: both do the same."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# The command imports it as its module of stages, before ours: it prints the state of the process at that time.
PROBE = """
import json, multiprocessing, os, signal, sys, tempfile, threading
main = sys.modules["__main__"]
print(json.dumps({
    "arguments": sys.argv, "search": sys.path, "folder": os.getcwd(), "variables": dict(os.environ),
    "temporary": tempfile.tempdir, "leads session": os.getsid(0) == os.getpid(), "threads": threading.active_count(),
    "signals": {number: str(signal.getsignal(number)).split(" at ")[0] for number in signal.valid_signals()},
    "main": [main.__name__, main.__spec__.name, main.__file__], "parent": str(multiprocessing.parent_process()),
    "files": sorted(os.listdir("/proc/self/fd")), "input": os.read(0, 1).decode(),
    "modules": sorted(name for name in sys.modules if name.partition(".")[0] in ("luigi", "tasks", "pipeline", "tests")),
    "streams": [[stream.fileno(), stream.encoding, stream.line_buffering] for stream in (sys.stdout, sys.stderr)],
    "mask": os.umask(0o22), "priority": os.nice(0),
}))
raise SystemExit(7)
"""


@pytest.fixture
def twin(project, tmp_path_factory):
    """Another project like `project`."""
    return type(project)(tmp_path_factory.mktemp("other"))


def comparable(output: str, project) -> str:
    """What was printed, without what differs from run to run."""
    output = re.sub(r"\d\d:\d\d:\d\d", "HH:MM:SS", output.replace(str(project.folder), "FOLDER"))
    return re.sub(r"\b\d+\.\d+\b", "NUMBER", output)


def test_a_fork_is_what_a_fresh_command_is(project):
    (project.folder / "probe.py").write_text(PROBE)
    project.module = "probe"
    fork, fresh = (json.loads(project.run("Probe", status=7, fresh=fresh)) for fresh in (False, True))
    assert fork == fresh


def test_ignored_signals_stay_ignored(project):
    (project.folder / "probe.py").write_text(PROBE)
    project.module = "probe"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        fork, fresh = (json.loads(project.run("Probe", status=7, fresh=fresh))["signals"] for fresh in (False, True))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert fork == fresh
    assert fork[str(int(signal.SIGHUP))] == str(signal.SIG_IGN)


@pytest.mark.parametrize(("arguments", "options", "status"), [
    (["SumNumbers"], {"moods": {"RaiseNumbers": "user error"}}, 30),
    *(pytest.param(*values, marks=pytest.mark.exhaustive) for values in (
        (["SumNumbers"], {}, 0), (["SumNumbers", "--pwer", "3"], {}, 2),
        (["SumNumbers", "--workers", "2"], {}, 0), (["SumNumbers", "--power", "11"], {}, 40), (["SumNumber"], {}, 2),
        (["SumNumbers"], {"LUIGI_CONFIG_PATH": "nowhere.cfg"}, 1), (["SumNumbers", "--help"], {}, 0),
    )),
], ids=["failure", "stages", "unknown option", "workers", "bad value", "unknown stage", "no experiment file", "help"])
def test_a_fork_does_what_a_fresh_command_does(project, twin, arguments, options, status):
    outputs = [comparable(each.run(*arguments, status=status, fresh=fresh, **options), each)
               for each, fresh in ((project, False), (twin, True))]
    assert sorted(outputs[0].splitlines()) == sorted(outputs[1].splitlines())  # two workers take turns as they like
    assert project.digests() == twin.digests()
    assert project.leftovers() == twin.leftovers()


def test_a_fresh_command_that_is_killed_goes_on(project):
    project.kill_when_hanging(project.start("SumNumbers", moods={"SumNumbers": "hang"}, fresh=True))
    project.run("SumNumbers", fresh=True)
    assert project.lines("resumed") == ["SumNumbers"]
    assert project.leftovers() == []


def test_the_installed_command(project):
    script = Path(sys.executable).with_name("luigi")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])}
    command = [script, "--module", "trivial_stages", "SumNumbers"]
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [manifest["figures"]["sum"] for manifest in project.manifests().values() if manifest["stage"] == "SumNumbers"] == [385]
