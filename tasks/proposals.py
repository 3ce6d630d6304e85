"""Region proposals of one split."""

import time
from pathlib import Path

from tasks import parameters
from tasks.artefacts import Artefact, Workshop
from tasks.cache import ShardedTask
from tasks.data import IndexDataset
from tasks.processes import peak_memory, run_in_pool

FILE = "proposals.npz"


@parameters.inherits(IndexDataset)
class RegionProposals(ShardedTask):
    """Class-independent boxes that may hold an object, most wanted first: `boxes` [N x 4], `offsets` [M + 1], `image_ids` [M]."""

    proposals = parameters.choice("selectivesearch", ("selectivesearch",), "proposals", "method", "how regions are proposed")
    max_proposals = parameters.integer(2000, "proposals", "max_proposals", "proposals an image, at most", minimum=1)
    seed = parameters.seed()

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "digest": record.digest}

    def build_shard(self, workshop: Workshop, split) -> dict:
        import numpy as np

        root = str(self.index_task().root.resolve())
        settings = (self.proposals, self.max_proposals, self.seed)
        jobs = [(root, record.path, record.digest, record.id, *settings) for record in split.images]
        boxes, seconds, memory = zip(*self.progress()(run_in_pool(_propose, jobs, self.num_threads), len(jobs)), strict=True)
        self.pool_memory = max(memory)
        offsets = np.cumsum([0, *map(len, boxes)])
        ids = np.array([record.id for record in split.images])
        np.savez(workshop.files / FILE, boxes=np.concatenate(boxes), offsets=offsets, image_ids=ids)
        return {"images": len(jobs), "boxes": int(offsets[-1]), "core_seconds": sum(seconds)}

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        figures = [shard.manifest["figures"] for shard in shards]
        images = sum(shard["images"] for shard in figures)
        return {
            "boxes_per_image": sum(shard["boxes"] for shard in figures) / images,
            "core_seconds_per_image": sum(shard["core_seconds"] for shard in figures) / images,
        }


def _propose(job: tuple):
    """One image's proposals, in a process of the pool, the seconds that they took, and the process's peak memory in bytes."""
    from pipeline.images import read_image
    from pipeline.proposals import propose
    from pipeline.seeding import make_generator

    root, path, digest, image_id, method, max_boxes, seed = job
    image = read_image(Path(root) / path, digest)
    start = time.perf_counter()
    boxes = propose(image, method, max_boxes, generator=make_generator(seed, "proposals", image_id))
    return boxes, time.perf_counter() - start, peak_memory()


def load_proposals(artefact: Artefact) -> list:
    """The proposals of each image, float32 [n x 4], of one shard's artefact or of a whole stage's."""
    import numpy as np

    if FILE not in artefact.manifest["files"]:
        return [boxes for shard in artefact.shards() for boxes in load_proposals(shard)]
    arrays = artefact.arrays(FILE)
    return np.split(arrays["boxes"], arrays["offsets"][1:-1])
