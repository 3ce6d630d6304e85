"""The long trial of `--engine`: whole runs of trivial or of all real stages, while workers, the scheduler or the command die.

    python -m tests.trials.executor [--kills 50] [--scheduler 3] [--command 3] [--namespaces 1] [--miniature] [--seed 0]

`--kills` kills workers of `--engine dask` at random moments, in as many runs as it takes. `--scheduler` and `--command` kill that
once a run, and give the same command again. `--namespaces` needs root: three workers, each in a network namespace and with a host
name of its own. Every run has to end well with the digests of a plain run. At most one stage may be made twice for each kill, and
nothing that was finished. The exit status is 1 when anything was wrong.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.tasks.conftest import Miniature, Project
from tests.tasks.hosts import free_port

NUMBERS = 60  # shards of the trivial stage, half a second each
TIMED = "Summarise/"  # holds seconds, and so differs from run to run
BRIDGE, NETWORK = "rcnn-trial", "10.77.0"
SLOW = {"RaiseNumbers": "slow"}


def new_project(miniature: bool) -> Project:
    project = (Miniature if miniature else Project)(Path(tempfile.mkdtemp(prefix="rcnn-trial-")))
    if not miniature:
        project.numbers.write_text("\n".join(map(str, range(NUMBERS))))
        project.config.write_text(project.config.read_text().replace("shard_size = 4", "shard_size = 1"))
    return project


def stage_of(project: Project) -> str:
    return "FullPipeline" if isinstance(project, Miniature) else "SumNumbers"


def start(project: Project, engine: str):
    return project.start(stage_of(project), "--engine", engine, "--workers", "3", "--latency", "5", moods=SLOW, fresh=True)


def digests(project: Project) -> dict[str, str]:
    return {name: digest for name, digest in project.digests().items() if not name.startswith(TIMED)}


def finished(project: Project) -> dict[str, float]:
    """When each artefact in the cache was started."""
    return {name: manifest["started"] for name, manifest in project.manifests().items()}


def workers_below(process: int) -> list[psutil.Process]:
    """Dask's workers among the processes that `process` started, directly or not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(process).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    return []


def faults_of(project: Project, wanted: dict[str, str], status: int, output: str, kills: int) -> list[str]:
    faults = [f"status {status}: {output[-2000:]}"] if status else []
    actual = digests(project)
    if others := [name for name in wanted if actual.get(name) != wanted[name]]:
        faults.append(f"{len(others)} have another digest, or are not there: {', '.join(others[:3])}")
    built = Counter(project.lines("built"))
    if (again := sum(built.values()) - len(built)) > kills:
        faults.append(f"{again} stages were made again after {kills} kills: {[name for name in built if built[name] > 1]}")
    return faults


