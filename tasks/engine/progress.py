"""Progress of long work: a bar with an ETA on a terminal, a log line from time to time elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized

logger = logging.getLogger("stages")

LOG_EVERY_SECONDS = 60.0


def make_progress(label: str, unit: str = "image", row: int = 0) -> Callable[..., Iterator]:
    """A function `progress(iterable, total=None, about=None)` that yields the items of `iterable` and shows the progress.

    `about()` gives more text next to the count, such as the loss. The bar is `row` rows below the cursor.
    """

    def progress(iterable: Iterable, total: int | None = None, about: Callable[[], str] | None = None) -> Iterator:
        total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        if sys.stderr.isatty():
            return _bar(iterable, label, total, unit=unit, about=about, row=row)
        return _logged(iterable, label, total, unit=unit, about=about)

    return progress


def _bar(
    iterable: Iterable, label: str, total: int | None, *, unit: str, about: Callable[[], str] | None, row: int
) -> Iterator:
    from tqdm import tqdm

    with tqdm(iterable, label, total, leave=False, unit=unit, dynamic_ncols=True, position=row) as bar:
        for item in bar:
            yield item
            if about:
                bar.set_postfix_str(about(), refresh=False)


def _logged(
    iterable: Iterable, label: str, total: int | None, *, unit: str, about: Callable[[], str] | None
) -> Iterator:
    start = last = time.monotonic()
    for done, item in enumerate(iterable):
        now = time.monotonic()
        if done and now - last >= LOG_EVERY_SECONDS:
            last = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            state = f", {about()}" if about else ""
            logger.info("%s: %d/%s, %.3g %ss a second%s%s", label, done, total or "?", rate, unit, left, state)
        yield item
