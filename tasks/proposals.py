"""Region proposals of one split, and how well they cover its objects."""

import time
from pathlib import Path

from pipeline.proposals import METHODS, OWN
from tasks import parameters
from tasks.artefacts import Artefact, Workshop
from tasks.cache import CachedTask, ShardedTask, load_split
from tasks.data import IndexDataset
from tasks.digests import canonical_json
from tasks.processes import peak_memory, run_in_pool, run_in_threads
from tasks.show import ShowResult

FILE = "proposals.npz"
QUALITY = "quality.json"
TABLE = "table.txt"
CURVE = "curve.svg"


@parameters.inherits(IndexDataset)
class RegionProposals(ShardedTask):
    """Class-independent boxes that may hold an object, most wanted first: `boxes` [N x 4], `offsets` [M + 1], `image_ids` [M]."""

    version = 2
    proposals = parameters.choice("balanced", METHODS, "proposals", "method", "how regions are proposed")
    max_proposals = parameters.integer(2000, "proposals", "max_proposals", "proposals an image, at most", minimum=1)
    image_width = parameters.integer(0, "proposals", "image_width", "width to resize images to first; 0: the method's own")
    seed = parameters.seed()

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "digest": record.digest}

    def build_shard(self, workshop: Workshop, split) -> dict:
        import numpy as np

        root = str(self.index_task().root.resolve())
        settings = (self.proposals, self.max_proposals, self.image_width or None, self.seed)
        jobs = [(root, record.path, record.digest, record.id, *settings) for record in split.images]
        # Ours releases the interpreter; the packages do not, wholly.
        run = run_in_threads if self.proposals in OWN else run_in_pool
        boxes, seconds, memory = zip(*self.progress()(run(_propose, jobs, self.num_threads), len(jobs)), strict=True)
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
    """One image's proposals, the seconds of a core that they took, and the peak memory of the process in bytes."""
    from pipeline.images import read_image
    from pipeline.proposals.propose import propose
    from pipeline.seeding import make_generator

    root, path, digest, image_id, method, max_boxes, image_width, seed = job
    image = read_image(Path(root) / path, digest)
    start = time.thread_time()
    boxes = propose(image, method, max_boxes, make_generator(seed, "proposals", image_id), image_width)
    return boxes, time.thread_time() - start, peak_memory()


def load_proposals(artefact: Artefact) -> list:
    """The proposals of each image, float32 [n x 4], of one shard's artefact or of a whole stage's."""
    import numpy as np

    if FILE not in artefact.manifest["files"]:
        return [boxes for shard in artefact.shards() for boxes in load_proposals(shard)]
    arrays = artefact.arrays(FILE)
    return np.split(arrays["boxes"], arrays["offsets"][1:-1])


@parameters.inherits(RegionProposals)
class MeasureProposals(CachedTask):
    """Recall and best overlap of one split's proposals, for all of them and for the first 1, 2, 5, ... of each image."""

    stage = "ProposalQuality"
    numeric = False

    def requires(self) -> dict[str, CachedTask]:
        return {"index": self.clone(IndexDataset), "proposals": self.clone(RegionProposals)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.evaluation.voc_ap import json_number
        from pipeline.proposals.recall import measure_quality, proposal_table
        from pipeline.report.plots import plot_proposal_quality

        split, proposals = load_split(self.inputs()["index"]), self.inputs()["proposals"]
        objects = [(image.boxes[~image.difficult], image.labels[~image.difficult]) for image in split.images]
        quality = measure_quality(load_proposals(proposals), *zip(*objects, strict=True), len(split.classes))
        seconds = proposals.manifest["figures"]["core_seconds_per_image"]
        about = {
            "method": self.proposals, "split": self.split, "images": len(objects), "classes": split.classes,
            "objects": sum(len(boxes) for boxes, _ in objects), "core_seconds_per_image": seconds,
        }
        title = f"proposals '{self.proposals}' on {len(objects)} images of '{self.split}', {about['objects']} objects"
        (workshop.files / QUALITY).write_text(canonical_json(about | quality.to_json()) + "\n")
        (workshop.files / TABLE).write_text(f"{title}, {seconds:.3f} s of a core an image\n{proposal_table(quality)}\n")
        plot_proposal_quality(quality, title, workshop.files / CURVE)
        return {
            "boxes_per_image": float(quality.boxes_per_image[-1]), "recall_50": json_number(quality.recalls[-1, 0]),
            "recall_70": json_number(quality.recalls[-1, 4]), "average_recall": json_number(quality.average_recall[-1]),
            "mabo": json_number(quality.mabo[-1]),
        }


@parameters.inherits(MeasureProposals)
class ProposalQuality(ShowResult):
    """How good the proposals of one split are: runs what is missing, then shows the table."""

    def requires(self) -> MeasureProposals:
        return self.clone(MeasureProposals)

    def show(self, artefact: Artefact) -> None:
        print(f"\n{artefact.path(TABLE).read_text()}")
        print(f"results: {artefact.folder}/ ({QUALITY}, {TABLE}, {CURVE})", flush=True)
