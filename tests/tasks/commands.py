"""Commands that tests start: forks of a server that has imported what is slow, with what a test needs of `subprocess.Popen`."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

SERVER = Path(__file__).with_name("fork_server.py")


class ForkServer:
    """Starts commands; see fork_server.py. It ends with `close`, and when this process ends."""

    def __init__(self):
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, SERVER, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment, cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )

    def start(self, arguments: list[str], folder: Path, environment: dict[str, str], module: str = "luigi") -> "Command":
        """As `subprocess.Popen` of `python -m MODULE` with these arguments, in a session of its own."""
        request = {
            "module": module, "arguments": arguments, "folder": str(folder), "environment": environment,
            "ignored": [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN],
        }
        read_end, write_end = os.pipe()
        status, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.requests, [json.dumps(request).encode()], [write_end, theirs.fileno()])
        os.close(write_end)
        return Command(arguments, open(read_end), status)

    def close(self) -> None:
        self.requests.shutdown(socket.SHUT_RDWR)  # `close` would not do: forks of this process may have it as well
        self.requests.close()
        self.process.wait(20)


@cache
def fork_server() -> ForkServer:
    """The one of this process, started when it is needed first."""
    return ForkServer()


def close_fork_server() -> None:
    if fork_server.cache_info().currsize:
        fork_server().close()
        fork_server.cache_clear()


class Command:
    """A started command: what tests use of `subprocess.Popen`, and as it has it."""

    def __init__(self, arguments: list[str], stdout, status: socket.socket):
        self.args, self.stdout, self.returncode = arguments, stdout, None
        self._status = status.makefile("r")
        status.close()
        self.pid = int(self._status.readline())
        self._output: str | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        with self.stdout:
            self._output = self.stdout.read()

    def poll(self) -> int | None:
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        if self._ended_within(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All that is printed until the end, also by processes that the command leaves behind."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._reader.ident is None:
            self._reader.start()
        self._reader.join(timeout)
        if self._reader.is_alive():
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if deadline is None else max(0, deadline - time.monotonic()))
        return self._output, None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
