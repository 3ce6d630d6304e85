"""Ctrl-C and other signals end a command at any moment: it prints one line, leaves no process, and exits as shells expect.

This module is imported before all others. A thread waits for the signals: Python's own handlers wait for the main thread, which
may be busy with linear algebra for minutes, and their exceptions get lost in hooks and unfinished imports. The thread ends the
process at once. That is safe: a run that is killed at any moment leaves whole artefacts, and the next one goes on from there.
"""

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import select
import signal
import sys
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LINE = "stopped; the same command goes on from here"
KILL_SECONDS = 1.0  # how long a killed process may take to end
PID_BYTES = 8  # bytes that hold a process id
PR_SET_PDEATHSIG = 1  # linux/prctl.h
CLEAR_LINE = b"\r\x1b[K"  # removes a progress bar and ^C from the terminal's line


def is_command() -> bool:
    """Whether this process is a `luigi` command; false for a notebook, a test or another program that imports `tasks`."""
    return "luigi.cmdline" in sys.modules and not is_worker() and threading.current_thread() is threading.main_thread()


def is_worker() -> bool:
    """Whether another Python process of this program started this one."""
    return multiprocessing.parent_process() is not None


def watch() -> None:
    """Handles SIGNALS from now on, except those that the command's caller set to be ignored, as `nohup` does."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave_to_the_thread)
    youngest = mmap.mmap(-1, PID_BYTES)
    threading.Thread(target=_wait_and_stop, args=(read_end, youngest), name="interrupts", daemon=True).start()
    parent = [os.getpid()]  # the parent of the next fork; a worker may fork as well
    os.register_at_fork(
        before=lambda: parent.__setitem__(0, os.getpid()), after_in_child=lambda: _begin_as_child(parent[0], youngest)
    )


def _leave_to_the_thread(number: int, frame) -> None:
    """Does nothing. Python itself writes the signal's number into the pipe; its default handler would also raise an exception."""


def _wait_and_stop(read_end: int, youngest: mmap.mmap) -> None:
    while (number := os.read(read_end, 1)[0]) not in SIGNALS:
        pass
    try:
        _stop(youngest)
    finally:  # also when nothing can be printed
        os._exit(128 + number)


def _stop(youngest: mmap.mmap) -> None:
    """Ends all processes of the command, then prints LINE."""
    # Silences the main thread: it may see its processes die and would report that.
    terminal, nowhere = os.dup(sys.stderr.fileno()), os.open(os.devnull, os.O_WRONLY)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(nowhere, descriptor)
    children = multiprocessing.active_children()
    for process in children:
        process.kill()
    for process in children:
        process.join(KILL_SECONDS)
    _kill_child(int.from_bytes(youngest[:], "little"))
    if select.select([], [terminal], [], KILL_SECONDS)[1]:  # does not wait for a full pipe, or for a terminal stopped by Ctrl-S
        os.write(terminal, (CLEAR_LINE if os.isatty(terminal) else b"") + f"{LINE}\n".encode())


def _kill_child(process: int) -> None:
    """Kills the youngest fork. While its hooks run, `multiprocessing` does not know it yet; it could print after LINE."""
    with contextlib.suppress(ChildProcessError):  # it has ended, and its number may belong to another program by now
        if process and os.waitpid(process, os.WNOHANG) == (0, 0):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _begin_as_child(parent: int, youngest: mmap.mmap) -> None:
    """Runs first in a fork of the command. From then on the command ends the fork; signals of the terminal do not."""
    youngest[:] = os.getpid().to_bytes(PID_BYTES, "little")
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    die_with(parent)


def die_with(parent: int) -> None:
    """Makes the kernel kill this process when `parent`, which started it, dies, even by `kill -9` (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os.kill(os.getpid(), signal.SIGKILL)


if is_command():
    watch()
