"""What the command-line tools have in common: an error is one line, and the exit status tells."""

import os
import signal
import sys
from collections.abc import Callable

from pipeline.errors import PipelineError
from pipeline.text import printable
from tasks.engine.errors import UserError


def run_tool(name: str, run: Callable[[], int]) -> int:
    """What `run` returns, an exit status; 2 for a wrong request."""
    try:
        return run()
    except (UserError, PipelineError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        if not isinstance(error, BrokenPipeError) and error.filename:
            print(printable(f"{name}: {error.filename}: {error.strerror}"), file=sys.stderr)
            return 2
        # Standard output cannot be written; without this, Python would try again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # `rcnn-cache ls | head`
            return 0
        print(f"{name}: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return 2
