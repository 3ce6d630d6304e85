"""Several hosts on this machine, for tests: `luigid` on a free loopback port, and each command in its own process group."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from luigi.rpc import RemoteScheduler

REPOSITORY = Path(__file__).resolve().parents[2]
LUIGID = "import sys; from luigi.cmdline import luigid; luigid(sys.argv[1:])"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Hosts:
    """The hosts that share the folder of a `Project`. Each has its own temporary folder."""

    def __init__(self, project, disconnect: float = 1.5, idle: float = 0.5):
        self.project, self.port, self.processes, self.scheduler = project, free_port(), [], None
        self.config = project.folder / "luigi-cluster.cfg"
        text = (REPOSITORY / "luigi-cluster.cfg").read_text()
        for ours, theirs in {
            "scheduler_port = 8082": f"scheduler_port = {self.port}\nscheduler_host = 127.0.0.1",
            "scheduler_host = localhost\n": "",
            "worker_disconnect_delay = 30": f"worker_disconnect_delay = {disconnect}",
            "max_keep_alive_idle_duration = 600": f"max_keep_alive_idle_duration = {idle}",
            "keep_alive = true": "keep_alive = true\nping_interval = 0.2",
            "wait_interval = 1\nwait_jitter = 1": "wait_interval = 0.2\nwait_jitter = 0.1",
        }.items():
            assert ours in text, ours
            text = text.replace(ours, theirs)
        self.config.write_text(text)

    def __enter__(self) -> "Hosts":
        self.start_scheduler()
        return self

    def __exit__(self, *_) -> None:
        for process in [*self.processes, self.scheduler]:
            kill(process)

    def start_scheduler(self) -> None:
        command = [sys.executable, "-W", "ignore", "-c", LUIGID, "--address", "127.0.0.1", "--port", str(self.port),
                   "--state-path", str(self.project.folder / ".luigid")]
        environment = {**os.environ, "LUIGI_CONFIG_PATH": str(self.config)}
        with open(self.project.folder / "luigid.log", "ab") as log:
            self.scheduler = subprocess.Popen(command, cwd=self.project.folder, env=environment, stdout=log, stderr=log,
                                              start_new_session=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.scheduler.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.project.folder / "luigid.log").read_text())

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """Starts a command on a new host; with `--assistant`, the host helps others."""
        folder = self.project.folder / f"tmp{len(self.processes)}"
        folder.mkdir()
        variables = {"LUIGI_CONFIG_PATH": str(self.config), "TMPDIR": str(folder)} | options.pop("variables", {})
        self.processes.append(self.project.start(*arguments, **options, **variables))
        return self.processes[-1]

    def wait_until_they_ask(self, count: int) -> None:
        """Waits until `count` hosts have asked the scheduler for work."""
        scheduler = RemoteScheduler(f"http://127.0.0.1:{self.port}")
        self.project.wait_until(lambda: len(scheduler.worker_list()) == count)


def kill(process: subprocess.Popen | None) -> None:
    """Kills a host with all its processes."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def status_and_output(process: subprocess.Popen, seconds: float = 60) -> tuple[int, str]:
    output = process.communicate(timeout=seconds)[0]
    return process.returncode, output
