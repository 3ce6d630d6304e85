"""Commands without their slow imports: a process imports torch, numba and the like once, and each command is a fork of it.

It imports third-party packages alone, nothing of ours and not Luigi. So a fork does all that a fresh `python -m luigi` does: it
reads luigi.cfg, checks the environment, imports the stages, watches for signals. Its process id, session, signals, exit status,
folder, variables and output are real. What differs: it has the seed of `hash` from this process, and what PYTHON... variables set
at an interpreter's start. Tests of these run a fresh command (`Project.start(fresh=True)`). `rcnn-cache` is run in the same way.

Two processes a command: the one forked first waits for the command and reports its exit status, for only a parent can.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import threading

REQUEST_BYTES = 1 << 17
SLOW_IMPORTS = (
    "numpy", "torch", "torchvision", "numba", "h5py", "sklearn.svm", "scipy.io", "scipy.ndimage", "skimage.draw",
    "matplotlib.figure", "PIL.Image", "jinja2", "safetensors.torch", "pycocotools.mask", "tqdm", "xxhash", "threadpoolctl",
    "tenacity", "tornado.ioloop", "asyncio", "sqlite3", "http.server", "multiprocessing.pool", "concurrent.futures.process",
    "logging.config", "http.cookiejar", "encodings.idna",
)
OF_LUIGI = ("requests", "jsonschema")  # which it uses where they are there: a fifth of what it takes to start a command
OURS = {"luigi", "tasks", "pipeline", "tests"}


def import_slow_modules() -> None:
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    for name in OF_LUIGI:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from numba.core.registry import cpu_target

    cpu_target.typing_context.refresh()  # what numba's first compiled function would do
    cpu_target.target_context.refresh()
    assert not OURS & {name.partition(".")[0] for name in sys.modules}, "a command imports these itself"
    assert threading.active_count() == 1, "a fork has no other thread, and may wait for one forever"
    gc.freeze()  # lest each fork goes through all of it


def next_request(requests: socket.socket) -> dict:
    """Returns in each process that is to be a command: what it has to do. Ends the server when the tests have ended."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 2)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    requests.close()
    output, status = files
    command = os.fork()
    if command:
        os.close(output)
        _report_end(command, status)
        os._exit(0)
    os.setsid()
    os.write(status, f"{os.getpid()}\n".encode())
    os.close(status)
    return {**json.loads(message), "output": output}


def _report_end(command: int, status: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # the test does not wait for it
        os.write(status, f"{code}\n".encode())


def become(request: dict, search: list[str]) -> None:
    """Makes this process what it would be if it had been started afresh."""
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (request["output"], 1), (request["output"], 2)):
        os.dup2(source, target)
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # TMPDIR may be another
    sys.modules["numpy"].random.seed()  # Python reseeds its own generator in a fork
    sys.path[:] = [request["folder"], *request["environment"]["PYTHONPATH"].split(os.pathsep), *search]
    sys.argv[1:] = request["arguments"]
    importlib.invalidate_caches()


def end_at_once() -> None:
    """Ends a command as the last of what Python does at exit, before it takes torch apart: half a second of a core."""
    if EXIT_STATUS:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_STATUS[0])


if __name__ == "__main__":
    EXIT_STATUS: list[int] = []
    atexit.register(end_at_once)  # what is registered first is called last
    SEARCH = sys.path[1:]  # without the folder of this file
    import_slow_modules()
    REQUEST = next_request(socket.socket(fileno=int(sys.argv[1])))
    become(REQUEST, SEARCH)
    try:
        runpy.run_module(REQUEST["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            EXIT_STATUS.append(end.code or 0)
        raise
