"""What the user reads: one line a stage, and errors that the user can mend without a traceback."""

import logging

from pipeline.errors import PipelineError
from tasks.parameters import SettingError


class _Plain(logging.Filter):
    """Turns Luigi's report of a user's error into its message; a bug keeps its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (PipelineError, SettingError)):
            task = record.args[-1] if isinstance(record.args, tuple) and record.args else ""
            record.msg, record.args, record.exc_info = "%s failed: %s", (getattr(task, "stage", task), error), None
        return True


def set_up() -> None:
    """Sends the stages' lines to standard error, once."""
    logger = logging.getLogger("rcnn")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logging.getLogger("luigi-interface").addFilter(_Plain())
