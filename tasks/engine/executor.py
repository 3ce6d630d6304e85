"""Where stages run when `--engine` is given: on the workers of a Dask cluster, each one stage at a time.

The engine is `dask` (new processes on this host), the address of a Dask scheduler, or a YAML file that names a class which makes
a cluster. Names and parameters as text go to the workers; results are files in the cache, which all of them share.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from . import locks
from .artefacts import LOCKS
from .clusters import Healer, local_cluster, make_cluster
from .digests import digest_json
from .errors import UserError
from .jobs import JOB
from .places import cache_folder
from .same_code import code_of, describe_code, differences

logger = logging.getLogger("stages")

LOCAL, CLUSTER_FILES = "dask", (".yaml", ".yml")
INSTALL = "it needs Dask: pip install -e '.[dask]'"
PER_THREAD = 2  # stages in flight per thread of a worker: one runs, the next one is there already
CONNECT_SECONDS = 15
DASK_LOGGERS = "distributed", "distributed.client"
COUNT_EVERY = 1.0  # seconds between two counts of the workers
DIFFER = "give them the code and the packages of this host, and start them again"


class Executor:
    """A connection to a Dask cluster, for the command that runs `task`; `processes` is the number of workers to start here."""

    def __init__(self, task, *, processes: int):
        self.engine, self.in_flight, self.planned = task.engine, task.in_flight, 0
        self.is_lost = False  # whether the scheduler is gone
        self._numbers, self._threads, self._counted = count(), 0, float("-inf")
        self._healer: Healer | None = None
        self._closing = contextlib.ExitStack()
        try:
            self.client = self._connect(processes)
            self.code = code_of(task)
            self.code_digest = digest_json(describe_code(*self.code))
            self._check_workers(task)
            self.client.subscribe_topic(topic_of(JOB), _show_line)
        except BaseException:
            self.close()
            raise

    def _connect(self, processes: int):
        try:
            import distributed
        except ImportError as error:
            raise UserError(f"--engine {self.engine}: {INSTALL}") from error
        for name in DASK_LOGGERS:  # else it shows tracebacks when the scheduler is gone
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.engine == LOCAL:
            place: Any = self._closing.enter_context(local_cluster(processes))
            self._healer = Healer(place, processes)
        elif self.engine.endswith(CLUSTER_FILES):
            place, self.planned = make_cluster(Path(self.engine))
            self._closing.enter_context(place)
        elif "://" in self.engine:
            place = self.engine
        else:
            files = " or ".join(CLUSTER_FILES)
            raise UserError(f"--engine {self.engine}: expected {LOCAL}, an address such as tcp://host:8786, or a {files} file")
        try:
            client = distributed.Client(place, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"--engine {self.engine}: no Dask scheduler answers ({error}); start one there") from error
        return self._closing.enter_context(client)

    def _check_workers(self, task) -> None:
        """Raises UserError unless each worker has this host's code, one thread, and this cache."""
        path = cache_folder(Path(task.cache_dir), LOCKS) / f"executor-{JOB}.lock"
        with locks.held(path):
            answers = self.client.run(describe_worker, *self.code, str(path), on_error="return")
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        offered = {name for worker in workers.values() for name in worker["resources"]}
        faults = [f"{name}: {fault}" for name, answer in answers.items()
                  if (fault := _fault(answer, describe_code(*self.code), workers.get(name, {}).get("nthreads", 1)))]
        if workers and not self.planned and self.engine != LOCAL and (lacking := set(task.cluster_resources) - offered):
            faults.append(f"no worker offers {', '.join(lacking)}: start some with --resources {lacking.pop()}=1")
        if faults:
            raise UserError(f"--engine {self.engine}: " + "; ".join(faults))
        if not_locked := [name for name, answer in answers.items() if not answer["locked"]]:
            logger.warning("locks do not reach %s: hosts may do the same work twice, but every result is whole", not_locked[0])
        if not workers:
            logger.warning("--engine %s: no worker yet; the stages wait for the first", self.engine)

    # While the command runs

    def slots(self) -> int:
        """How many stages may be in flight now."""
        if time.monotonic() - self._counted > COUNT_EVERY:
            self._counted = time.monotonic()
            self.client.loop.add_callback(self._count)  # there, so that the command need not wait for the answer
            if self._healer:
                self._healer.heal()
            self.is_lost |= self.client.status not in ("running", "connecting")
        return self.in_flight or PER_THREAD * max(self._threads, self.planned, 1)

    async def _count(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # `is_lost` will tell
            before, self._threads = self._threads, sum((await self.client.nthreads()).values())
            if before and not self._threads:
                logger.warning("--engine %s: no worker is left; the stages wait for the next", self.engine)

    def submit(self, function: Callable, task, *arguments):
        """The future of `function((module, family), parameters, code, its digest, *arguments)` of `task` on some worker."""
        needs = dict.fromkeys(task.cluster_resources, 1) if self.engine != LOCAL else None
        # Each time another key: Dask remembers results by key, and a sharded stage runs before its shards and after them.
        return self.client.submit(
            function, (task.task_module, task.task_family), task.to_str_params(), self.code, self.code_digest, *arguments,
            key=f"{task.task_family}-{JOB}-{next(self._numbers)}", pure=False, resources=needs or None,
        )

    def close(self) -> None:
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            self._closing.close()


def _fault(answer, ours: dict[str, str], threads: int) -> str:
    """Why a worker that gave this answer cannot be used; empty if it can."""
    if isinstance(answer, BaseException):
        return f"cannot import the stages ({answer}): {DIFFER}"
    if differ := differences(ours, answer["code"]):
        return f"other code ({', '.join(differ[:3])}{f' and {len(differ) - 3} more' if differ[3:] else ''}): {DIFFER}"
    if threads != 1:
        return f"found {threads} threads, expected 1: start it with --nthreads 1"
    if not answer["sees"]:
        return f"does not see the cache {answer['cache']}: start it in the project's folder, on a disk that all hosts share"
    return ""


def topic_of(job: str) -> str:
    """Dask's topic for the log lines of a command's stages."""
    return f"stages-{job}"


def _show_line(event: tuple) -> None:
    line = event[1]
    logging.getLogger(line["name"]).handle(logging.makeLogRecord(line))


def describe_worker(packages: tuple[str, ...], sources: tuple[str, ...], lock: str) -> dict:
    """What a worker says of itself: its code, whether it sees the cache, and whether a lock that another process holds."""
    path = Path(lock)
    with contextlib.suppress(OSError):
        os.listdir(path.parent)
    sees = path.exists()
    cache = os.path.abspath(path.parent.parent)
    return {"code": describe_code(packages, sources), "sees": sees, "locked": sees and locks.is_held(path), "cache": cache}
