"""What `--engine` costs: seconds a trivial shard, and how busy two workers are with shards of a second.

    python -m benchmarks.executor [--shards 2000] [--engine dask] [--workers 2]

It prints for `--engine` and for Luigi's own processes: the time from the start of the first trivial shard to the end of the last,
a shard; the processor time of the whole command a shard, less that of a command with one; and for shards that sleep for a second,
the time that `workers` workers need at best over the time taken.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.datasets.records import ImageRecord, Split
from tasks.data.sharded import ShardedTask
from tasks.data.splits import write_index
from tasks.engine import parameters
from tasks.engine.parameters import inherits
from tasks.engine.workshop import Workshop
from tasks.stage import Stage

REPOSITORY = Path(__file__).resolve().parents[1]
SLEEPING = 40  # shards of a second


class Count(Stage):
    """An index of `records` records without an image."""

    records = parameters.integer(1, "count", "records", "number of records")

    def build(self, workshop: Workshop) -> dict:
        none = np.zeros(0)
        images = tuple(ImageRecord(f"{number}", "", "", number, 1, none, none, none) for number in range(self.records))
        write_index(workshop.files / "index.json", Split("all", (), images))
        return {"images": len(images)}


@inherits(Count)
class Wait(ShardedTask):
    """Each shard sleeps and writes a few bytes."""

    seconds = parameters.number(0, "wait", "seconds", "seconds of a shard", minimum=0)
    computes = False

    def index_task(self) -> Count:
        return self.clone(Count)

    def record_key(self, split: Split, record: ImageRecord) -> dict:
        return {"id": record.id}

    def build_shard(self, workshop: Workshop, split: Split) -> dict:
        time.sleep(self.seconds)
        workshop.write("ids.txt", " ".join(record.id for record in split.images))
        return {}


def run(shards: int, seconds: float, *options: str) -> tuple[float, float]:
    """Seconds from the first shard to the last of a command on an empty cache, and the processor seconds of all of it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "luigi.cfg").write_text((REPOSITORY / "luigi.cfg").read_text())
        search = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "luigi", "--module", "benchmarks.executor", "Wait", "--records", str(shards),
                   "--seconds", str(seconds), "--shard-size", "1", *options]
        used = processor_seconds()
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": search}, check=True, capture_output=True)
        manifests = [json.loads(path.read_text()) for path in Path(folder).glob("cache/Wait/*/manifest.json")]
        parts = [manifest for manifest in manifests if manifest["settings"]["shard"] != "-1"]
        taken = max(part["started"] + part["seconds"] for part in parts) - min(part["started"] for part in parts)
        return taken, processor_seconds() - used


def processor_seconds() -> float:
    """Of all processes that this one has waited for, and that they have waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--engine", default="dask")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    workers = "--workers", str(options.workers)
    for name, engine in (("--engine " + options.engine, ("--engine", options.engine)), ("plain", ())):
        _, start_used = run(1, 0, *workers, *engine)
        taken, used = run(options.shards, 0, *workers, *engine)
        print(f"{name}: {options.shards} trivial shards: {1000 * taken / options.shards:.1f} ms a shard, "
              f"{1000 * (used - start_used) / options.shards:.1f} ms of a processor", flush=True)
        taken, _ = run(SLEEPING, 1, *workers, *engine)
        print(f"{name}: {SLEEPING} shards of a second: {100 * SLEEPING / options.workers / taken:.1f} % of the best", flush=True)


if __name__ == "__main__":
    main()
