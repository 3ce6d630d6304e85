"""Fixtures that many tests share."""

import http.server
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.tiers import choose_profile

# A shell has what it starts in the background ignore Ctrl-C, and `nohup` the end of a terminal. The tests' commands would
# inherit that.
for number, usual in (signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

for name in "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS":
    # Each core has a process of the tests. Threads that wait for each other on busy cores take most of some tests' time.
    os.environ.setdefault(name, "1")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_configure(config):
    choose_profile(config.option.markexpr)


@pytest.fixture
def shared():
    """The folder of reference data beside the checkout: outputs of the original releases, photographs, weights."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data absent: {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture
def oracle(shared):
    """A function that loads one file of outputs of the original releases."""

    def load(name: str) -> dict:
        paths = [path for folder in ("oracles", "oracles2") if (path := shared / folder / name).is_file()]
        if not paths:
            pytest.skip(f"oracle absent: {name}")
        with np.load(paths[0], allow_pickle=False) as data:
            return dict(data)

    return load


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; from where a Range header says if `server.ranges`, and no more than `server.cut` bytes at once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        self.server.requested.append(self.path)
        if self.server.answer:
            self.server.answer(self)
            return
        content, asked = self.server.files.get(self.path), self.headers.get("Range") if self.server.ranges else None
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if content is None or first >= len(content):
            self.send_error(404 if content is None else 416)
            return
        self.server.starts.append(first)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:][: self.server.cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def file_server(monkeypatch):
    """A server on this machine. `files` maps paths to bytes, `answer(handler)` answers instead; see `_Handler`.

    `requested` are the paths that it was asked for, `starts` the bytes from which it sent files.
    """
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.files, running.ranges, running.cut, running.answer = {}, True, None, None
        running.requested, running.starts = [], []
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def write_detector():
    """write_detector(folder, chain, backbone) writes what `ExportDetector` does: random weights, the classes `cat` and `dog`."""
    from tests.detector_folders import write_folder  # here: most tests do without torch

    return write_folder
