"""Repeats the failures of a command at its end. Other stages go on after a failure, and their lines push it out of sight."""

import atexit
import collections
import contextlib
import json
import logging
import mmap
import os
import sys
import zlib

from pipeline.text import printable

KINDS = 4096  # kinds of failures that can be distinguished
CAPACITY = 1 << 20  # bytes to read; a pipe holds fewer
LONGEST = 500  # characters of a message to repeat; the system writes up to 4096 bytes to a pipe in one piece

GO_ON = "once this is mended, the same command continues from there"


def _shorten(message: str) -> str:
    """The first line of a message. Where it only counts what its other lines list, also the first of those."""
    first, *others = message.strip().splitlines() or [""]
    listed = f": {others[0].strip()}" if others and first.endswith("problem(s)") else ""
    return f"{first}{listed}"[:LONGEST]


class Failures(logging.Handler):
    """Notes the failures of all processes; as a log handler, notes whether other lines came after them."""

    def __init__(self):
        super().__init__()
        # Forks inherit both ends. The command's first process reads at the end what the forks wrote.
        self.read_end, self.write_end = os.pipe()
        self.others_came_after = mmap.mmap(-1, 1)
        self.kinds_shown = mmap.mmap(-1, KINDS)
        for end in self.read_end, self.write_end:
            os.set_blocking(end, False)
        atexit.register(self.repeat)

    def note(self, stage: str, message: str, kind: str = "") -> bool:
        """Notes a failure; returns whether to show it now. Several failures of one `kind`, as of a full disk, are shown once."""
        entry = kind, printable(f"{stage}: {_shorten(message)}")
        with contextlib.suppress(BlockingIOError):  # the pipe is full: hundreds have failed already
            os.write(self.write_end, json.dumps(entry).encode() + b"\n")
        place = zlib.crc32(kind.encode()) % KINDS  # the same in all processes
        is_first = not kind or not self.kinds_shown[place]
        self.kinds_shown[place] = 1
        if is_first:
            self.others_came_after[0] = 0
        return is_first

    def emit(self, record: logging.LogRecord) -> None:
        self.others_came_after[0] = 1

    def repeat(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is empty: nothing has failed
            entries = dict.fromkeys(tuple(json.loads(line)) for line in os.read(self.read_end, CAPACITY).splitlines())
            counts = collections.Counter(kind for kind, _ in entries if kind)
            lines = [line for kind, line in entries if not kind] + [
                next(line for kind, line in entries if kind == repeated) + (f" (and {n - 1} more like this)" if n > 1 else "")
                for repeated, n in counts.items()
            ]
            if self.others_came_after[0]:
                if len(lines) == 1:
                    print(f"\nfailed (see above): {lines[0]}; {GO_ON}", file=sys.stderr)
                else:
                    print(f"\n{len(entries)} stages failed (see above); {GO_ON}:", *lines, sep="\n  ", file=sys.stderr)
