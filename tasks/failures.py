"""What failed in this command, told again at its end: stages that do not need it go on, and their lines carry it out of sight."""

import atexit
import contextlib
import json
import logging
import mmap
import os
import sys

from pipeline.text import printable

CAPACITY = 1 << 20  # bytes; a pipe holds fewer
LONGEST = 500  # characters of a message that are repeated; a line in the pipe is written whole up to 4096 bytes


class Failures(logging.Handler):
    """Notes failures in whichever process they happen, and as a handler that other lines came after them."""

    def __init__(self):
        super().__init__()
        # Forks have both: what they write is read at the end, by the process that was started first.
        self.read_end, self.write_end = os.pipe()
        self.others_came_after = mmap.mmap(-1, 1)
        for end in self.read_end, self.write_end:
            os.set_blocking(end, False)
        atexit.register(self.repeat)

    def note(self, stage: str, message: str) -> None:
        line = json.dumps(printable(f"{stage}: {message.strip().partition(chr(10))[0][:LONGEST]}")) + "\n"
        self.others_came_after[0] = 0
        with contextlib.suppress(BlockingIOError):  # when hundreds have failed already
            os.write(self.write_end, line.encode())

    def emit(self, record: logging.LogRecord) -> None:
        self.others_came_after[0] = 1

    def repeat(self) -> None:
        with contextlib.suppress(BlockingIOError):  # when nothing has failed
            failed = dict.fromkeys(map(json.loads, os.read(self.read_end, CAPACITY).splitlines()))
            if self.others_came_after[0]:
                what = "One stage" if len(failed) == 1 else f"{len(failed)} stages"
                print(f"\n{what} failed, as told above; the rest is in the cache, and the same command goes on from there:",
                      *failed, sep="\n  ", file=sys.stderr)
