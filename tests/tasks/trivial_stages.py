"""Three stages that do very little, for tests of the cache: a list of numbers, their powers in shards, the sum.

The environment, which is in no key, makes them fail, wait, or note that they ran: every build appends a line to the file
`TRIVIAL_LOG`, and `TRIVIAL_MOODS` says for each stage what happens in the middle of its build.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

from pipeline.datasets.records import ImageRecord, Split
from pipeline.errors import PipelineError
from tasks.data.sharded import ShardedTask
from tasks.engine import parameters
from tasks.engine.parameters import inherits
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.results import stage_table
from tasks.stage import Stage


def note(*words) -> None:
    """Appends one line to the log of the test; one write, so that lines of several processes do not mix."""
    if log := os.environ.get("TRIVIAL_LOG"):
        with open(log, "ab", buffering=0) as file:
            file.write((" ".join(map(str, words)) + "\n").encode())


def half_way(where: str) -> None:
    """Called in the middle of each build and when keys are computed: does what the test asks for."""
    mood = json.loads(os.environ.get("TRIVIAL_MOODS", "{}")).get(where)
    if mood == "slow":
        time.sleep(0.5)
    elif mood == "three at once":  # so that each of three hosts of one worker takes one
        deadline = time.monotonic() + 60
        while Path(os.environ["TRIVIAL_LOG"]).read_text().count(f"built {where} ") < 3:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)
    elif mood == "hang" or (mood == "hang once" and "hanging" not in Path(os.environ["TRIVIAL_LOG"]).read_text()):
        note("hanging", where, os.getpid())
        time.sleep(60)
    elif mood == "user error":
        raise PipelineError("numbers.txt: found a mood", "expected none; cheer up")
    elif mood == "bug":
        raise ZeroDivisionError("a bug")
    elif mood == "meddle":
        Path("numbers.txt").write_text("7\n")


class ListNumbers(Stage):
    """The index: one record for each line of a file outside the cache; `width` is the number."""

    numbers = parameters.text("numbers.txt", "trivial", "numbers", "file of numbers, one per line")
    resolved = ("numbers",)

    def resolve(self) -> dict:
        half_way("keys")
        path = Path(self.numbers)
        return {"numbers": self.digest_memory.of([path])[path]}

    def build(self, workshop: Workshop) -> dict:
        note("built", self.stage)
        lines = Path(self.numbers).read_text().split()
        none = np.zeros(0)
        images = tuple(ImageRecord(f"{i}", "", "", int(line), 1, none, none, none) for i, line in enumerate(lines))
        (workshop.files / "index.json").write_text(json.dumps(Split("all", (), images).to_json()))
        half_way(self.stage)
        return {"images": len(images)}


@inherits(ListNumbers)
class RaiseNumbers(ShardedTask):
    """Each number to the power of `power`."""

    power = parameters.number(2.0, "trivial", "power", "exponent", minimum=0, maximum=10)
    computes = False  # so that two workers take two shards

    def index_task(self) -> ListNumbers:
        return self.clone(ListNumbers)

    def record_key(self, split: Split, record: ImageRecord) -> dict:
        return {"id": record.id, "number": record.width}

    def build_shard(self, workshop: Workshop, split: Split) -> dict:
        note("built", self.stage, self.shard)
        (workshop.files / "powers.json").write_text(json.dumps([image.width**self.power for image in split.images]))
        half_way(self.stage)
        return {"numbers": len(split.images)}

    def merge_shards(self, workshop: Workshop, shards: list) -> dict:
        note("built", self.stage, "whole")
        return {"shards": len(shards)}


@inherits(RaiseNumbers)
class SumNumbers(Stage):
    """The sum of the powers and an offset, with a checkpoint in the middle, as in a long training."""

    offset = parameters.integer(0, "trivial", "offset", "added to the sum", minimum=-1000)
    seed = parameters.integer(0, "trivial", "seed", "stands for the seed of a random stage")

    def requires(self) -> dict:
        return {"powers": self.clone(RaiseNumbers)}

    def build(self, workshop: Workshop) -> dict:
        checkpoint = workshop.checkpoint / "powers.json"
        if checkpoint.exists():
            note("resumed", self.stage)
        note("built", self.stage)
        powers = [power for shard in self.inputs()["powers"].shards() for power in shard.json("powers.json")]
        checkpoint.write_text(json.dumps(powers))
        (workshop.files / "powers.json").write_text(json.dumps(powers))
        half_way(self.stage)
        (workshop.files / "sum.json").write_text(json.dumps(sum(powers) + self.offset))
        return {"sum": sum(powers) + self.offset}

    def show(self) -> None:
        half_way("show")
        print(f"{stage_table([self.artefact])}\nthe sum is {self.artefact.json('sum.json')}")


def make(task: CachedTask) -> CachedTask:
    """Runs `task` and the tasks that it needs, in the same order as Luigi; returns it."""
    if not task.complete():
        for required in task.requires().values():
            make(required)
        for shards in task.run() or ():
            for shard in shards:
                make(shard)
    return task
