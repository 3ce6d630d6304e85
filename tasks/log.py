"""What the user reads: one line a stage, and errors that the user can mend without a traceback."""

import logging
import re
import sys

from pipeline.errors import PipelineError
from tasks.failures import Failures

# How Luigi words an error of `complete` or `requires`: the traceback is text by then.
_REPORT = re.compile(
    r"Will not run (?P<stage>\w+).*^Traceback [^\n]*\n(?: [^\n]*\n)*(?P<name>[\w.]+): (?P<message>.*)", re.MULTILINE | re.DOTALL
)

CLEAR_LINE = "\r\x1b[K"  # of a terminal, which may show the progress of another process there


class _Plain(logging.Filter):
    """Turns Luigi's report of a user's error into its message; a bug keeps its traceback."""

    def __init__(self, failures: Failures):
        super().__init__()
        self.failures = failures

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error:
            task = record.args[-1] if record.args else None
            stage = getattr(task, "stage", task)
            if isinstance(error, PipelineError):
                record.msg, record.args, record.exc_info = "%s%s", (f"{stage} failed: " if stage else "", error), None
                self.failures.note(stage or "", str(error))
            elif stage:
                self.failures.note(stage, f"{type(error).__name__}: {error}")
        elif (report := _REPORT.match(record.getMessage())) and report["name"] in _names(PipelineError):
            record.msg, record.args = "%s failed: %s", (report["stage"], report["message"].rstrip())
            self.failures.note(*record.args)
        return True


def _names(error: type) -> set[str]:
    """The names of an exception and its subclasses, as a traceback shows them."""
    return {f"{error.__module__}.{error.__qualname__}"}.union(*map(_names, error.__subclasses__()))


def set_up() -> None:
    """Sends the stages' lines to standard error, once."""
    logger = logging.getLogger("rcnn")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"{CLEAR_LINE if sys.stderr.isatty() else ''}%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(failures := Failures())
        logging.getLogger("luigi-interface").addFilter(_Plain(failures))
