"""What the user reads: one line per event of a stage, and no traceback for errors that the user can fix."""

import logging
import re
import sys
import warnings

import luigi

from pipeline.errors import PipelineError
from pipeline.text import printable, printable_lines
from tasks.console.failures import Failures
from tasks.engine.errors import StorageError, UserError

# Luigi's message about an error in `complete` or `requires`; it contains the traceback as text.
_REPORT = re.compile(
    r"Will not run (?P<stage>\w+).*^Traceback [^\n]*\n(?: [^\n]*\n)*(?P<name>[\w.]+): (?P<message>.*)", re.MULTILINE | re.DOTALL
)

# The loggers of the stages and of the algorithms.
OUR_LOGGERS = ("stages", "pipeline")
# Luigi's loggers: of its workers and command, its scheduler, its server.
LUIGI_LOGGERS = ("luigi-interface", "luigi", "luigi.scheduler", "luigi.server")
USER_ERRORS = (UserError, PipelineError)  # errors that the user can fix
CLEAR_LINE = "\r\x1b[K"  # the terminal's line may show the progress of another process


class _OneLine(logging.Formatter):
    """Formats a stage's message as one printable line, whatever names it contains."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei) -> str:
        return printable_lines(super().formatException(ei))


class _Plain(logging.Filter):
    """Reduces Luigi's report of a user's error to its message; a bug keeps its traceback. Makes both printable."""

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
                # On a full disk one stage after the other fails: the message is shown once, the failures are counted at the end.
                kind = str(error).rpartition("; ")[2] if isinstance(error, StorageError) else ""  # what to do about it
                if not self.failures.note(stage or "", str(error), kind):
                    return False
            elif stage:
                self.failures.note(stage, f"{type(error).__name__}: {error}")
        elif (report := _REPORT.match(record.getMessage())) and report["name"] in set().union(*map(_names, USER_ERRORS)):
            record.msg, record.args = "%s failed: %s", (report["stage"], report["message"].rstrip())
            record.levelno, record.levelname = logging.ERROR, "ERROR"  # Luigi only warns, but the command has failed
            self.failures.note(*record.args)
        record.msg, record.args = printable_lines(record.getMessage()), ()
        if record.exc_info:  # a formatter uses `exc_text` unchanged if it is set
            record.exc_text = printable_lines(logging.Formatter().formatException(record.exc_info))
        return True


def _names(error: type) -> set[str]:
    """The names of an exception and its subclasses, as a traceback shows them."""
    return {f"{error.__module__}.{error.__qualname__}"}.union(*map(_names, error.__subclasses__()))


def _print_printable() -> None:
    """Makes Luigi's names of tasks and Python's warnings printable. NOTE: Luigi has no public way to change a task's name."""
    name_task, format_warning = luigi.Task.__repr__, warnings.formatwarning
    luigi.Task.__repr__ = lambda task: printable(name_task(task))
    warnings.formatwarning = lambda *args, **kwargs: printable_lines(format_warning(*args, **kwargs))


def set_up() -> None:
    """Sends the log lines of the stages and of the algorithms to standard error. Another call changes nothing."""
    if not logging.getLogger("stages").handlers:
        handler, failures = logging.StreamHandler(), Failures()
        handler.setFormatter(_OneLine(f"{CLEAR_LINE if sys.stderr.isatty() else ''}%(asctime)s %(message)s", "%H:%M:%S"))
        for name in OUR_LOGGERS:
            logger = logging.getLogger(name)
            logger.handlers = [handler, failures]
            logger.setLevel(logging.INFO)
            logger.propagate = False
        plain = _Plain(failures)
        for name in LUIGI_LOGGERS:
            logging.getLogger(name).addFilter(plain)
        _print_printable()
