"""Region proposals of one split."""

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pipeline.proposals import METHODS, OWN
from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask, sum_figures
from tasks.data.sources import EMBEDDED
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import MISSING
from tasks.engine.memory import peak_memory
from tasks.engine.processes import run_in_pool, run_in_threads
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_arrays
from tasks.left_out import warn_of_limits
from tasks.proposals.reach import reach_figures

FILE = "proposals.npz"
MOST_PROPOSALS = 2000  # per image; Girshick et al. 2014, section 2.1: around 2000
# Ours: images of `digits` are small. On its split `val` the first 500 reach a MABO of 0.906, all 880 reach 0.909.
FEWER = dict.fromkeys(EMBEDDED, 500)


@parameters.inherits(IndexDataset)
class RegionProposals(ShardedTask):
    """Class-independent boxes that may contain an object, best first: `boxes` [N x 4], `offsets` [M + 1], `image_ids` [M].

    The boxes of image `i` are those from `offsets[i]` to `offsets[i + 1]`.
    """

    version = 4
    resolved = (*ShardedTask.resolved, "proposals", "max_proposals")

    proposals = parameters.choice(
        "balanced", METHODS, "proposals", "method", "method that proposes regions, or files of proposals",
        suffixes=(".mat", ".npz"),
    )
    max_proposals = parameters.integer(
        0, "proposals", "max_proposals", "most proposals per image; 0: 2000, or 500 for digits and digits-single"
    )
    image_width = parameters.integer(0, "proposals", "image_width", "width that images are resized to first; 0: the method's own")
    seed = parameters.seed()

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def record_key(self, split, record) -> dict:
        return {"id": record.id, **record.pixels_key()}

    def resolve(self) -> dict:
        limit = {"max_boxes": proposal_limit(self)}
        if self.proposals in METHODS:
            return {"method": self.proposals, **limit}
        return {"files": sorted(self.file_digests().values()), **limit}

    def file_digests(self) -> dict[Path, str]:
        """The present digest of each file of proposals."""
        return self.digest_memory.of(Path(name.strip()) for name in self.proposals.split(","))

    @property
    def cores_needed(self) -> tuple[int, int]:
        return 1, self.num_threads  # the bytes do not depend on the number of cores

    @property
    def boxes_per_image(self) -> float:
        """How many proposals an image has on average, for estimates: the limit, until they are in the cache."""
        return self.artefact.manifest["figures"]["boxes_per_image"] if self.complete() else proposal_limit(self)

    def run(self):
        if self.is_whole and self.proposals not in METHODS and not all(shard.complete() for shard in self.shards()):
            self._check_files()
        yield from super().run()

    def _check_files(self) -> None:
        """Raises for all images at once: as errors of their shards, the same fault would be told many times."""
        from pipeline.proposals.files import check_boxes

        check_boxes(self.load_split().images, self._boxes_by_file())

    def _boxes_by_file(self) -> dict[Path, dict]:
        return {path: _read_file(path, digest) for path, digest in self.file_digests().items()}

    def build_shard(self, workshop: Workshop, split) -> dict:
        if self.proposals not in METHODS:
            return self._take_from_files(workshop, split)
        root = str(self.index_task().root.resolve())
        jobs = [(root, record, proposal_settings(self)) for record in split.images]
        # Our code releases the interpreter lock; the packages hold it for a part of their work.
        run = run_in_threads if self.proposals in OWN else run_in_pool
        results = self.progress()(run(_propose, jobs, self.num_cores), len(jobs))
        boxes, surplus, seconds, memory = zip(*results, strict=True)
        self.pool_memory = max(memory)
        return self._save(workshop, split, boxes, surplus=surplus, seconds=sum(seconds))

    def _take_from_files(self, workshop: Workshop, split) -> dict:
        from pipeline.proposals.files import boxes_of

        files, limit = self._boxes_by_file(), proposal_limit(self)
        boxes = [boxes_of(image, files) for image in split.images]
        surplus = [max(0, len(of_image) - limit) for of_image in boxes]
        return self._save(  # their time is unknown
            workshop, split, [of_image[:limit] for of_image in boxes], surplus=surplus, seconds=0.0
        )

    def _save(self, workshop: Workshop, split, boxes: Sequence, *, surplus: Sequence[int], seconds: float) -> dict:
        """Writes the proposals of each image; `surplus` is how many more each had."""
        save_proposals(workshop, boxes, split)
        left_out = {"left_out_proposals": sum(surplus)} if any(surplus) else {}
        return {"images": len(boxes), "boxes": sum(map(len, boxes)), "core_seconds": seconds, **left_out}

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        left_out = sum_figures(shards).get("left_out_proposals", 0)
        warn_of_limits(self.label, {"max_proposals": (proposal_limit(self), left_out)})
        proposals = (boxes for shard in shards for boxes in load_proposals(shard))
        return {**sum_proposals(shards), **reach_figures(self.label, self.load_split(), proposals, self._advise)}

    def _advise(self, reach, unreached) -> str:
        """What to do about objects that no proposal reaches."""
        from pipeline.proposals.reach import describe_sides, search_advice

        if self.proposals in METHODS:
            return search_advice(reach, unreached, self.proposals, self.image_width)
        sides = describe_sides(reach.sides[unreached])
        return f"{sides}: see that the boxes in {self.proposals} belong to these images, or raise --max-proposals"


