"""A group of new processes that need each other: when one of them fails or dies, all of them end."""

import contextlib
import logging
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from .errors import UserError
from .processes import start_tracker, start_worker

START = "spawn"  # as in `processes.make_pool`
LOGGERS = "stages", "pipeline"  # whose lines the group shows
# Those that lose a member fail as well, sometimes before its death is seen: so long it is waited for the first cause.
CAUSE_SECONDS = 2.0
LINE, RESULT, ERROR = range(3)  # kinds of messages


class MemberDied(UserError):
    """A process of a group was ended by something else."""


def run_group(size: int, work: Callable, *arguments) -> list:
    """What `work(number, *arguments)` returns in each of `size` new processes, numbered from 0. Shows what the first one logs.

    Raises the error of the first process that fails, and MemberDied when one dies; then no process is left.
    """
    context: Any = multiprocessing.get_context(START)
    start_tracker()
    members = []
    try:
        for number in range(size):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_be_member, args=(there, number, work, arguments))
            members.append(_Member(f"process {number + 1} of {size}", process, here))
            process.start()
            there.close()
        return _results(members)
    finally:
        for member in members:
            member.end()


class _Member:
    """A process of a group, as the one that started it sees it."""

    def __init__(self, name: str, process, messages: Connection):
        self.name, self.process, self.messages = name, process, messages
        self.is_done, self.result = False, None
        self.error: BaseException | None = None

    def hear(self) -> None:
        """Takes one message, or notes that there will be none."""
        try:
            kind, content = self.messages.recv()
        except (EOFError, OSError):
            self.process.join()
            self.error = MemberDied(f"{self.name} {_end_of(self.process.exitcode)}")
        else:
            if kind == LINE:
                logging.getLogger(content["name"]).handle(logging.makeLogRecord(content))
                return
            if kind == RESULT:
                self.result = content
            else:
                self.error, text = content
                self.error.__cause__ = RuntimeError(f"in {self.name}:\n{text}")
        self.is_done = True

    def end(self) -> None:
        if self.process.pid:
            if self.error or not self.is_done:
                self.process.kill()
            self.process.join()
        self.messages.close()


def _results(members: list[_Member]) -> list:
    while open_members := [member for member in members if not member.is_done]:
        _hear(open_members)
        if failed := [member for member in members if member.error]:
            raise _cause(members, failed)
    return [member.result for member in members]


def _hear(members: list[_Member], seconds: float | None = None) -> None:
    ready = wait([member.messages for member in members], seconds)
    for member in members:
        if member.messages in ready:
            member.hear()


def _cause(members: list[_Member], failed: list[_Member]) -> BaseException:
    """The error that is most likely the cause of the others: the user's or a death, else the first of the `failed` members."""
    until = time.monotonic() + CAUSE_SECONDS
    while not (causes := [member.error for member in members if isinstance(member.error, ValueError)]):
        others = [member for member in members if not member.is_done]
        if not others or (left := until - time.monotonic()) <= 0:
            break
        _hear(others, left)
    errors = [*causes, *(member.error for member in failed)]  # UserError, PipelineError and MemberDied are ValueErrors
    return next(error for error in errors if error)


def _end_of(code: int | None) -> str:
    if code is not None and code < 0:
        likely = ", most likely by the system because memory ran out" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{likely}"
    return f"ended with exit code {code}"


# In a member

class _ToStarter(logging.Handler):
    def __init__(self, messages: Connection):
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        line = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname, "created": record.created,
                "msg": record.getMessage()}
        with contextlib.suppress(OSError):
            self.messages.send((LINE, line))


def _be_member(messages: Connection, number: int, work: Callable, arguments: tuple) -> None:
    start_worker()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler() if number else _ToStarter(messages)], False
    try:
        messages.send((RESULT, work(number, *arguments)))
    except BaseException as error:
        text = traceback.format_exc()
        try:
            messages.send((ERROR, (error, text)))
        except Exception:  # it cannot be pickled
            messages.send((ERROR, (RuntimeError(type(error).__name__), text)))
