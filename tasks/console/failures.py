"""What failed in this command, told again at its end: stages that do not need it go on, and their lines carry it out of sight."""

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

KINDS = 4096  # that are told apart
CAPACITY = 1 << 20  # bytes; a pipe holds fewer
LONGEST = 500  # characters of a message that are repeated; a line in the pipe is written whole up to 4096 bytes


class Failures(logging.Handler):
    """Notes failures in whichever process they happen, and as a handler that other lines came after them."""

    def __init__(self):
        super().__init__()
        # Forks have both: what they write is read at the end, by the process that was started first.
        self.read_end, self.write_end = os.pipe()
        self.others_came_after = mmap.mmap(-1, 1)
        self.some_untold = mmap.mmap(-1, 1)
        self.kinds_told = mmap.mmap(-1, KINDS)
        for end in self.read_end, self.write_end:
            os.set_blocking(end, False)
        atexit.register(self.repeat)

    def note(self, stage: str, message: str, kind: str = "") -> bool:
        """Notes a failure; returns whether it is to be told now. Of several of one `kind`, as of a full disk, the first is."""
        entry = kind, printable(f"{stage}: {message.strip().partition(chr(10))[0][:LONGEST]}")
        with contextlib.suppress(BlockingIOError):  # when hundreds have failed already
            os.write(self.write_end, json.dumps(entry).encode() + b"\n")
        place = zlib.crc32(kind.encode()) % KINDS  # the same in all processes
        is_first = not kind or not self.kinds_told[place]
        self.kinds_told[place] = 1
        if is_first:
            self.others_came_after[0] = 0
        else:
            self.some_untold[0] = 1
        return is_first

    def emit(self, record: logging.LogRecord) -> None:
        self.others_came_after[0] = 1

    def repeat(self) -> None:
        with contextlib.suppress(BlockingIOError):  # when nothing has failed
            entries = dict.fromkeys(tuple(json.loads(line)) for line in os.read(self.read_end, CAPACITY).splitlines())
            counts = collections.Counter(kind for kind, _ in entries if kind)
            lines = [line for kind, line in entries if not kind] + [
                next(line for kind, line in entries if kind == one) + (f" (and {count - 1} more like this)" if count > 1 else "")
                for one, count in counts.items()
            ]
            if self.others_came_after[0]:
                if len(lines) == 1:
                    print(f"\nfailed, as told above: {lines[0]}; the same command goes on from there", file=sys.stderr)
                else:
                    print(f"\n{len(entries)} stages failed, as told above; the same command goes on from there:",
                          *lines, sep="\n  ", file=sys.stderr)
            elif self.some_untold[0]:
                what = f"{len(entries)} stages failed, for what is told above"
                print(f"{what}; the same command goes on from there", file=sys.stderr)
