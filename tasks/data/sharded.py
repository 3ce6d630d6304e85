"""ShardedTask: a stage that works image by image. Each of its shards is a separate artefact."""

import abc
import contextlib
from collections.abc import Callable
from functools import cache, cached_property

from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.artefacts import SHARDS, WHOLE, Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.disk import check_disk
from tasks.engine.parameters import SettingError
from tasks.engine.task import CachedTask, describe
from tasks.engine.workshop import Workshop
from tasks.stage import Stage

SHARD_SIZE, MOST_SHARDS = 50, 1000


class ShardedTask(Stage):
    """A stage that works image by image, in shards of `images_per_shard` images of one split.

    With `shard` = `WHOLE` it is the whole stage: it requires the index of its split, yields its shards from `run` and lists them.
    With `shard` >= 0 it is one shard. A shard's key covers only the records of its own images: if a photograph changes, one shard
    is made again. A subclass names its required tasks in `upstream` and makes the files of one shard in `build_shard`. Its
    `record_key` gives those parts of an image's record that `build_shard` uses.
    """

    shard_size = parameters.integer(
        SHARD_SIZE, "run", "shard_size",
        f"images per shard, in stages that work image by image; {SHARD_SIZE}: more where a split would have over {MOST_SHARDS} "
        "shards", minimum=1,
    )
    shard = parameters.Number(default=WHOLE, kind=int, minimum=WHOLE, description="number of the shard; -1: the whole stage")
    resolved = ("shard",)

    @abc.abstractmethod
    def index_task(self) -> CachedTask:
        """The task that indexes the split."""

    def upstream(self) -> dict[str, CachedTask]:
        """The required tasks other than the index. A sharded one is cloned with this task's `shard`."""
        return {}

    @abc.abstractmethod
    def record_key(self, split, record) -> dict:
        """The parts of one image's record that `build_shard` uses, as JSON."""

    @abc.abstractmethod
    def build_shard(self, workshop: Workshop, split) -> dict | None:
        """Writes the files of one shard; `split` contains only the shard's images. Returns figures, which are summed."""

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict | None:
        """Writes files that need all shards; the list of shards is written anyway. Returns figures of the whole stage."""
        return {}

    def requires(self) -> dict[str, CachedTask]:
        return {"index": self.index_task(), **self.upstream()}

    @property
    def is_whole(self) -> bool:
        return self.shard == WHOLE

    def host_cores(self):
        return contextlib.nullcontext() if self.is_whole else super().host_cores()

    def complete(self) -> bool:
        if self.is_whole:
            return super().complete() and all(map(self.has, self.artefact.shards()))
        # Without the index the records of its images are unknown, and so is its key.
        return self.index_task().complete() and super().complete()

    @property
    def label(self) -> str:
        return f"{self.artefact}" if self.is_whole else f"{self.artefact} (shard {self.shard + 1} of {self.num_shards})"

    def load_split(self):
        """The split or, for a shard, its part of the split. Raises SettingError if there is no such shard."""
        split = load_split(self.index_task().artefact)
        if self.is_whole:
            return split
        if self.shard >= self.num_shards:
            images = f"{len(split.images)} images, {self.images_per_shard} a shard"
            raise SettingError(f"--shard: found {self.shard}, expected a number below {self.num_shards} ({images}); {WHOLE}: all")
        first = self.shard * self.images_per_shard
        return split.select(range(first, min(first + self.images_per_shard, len(split.images))))

    @cached_property
    def images_per_shard(self) -> int:
        """`shard_size`. The default grows with a large split: the time that Luigi takes for a task grows with their number.

        A split has the same shards whether 50 was given or is the default, since the key of the whole stage cannot tell.
        """
        if self.shard_size != SHARD_SIZE:
            return self.shard_size
        return max(SHARD_SIZE, -(-self._num_images // MOST_SHARDS))

    @property
    def _num_images(self) -> int:
        return len(load_split(self.index_task().artefact).images)

    @cached_property
    def num_shards(self) -> int:
        return -(-self._num_images // self.images_per_shard)

    def key_inputs(self) -> dict:
        inputs = super().key_inputs()
        if not self.is_whole:
            split = self.load_split()
            inputs["requires"] = {name: task.key for name, task in self.upstream().items()}
            inputs["records"] = [self.record_key(split, record) for record in split.images]
        return inputs

    def shards(self) -> list["ShardedTask"]:
        return [self.clone(shard=number) for number in range(self.num_shards)]

    def image_bytes(self) -> Callable | None:
        """A function from an `ImageShape` to about how many bytes its image's files will have; None where they are few."""
        return None

    def disk_bytes(self) -> float:
        """Those of the images whose shards are not there yet."""
        of_image = self.image_bytes() if self.is_whole else None
        if of_image is None:
            return 0
        sizes = list(map(cache(of_image), self.load_split().images.shapes()))
        if not self.artefact.folder.parent.exists():  # the usual case; 100,000 images' keys take long
            return sum(sizes)
        parts = (sizes[first:first + self.images_per_shard] for first in range(0, len(sizes), self.images_per_shard))
        return sum(sum(part) for part, shard in zip(parts, self.shards(), strict=True) if not shard.artefact.exists())

    def run(self):
        if self.is_whole:
            check_disk(self, [self], is_told=True)
            yield self.shards()
        self.make_artefact()

    def build(self, workshop: Workshop) -> dict | None:
        if not self.is_whole:
            return self.build_shard(workshop, self.load_split())
        shards = [task.artefact for task in self.shards()]
        workshop.write(SHARDS, canonical_json([describe(artefact) for artefact in shards]) + "\n")
        return {**sum_figures(shards), **(self.merge_shards(workshop, shards) or {})}

    def describe_inputs(self) -> dict[str, dict]:
        described = super().describe_inputs()
        if self.is_whole:
            return described | {f"shard {task.shard}": describe(task.artefact) for task in self.shards()}
        # The shard also fits another index with the same records. So it does not depend on the index that it was made with.
        return {name: artefact for name, artefact in described.items() if name != "index"}


def sum_figures(artefacts: list[Artefact]) -> dict:
    """The sums of the figures of shards."""
    total: dict = {}
    for artefact in artefacts:
        for name, value in artefact.manifest["figures"].items():
            total[name] = total.get(name, 0) + value
    return total
