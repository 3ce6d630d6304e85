"""Dask clusters that a command makes for itself: processes on this host, or what a YAML file describes."""

import importlib
import logging
import time
from pathlib import Path

from .errors import UserError
from .processes import start_tracker

LOST_SECONDS = 5.0  # after which another process takes the place of one that has ended and that Dask has not started again
START_ATTEMPTS = 3  # of the processes on this host
WITHOUT_PAGES = {  # nor what Dask measures for them, which takes a twentieth of a core for each process
    "distributed.scheduler.http.routes": [], "distributed.worker.http.routes": [], "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s", "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.active-memory-manager.start": False,
}
FILE_KEYS = {"cluster": str, "options": dict, "adapt": dict, "scale": int}


def local_cluster(processes: int):
    """New worker processes on this host. Connections need a key: else any user of the host could give them work."""
    import dask
    import distributed

    start_tracker()
    dask.config.set(WITHOUT_PAGES)
    for _ in range(START_ATTEMPTS):
        try:
            return distributed.LocalCluster(
                n_workers=processes, threads_per_worker=1, processes=True, host="127.0.0.1", security=True, memory_limit=None,
                dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            failure = error
    raise UserError(f"--engine dask: its processes end while they start ({failure}); free some memory, or lower --workers")


class Healer:
    """Keeps up the number of processes of `--engine dask`. Dask itself gives up one that dies while it starts."""

    def __init__(self, cluster, processes: int):
        self.cluster, self.processes = cluster, processes
        self.dead_since: dict = {}  # by Dask's name of the process

    def heal(self) -> None:
        self.cluster.loop.add_callback(self._heal)

    def _heal(self) -> None:
        now = time.monotonic()
        for name, nanny in list(self.cluster.workers.items()):
            if nanny.is_alive():
                self.dead_since.pop(name, None)
            elif now - self.dead_since.setdefault(name, now) > LOST_SECONDS:
                del self.dead_since[name], self.cluster.workers[name]
                self.cluster.loop.add_callback(nanny.close)
        self.cluster.scale(self.processes)


def make_cluster(path: Path):
    """The cluster that a YAML file describes, and how many threads it may grow to. Raises UserError for a wrong file."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--engine {path}: cannot be read ({' '.join(str(error).split())}); give a YAML file") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in FILE_KEYS.items()
                                                if key in content or key == "cluster") or content.keys() - FILE_KEYS.keys():
        kinds = ", ".join(f"{key} ({kind.__name__})" for key, kind in FILE_KEYS.items())
        raise UserError(f"{path}: found {content!r:.200}, expected an entry `cluster`, and no others than {kinds}")
    module, _, name = content["cluster"].rpartition(".")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        package = module.partition(".")[0].replace("_", "-")
        raise UserError(f"{path}: cluster: {content['cluster']}: {error}; install {package}, or correct the name") from error
    try:
        cluster = factory(**content.get("options", {}))
    except Exception as error:  # any library's, about its own options
        raise UserError(f"{path}: {content['cluster']}: {type(error).__name__}: {error}; correct `options`") from error
    if "adapt" in content:
        cluster.adapt(**content["adapt"])
    elif "scale" in content:
        cluster.scale(content["scale"])
    return cluster, int(content.get("adapt", {}).get("maximum") or content.get("scale") or 0)
