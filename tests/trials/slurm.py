"""The trial of a real Slurm: a controller and two nodes on this machine, from Debian's packages, unpacked but not installed.

    python -m tests.trials.slurm [--jobqueue]

It needs root, `apt-get` and `dpkg`. A job array runs the shards of a stage one by one, from an empty cache; a node is killed
while it runs one, and Slurm gives that job to the other node. `--jobqueue` has dask-jobqueue make the workers (`--engine`
FILE.yaml). Both have to end with the digests of a plain run. The exit status is 1 when anything was wrong.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.tasks.conftest import Project
from tests.tasks.hosts import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = "slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "libhwloc15"
NODES = "n1", "n2"
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=20
ReturnToService=2
JobRequeue=1
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
ARRAY = """#!/bin/bash
#SBATCH --array=0-{last} --ntasks=1 --cpus-per-task=1 --requeue --output={folder}/array-%a.txt --open-mode=append
exec {python} -m luigi --module trivial_stages RaiseNumbers --shard $SLURM_ARRAY_TASK_ID
"""
JOBQUEUE = """
cluster: dask_jobqueue.SLURMCluster
options:
  queue: batch
  cores: 1
  processes: 1
  memory: 1GB
  walltime: "00:10:00"
  job_directives_skip: [--mem]
  scheduler_options: {dashboard: false}
scale: 2
"""


class Slurm:
    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, {}
        self._unpack()
        self.library = next((folder / "root").glob("usr/lib/*/slurm-wlm"))
        nodes = "\n".join(f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2"
                          for name in NODES)
        configuration = CONFIGURATION.format(host=socket.gethostname(), port=free_port(), plugins=self.library, folder=folder,
                                             nodes=nodes)
        (folder / "slurm.conf").write_text(configuration)
        (folder / "state").mkdir()

    def _unpack(self) -> None:
        (self.folder / "packages").mkdir(mode=0o777)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=self.folder / "packages", check=True, capture_output=True)
        for path in (self.folder / "packages").glob("*.deb"):
            subprocess.run(["dpkg", "-x", path, self.folder / "root"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        search = [str(REPOSITORY), str(REPOSITORY / "tests" / "tasks"), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PYTHONPATH": os.pathsep.join(search),
            "LD_LIBRARY_PATH": f"{self.library.parent}:{self.library}",
            "PATH": f"{self.folder / 'root/usr/bin'}:{os.environ['PATH']}",
        }

    def _daemon(self, name: str, *command: str) -> None:
        program, *options = command
        path = self.folder / "root" / "usr" / "sbin" / program
        with open(self.folder / f"{name}.out", "wb") as log:
            self.daemons[name] = subprocess.Popen([path, *options], env=self.environment, stdout=log, stderr=log,
                                                  start_new_session=True)

    def __enter__(self) -> "Slurm":
        self._daemon("controller", "slurmctld-wlm", "-D", "-c")
        for name in NODES:
            self.start_node(name)
        deadline = time.monotonic() + 60
        while self.run("sinfo", "-h", "-N", "-o", "%T").split() != ["idle", "idle"]:
            assert time.monotonic() < deadline, self.run("sinfo", "-N", "-l") + (self.folder / "n1.out").read_text()
            time.sleep(0.5)
        return self

    def start_node(self, name: str) -> None:
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        stepd = self.folder / "root" / "usr" / "sbin" / "slurmstepd-wlm"
        self._daemon(name, "slurmd-wlm", "-D", "-N", name, "-d", str(stepd))

    def kill_node(self, name: str) -> None:
        """Kills a node with all that runs on it, the daemons first, lest they tell the controller."""
        jobs = [process for process in psutil.process_iter() if node_of(process) == name]
        steps = {parent for process in jobs if (parent := process.parent()) and "slurmstepd" in parent.exe()}
        for process in (psutil.Process(self.daemons[name].pid), *steps, *jobs):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons[name].wait()

    def run(self, *command: str, cwd: Path | None = None, **variables: str) -> str:
        environment = {**self.environment, **variables}
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=True).stdout

    def __exit__(self, *_) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("scancel", "--user", "root")
            time.sleep(2)
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()


def node_of(process: psutil.Process) -> str:
    """The node on which a job's process runs; empty for another process."""
    with contextlib.suppress(psutil.Error):
        return process.environ().get("SLURMD_NODENAME", "")
    return ""