def kill_workers(project: Project, wanted: dict, limit: int) -> tuple[int, list[str]]:
    """One run by `--engine dask` whose workers are killed at random moments, at most `limit` times."""
    command, kills = start(project, "dask"), 0
    while command.poll() is None:
        time.sleep(random.uniform(0.5, 6))
        if kills < limit and project.lines("built") and (workers := workers_below(command.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                random.choice(workers).kill()
                kills += 1
    output = command.communicate()[0]
    return kills, faults_of(project, wanted, command.returncode, output, kills)


class Cluster:
    """A Dask scheduler and three workers, in network namespaces of their own if `apart`."""

    def __init__(self, project: Project, apart: bool = False):
        self.project, self.apart, self.port = project, apart, free_port()
        self.host = f"{NETWORK}.1" if apart else "127.0.0.1"
        self.address, self.processes = f"tcp://{self.host}:{self.port}", []

    def start(self, *command: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
        search = os.pathsep.join([str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "tasks")])
        environment = {**os.environ, "PYTHONPATH": search, "TRIVIAL_LOG": str(self.project.log),
                       "TRIVIAL_MOODS": '{"RaiseNumbers": "slow"}'}
        with open(self.project.folder / "dask.log", "ab") as log:
            process = subprocess.Popen([*before, sys.executable, "-m", "dask", *command], cwd=self.project.folder,
                                       env=environment, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def __enter__(self):
        if self.apart:
            make_namespaces()
        self.start_all()
        return self

    def start_all(self) -> None:
        self.scheduler = self.start("scheduler", "--host", self.host, "--port", str(self.port), "--no-dashboard")
        for number in range(3):
            inside = ("ip", "netns", "exec", f"rcnn{number}", "unshare", "--uts", "sh", "-c",
                      f'hostname host{number}; exec "$@"', "sh") if self.apart else ()
            self.start("worker", self.address, "--nthreads", "1", "--no-dashboard", before=inside)

    def __exit__(self, *_):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        if self.apart:
            remove_namespaces()


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, stderr=None if check else subprocess.DEVNULL)


def make_namespaces() -> None:
    remove_namespaces()
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    for number in range(3):
        name = f"rcnn{number}"
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", BRIDGE, "up")
        ip("-n", name, "addr", "add", f"{NETWORK}.{10 + number}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip("-n", name, "link", "set", device, "up")


def remove_namespaces() -> None:
    for number in range(3):
        ip("netns", "del", f"rcnn{number}", check=False)
    ip("link", "del", BRIDGE, check=False)


def kill_one(project: Project, wanted: dict, victim: str) -> list[str]:
    """One run on a separate cluster; kills the scheduler or the command at a random moment and gives the command again."""
    with Cluster(project) as cluster:
        command = start(project, cluster.address)
        project.wait_until(lambda: len(project.lines("built")) > random.randint(3, 20), command, 120)
        if victim == "scheduler":
            cluster.scheduler.kill()
            cluster.scheduler.wait()
            output = command.communicate(timeout=120)[0]
            faults = [] if command.returncode == 35 and "Traceback" not in output else [f"{command.returncode}: {output[-2000:]}"]
            cluster.start_all()  # the workers have ended with it
        else:
            os.killpg(command.pid, signal.SIGKILL)
            command.communicate()
            faults = []
        before = finished(project)
        again = start(project, cluster.address)
        output = again.communicate(timeout=300)[0]
        now = finished(project)
        faults += [f"made again: {name}" for name in before if now[name] != before[name]]
        return faults + faults_of(project, wanted, again.returncode, output, kills=3)


def run_apart(project: Project, wanted: dict) -> list[str]:
    """One run on three workers, each in a network namespace with a host name of its own."""
    with Cluster(project, apart=True) as cluster:
        time.sleep(10)  # else the first worker makes most
        command = start(project, cluster.address)
        output = command.communicate(timeout=1200)[0]
        faults = faults_of(project, wanted, command.returncode, output, kills=0)
        hosts = Counter(manifest["host"] for manifest in project.manifests().values())
        print(f"  made by {dict(hosts)}", flush=True)
        return faults if len(hosts) == 3 else [*faults, f"only {set(hosts)} made something"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("kills", 50), ("scheduler", 3), ("command", 3), ("namespaces", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--miniature", action="store_true", help="all real stages on eight images, instead of trivial ones")
    options = parser.parse_args()
    random.seed(options.seed)
    plain, wrong = new_project(options.miniature), 0
    plain.run(stage_of(plain), fresh=True)
    wanted = digests(plain)
    left = options.kills
    trials = [("namespaces", run_apart)] * options.namespaces
    trials += [(victim, lambda project, wanted, victim=victim: kill_one(project, wanted, victim))
               for victim in ("scheduler", "command") for _ in range(getattr(options, victim))]
    while left > 0 or trials:
        project, started = new_project(options.miniature), time.monotonic()
        if left > 0:
            kills, faults = kill_workers(project, wanted, left)
            left, name = left - kills, f"{kills} workers killed"
        else:
            name, trial = trials.pop(0)
            faults = trial(project, wanted)
        print(f"{name}: {time.monotonic() - started:.0f} s, {'; '.join(faults) or 'all well'}", flush=True)
        wrong += bool(faults)
        shutil.rmtree(project.folder)
    shutil.rmtree(plain.folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
