"""The disk that a run needs, told before it starts; a run that needs more than there is does not start.

A stage whose files grow with the data estimates them in `disk_bytes`. What is in the cache already needs no more.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import UserError

logger = logging.getLogger("stages")

WORTH_TELLING = 1e8  # bytes; less fits on any disk
LARGEST_STAGES = 4  # that the message lists


def free_bytes(folder: Path) -> int:
    """The bytes that are free where `folder` is or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def check_disk(task, tasks: Iterable, is_told: bool) -> None:
    """Raises UserError if the disk has less than `tasks`, and all that they require, still need. `task` asks for them.

    The keys of all of them must be known. What they need goes into the log if `is_told`. With `--check-disk false` a disk that
    has less is a warning.
    """
    needed: Counter = Counter()
    for part in pending(tasks):
        needed[part.stage] += part.disk_bytes()
    total, cache = needed.total(), Path(task.cache_dir)
    if total < WORTH_TELLING:
        return
    free = free_bytes(cache)
    largest = ", ".join(f"{stage} {show(size)}" for stage, size in needed.most_common(LARGEST_STAGES) if size >= 1e6)
    message = f"needs about {show(total)} of disk ({largest}); {show(free)} are free"
    if total > free and task.check_disk:
        raise UserError(
            f"{cache}: {task.stage} {message}; free some space, give another folder with --cache-dir, or start it all the same "
            "with --check-disk false"
        )
    if total > free or is_told:
        logger.log(logging.WARNING if total > free else logging.INFO, "%s: %s", task.label, message)


def pending(tasks: Iterable) -> Iterator:
    """Those of `tasks`, and of what they require, that are still to be made."""
    seen, to_visit = set(), list(tasks)
    while to_visit:
        task = to_visit.pop()
        if task.task_id not in seen and not task.complete():
            seen.add(task.task_id)
            yield task
            to_visit += task.requires().values()


def show(size: float) -> str:
    unit, name = next(((unit, name) for unit, name in ((1e12, "TB"), (1e9, "GB")) if size >= unit), (1e6, "MB"))
    return f"{size / unit:.3g} {name}" if unit > 1e6 else f"{size / unit:.0f} {name}"
