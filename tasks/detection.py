"""Detections of a split: what the detection stages of all chains share."""

import abc
from collections.abc import Iterator

from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.proposals.regions import load_proposals

CANDIDATES = "candidates.npz"
DETECTIONS = "detections.npz"


class DetectSplit(ShardedTask):
    """Detections of the test split: scores, moved boxes, suppression, and score thresholds for the whole split.

    A shard contains the best candidates of each image. The whole stage contains the detections, also as VOC and COCO files.
    """

    version = 2

    chain: str  # the name of the chain
    needs_proposals = True  # false if the detector makes its own proposals

    test_split = parameters.text("test", "dataset", "test_split", "split to detect in")
    nms_threshold = parameters.number(
        0.3, "detect", "nms_threshold", "IoU above which the worse of two boxes is suppressed", minimum=0, maximum=1
    )
    max_per_image = parameters.integer(100, "detect", "max_per_image", "most candidates per class and image", minimum=1)

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset, split=self.test_split)

    @property
    def limits(self):
        from pipeline.detection.candidates import Limits

        return Limits(self.max_per_image, self.nms_threshold)

    @abc.abstractmethod
    def training_tasks(self) -> dict[str, CachedTask]:
        """The last stages of the chain's training."""

    @abc.abstractmethod
    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        """The parts of the chain's detector: for each the stage that makes it, and the name of its file."""

    def detector_settings(self) -> dict:
        """The settings of the chain's detector, for `build_chain`, as JSON."""
        return {"max_per_image": self.max_per_image, "nms_threshold": self.nms_threshold}

    def load_detector(self):
        """The chain's detector for new images: `detect(pixels, proposals)` returns the candidates of one image.

        If the detector needs no proposals, it is `detect(pixels)`.
        """
        from pipeline.detector import build_chain
        from pipeline.networks.compute import prepare

        parts = {part: task.artefact.path(name) for part, (task, name) in self.detector_parts().items()}
        return build_chain(self.chain, self.detector_settings(), parts, prepare(self.device, self.num_threads))

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        from pipeline.detection.candidates import select_detections
        from pipeline.detection.result_files import names_in_coco, write_coco, write_voc

        split = self.load_split()
        detections = select_detections(StoredCandidates(shards), [image.id for image in split.images], split.classes)
        detections.save(workshop.files / DETECTIONS)
        (workshop.files / "voc").mkdir()
        write_voc(workshop.files / "voc", split.name, detections)
        write_coco(workshop.files / "coco.json", detections, names_in_coco(split))
        return {"detections": len(detections)}


class DetectByNetwork(DetectSplit):
    """Detections by a network that reads whole images."""

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "digest": record.digest}

    def detector_settings(self) -> dict:
        return {**super().detector_settings(), "backbone": self.backbone, "precision": self.arithmetic}

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.detection.candidates import save_candidates
        from pipeline.images.reading import ImageCache
        from pipeline.prefetch import prefetch

        detector, inputs = self.load_detector(), self.inputs()
        pixels = prefetch(map(ImageCache(self.index_task().root, 0).read, split.images))
        proposals = [load_proposals(inputs["proposals"])] if self.needs_proposals else []
        arguments = self.progress()(zip(pixels, *proposals, strict=True), len(split.images))
        candidates = [detector.detect(*of_image) for of_image in arguments]
        save_candidates(workshop.files / CANDIDATES, candidates)
        return {"images": len(candidates), "candidates": sum(len(image.score) for image in candidates)}


class StoredCandidates:
    """The candidates of every image of a split. Each iteration reads them from the shards' files again, to save memory."""

    def __init__(self, shards: list[Artefact]):
        self.paths = [shard.path(CANDIDATES) for shard in shards]

    def __iter__(self) -> Iterator:
        from pipeline.detection.candidates import load_candidates

        return (image for path in self.paths for image in load_candidates(path))