def run_array(slurm: Slurm, project: Project, wanted: dict[str, str], *, kill: bool) -> list[str]:
    """Runs the three shards of the trivial stage as an array, then the whole stage."""
    script, started = project.folder / "array.sh", time.monotonic()
    script.write_text(ARRAY.format(last=2, folder=project.folder, python=sys.executable))
    moods = '{"RaiseNumbers": "hang once"}' if kill else "{}"
    project.log.touch()
    slurm.run("sbatch", str(script), cwd=project.folder, TRIVIAL_LOG=str(project.log), TRIVIAL_MOODS=moods)
    if kill:
        project.wait_until(lambda: project.lines("hanging"), seconds=60)
        name = node_of(psutil.Process(int(project.lines("hanging")[0].split()[-1])))
        slurm.kill_node(name)
        killed = time.monotonic()
    deadline = time.monotonic() + 400
    while slurm.run("squeue", "-h") and time.monotonic() < deadline:
        time.sleep(1)
    print(f"  array: {time.monotonic() - started:.0f} s{f', {time.monotonic() - killed:.0f} s after the kill' if kill else ''}")
    if kill:
        slurm.start_node(name)
    built = Counter(project.lines("built"))
    faults = [] if sum(built.values()) - len(built) <= kill else [f"made again: {built}"]
    before = project.manifests()
    project.run("SumNumbers", fresh=True)
    now = project.manifests()
    faults += [f"made again: {name}" for name in before if now[name] != before[name]]
    faults += [] if len(before) == 4 else [f"the array made {sorted(before)}"]
    return faults + [f"another digest: {name}" for name in wanted if project.digests().get(name) != wanted[name]]


def run_jobqueue(slurm: Slurm, project: Project, wanted: dict[str, str]) -> list[str]:
    """Runs all stages on workers that dask-jobqueue has Slurm start."""
    (project.folder / "slurm.yaml").write_text(JOBQUEUE)
    command = [sys.executable, "-m", "luigi", "--module", "trivial_stages", "SumNumbers", "--engine", "slurm.yaml"]
    done = subprocess.run(command, cwd=project.folder, env=slurm.environment, capture_output=True, text=True, timeout=300)
    faults = [] if done.returncode == 0 else [f"status {done.returncode}: {done.stdout[-1000:]}{done.stderr[-3000:]}"]
    faults += [] if all(manifest["worker"] for manifest in project.manifests().values()) else ["not made by a worker"]
    return faults + [f"another digest: {name}" for name in wanted if project.digests().get(name) != wanted[name]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobqueue", action="store_true", help="also run stages by dask-jobqueue, which has to be installed")
    options = parser.parse_args()
    base, faults = Path(tempfile.mkdtemp(prefix="rcnn-slurm-")), []

    def project(name: str) -> Project:
        (base / name).mkdir()
        return Project(base / name)

    plain = project("plain")
    plain.run("SumNumbers", fresh=True)
    wanted = plain.digests()
    (base / "slurm").mkdir()
    with Slurm(base / "slurm") as slurm:
        for name, trial in (
            ("array", lambda fresh: run_array(slurm, fresh, wanted, kill=False)),
            ("killed-node", lambda fresh: run_array(slurm, fresh, wanted, kill=True)),
            *([("jobqueue", lambda fresh: run_jobqueue(slurm, fresh, wanted))] if options.jobqueue else []),
        ):
            wrong = trial(project(name))
            print(f"{name}: {'; '.join(wrong) or 'all well'}", flush=True)
            faults += wrong
    shutil.rmtree(base)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
