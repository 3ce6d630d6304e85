"""What the user reads: one line a stage, and errors that the user can mend without a traceback."""

import logging
import re
import sys
import warnings

import luigi

from pipeline.errors import PipelineError
from pipeline.text import printable, printable_lines
from tasks.console.failures import Failures
from tasks.engine.errors import StorageError, UserError

# How Luigi words an error of `complete` or `requires`: the traceback is text by then.
_REPORT = re.compile(
    r"Will not run (?P<stage>\w+).*^Traceback [^\n]*\n(?: [^\n]*\n)*(?P<name>[\w.]+): (?P<message>.*)", re.MULTILINE | re.DOTALL
)

OURS = ("stages", "pipeline")
# Those that Luigi writes to: its workers and command, its scheduler, its server.
LUIGIS = ("luigi-interface", "luigi", "luigi.scheduler", "luigi.server")
USER_ERRORS = (UserError, PipelineError)  # those that the user can mend
CLEAR_LINE = "\r\x1b[K"  # of a terminal, which may show the progress of another process there


class _OneLine(logging.Formatter):
    """A stage's message as one printable line, whatever names are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei) -> str:
        return printable_lines(super().formatException(ei))


class _Plain(logging.Filter):
    """Turns Luigi's report of a user's error into its message; a bug keeps its traceback. Both are made printable."""

    def __init__(self, failures: Failures):
        super().__init__()
        self.failures = failures

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error:
            task = record.args[-1] if record.args else None
            stage = getattr(task, "stage", task)
            if isinstance(error, USER_ERRORS):
                record.msg, record.args, record.exc_info = "%s%s", (f"{stage} failed: " if stage else "", error), None
                # A full disk fails one stage after the other: it is told once, and counted at the end.
                kind = str(error).partition(": ")[2] if isinstance(error, StorageError) else ""
                if not self.failures.note(stage or "", str(error), kind):
                    return False
            elif stage:
                self.failures.note(stage, f"{type(error).__name__}: {error}")
        elif (report := _REPORT.match(record.getMessage())) and report["name"] in set().union(*map(_names, USER_ERRORS)):
            record.msg, record.args = "%s failed: %s", (report["stage"], report["message"].rstrip())
            self.failures.note(*record.args)
        record.msg, record.args = printable_lines(record.getMessage()), ()
        if record.exc_info:  # what is set here, a formatter takes as it is
            record.exc_text = printable_lines(logging.Formatter().formatException(record.exc_info))
        return True


def _names(error: type) -> set[str]:
    """The names of an exception and its subclasses, as a traceback shows them."""
    return {f"{error.__module__}.{error.__qualname__}"}.union(*map(_names, error.__subclasses__()))


def _print_printable() -> None:
    """Has Luigi's name of a task, and Python's warnings, be printable. NOTE: Luigi has no public way to say how it names one."""
    name_task, format_warning = luigi.Task.__repr__, warnings.formatwarning
    luigi.Task.__repr__ = lambda task: printable(name_task(task))
    warnings.formatwarning = lambda *args, **kwargs: printable_lines(format_warning(*args, **kwargs))


def set_up() -> None:
    """Sends the lines of the stages and of the algorithms to standard error, once."""
    if not logging.getLogger("stages").handlers:
        handler, failures = logging.StreamHandler(), Failures()
        handler.setFormatter(_OneLine(f"{CLEAR_LINE if sys.stderr.isatty() else ''}%(asctime)s %(message)s", "%H:%M:%S"))
        for name in OURS:
            logger = logging.getLogger(name)
            logger.handlers = [handler, failures]
            logger.setLevel(logging.INFO)
            logger.propagate = False
        plain = _Plain(failures)
        for name in LUIGIS:
            logging.getLogger(name).addFilter(plain)
        _print_printable()