@cache
def _read_file(path: Path, digest: str) -> dict:
    """The content of the file of proposals `path`. Each process reads it once, and again when its digest changes."""
    from pipeline.errors import PipelineError
    from pipeline.files.reading import check_regular
    from pipeline.proposals.files import read_proposals

    if digest == MISSING:
        check_regular(path)
        raise PipelineError(f"--proposals {path}: no such file; give files, or one of {', '.join(METHODS)}")
    return read_proposals(path)


def _propose(job: tuple):
    """One image's proposals, how many more there were, their cost in core seconds, and the process's peak memory in bytes."""
    from pipeline.images.reading import read_record
    from pipeline.proposals.propose import propose_for

    root, record, settings = job
    image = read_record(root, record)
    start = time.thread_time()
    boxes, surplus = propose_for(image, record.id, **settings)
    return boxes, surplus, time.thread_time() - start, peak_memory()


def method_name(task) -> str:
    """The name of the task's method in results; `file` for proposals from any files."""
    return task.proposals if task.proposals in METHODS else "file"


def proposal_limit(task) -> int:
    """The most proposals per image."""
    return task.max_proposals or FEWER.get(task.dataset, MOST_PROPOSALS)


def proposal_settings(task) -> dict:
    """The arguments of `propose_for` that settings determine."""
    return {"method": task.proposals, "max_boxes": proposal_limit(task), "image_width": task.image_width, "seed": task.seed}


def save_proposals(workshop: Workshop, boxes: list, split) -> None:
    """Writes the proposals of each image of `split`."""
    from pipeline.proposals.files import write_npz

    write_npz(workshop.files / FILE, [record.id for record in split.images], boxes)


def sum_proposals(shards: list[Artefact]) -> dict:
    """The figures of a whole stage that proposes regions, from those of its shards."""
    figures = [shard.manifest["figures"] for shard in shards]
    images = sum(shard["images"] for shard in figures)
    return {
        "boxes_per_image": sum(shard["boxes"] for shard in figures) / images,
        "core_seconds_per_image": sum(shard["core_seconds"] for shard in figures) / images,
    }


def load_proposals(artefact: Artefact) -> list:
    """The proposals of each image, float32 [n x 4]. `artefact`: a shard's or a whole stage's."""
    import numpy as np

    if FILE not in artefact.manifest["files"]:
        return [boxes for shard in artefact.shards() for boxes in load_proposals(shard)]
    arrays = read_arrays(artefact, FILE)
    return np.split(arrays["boxes"], arrays["offsets"][1:-1])
