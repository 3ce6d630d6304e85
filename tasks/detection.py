"""Detections of a split: what the detection stages of all chains share."""

import abc
from collections.abc import Iterable, Iterator

from tasks.data.first import IndexesFirst
from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask, sum_figures
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.disk import check_disk
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.left_out import candidate_figures, warn_of_limits
from tasks.networks.training_options import refuse_tested
from tasks.proposals.regions import load_proposals

CANDIDATES = "candidates.npz"
DETECTIONS = "detections.npz"
# Per image. It bounds the memory of the evaluation and the size of the result files. 100 in the release of Faster R-CNN.
MAX_DETECTIONS = 2000
NMS_THRESHOLD = 0.3


def validation_limits():
    """The limits of detections by which a training is validated: the defaults."""
    from pipeline.detection.candidates import Limits

    return Limits(0, NMS_THRESHOLD, MAX_DETECTIONS)


class DetectSplit(ShardedTask, IndexesFirst):
    """Detections of the test split: scores, moved boxes, suppression, and the limits that settings ask for.

    A shard contains the detections of each image. The whole stage contains all detections, also as VOC and COCO files. What a
    limit leaves out is counted in the figures, and there is a warning.
    """

    version = 2

    chain: str  # the name of the chain
    needs_proposals = True  # false if the detector makes its own proposals

    test_split = parameters.text("test", "dataset", "test_split", "split to detect in")
    nms_threshold = parameters.number(
        NMS_THRESHOLD, "detect", "nms_threshold", "IoU above which the worse of two boxes is suppressed", minimum=0, maximum=1
    )
    # NOTE: the releases' limits suit VOC, where an image has two or three objects. An image with 180 objects needs more.
    max_per_image = parameters.integer(
        0, "detect", "max_per_image", "most candidates per class and image before suppression (the releases: 100); 0: all"
    )
    mean_per_image = parameters.integer(
        0, "detect", "mean_per_image",
        "most candidates per class and image before suppression, as the mean over the split (the releases: 40); 0: all",
    )
    max_detections = parameters.integer(
        MAX_DETECTIONS, "detect", "max_detections", "most detections per image, all classes together; 0: all"
    )

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset, split=self.test_split)

    def train_index(self) -> IndexDataset:
        """The index of the split that the chain is trained on."""
        return self.clone(IndexDataset, split=self.train_split)

    def deps(self) -> list[CachedTask]:
        return super().deps() if self.is_whole else list(self.requires().values())

    def run(self):
        if self.is_whole:
            check_disk(self, [self], is_told=self.is_of_command)
            yield list(self.requires().values())
            yield self.shards()
        self.make_artefact()

    @property
    def limits(self):
        from pipeline.detection.candidates import Limits

        return Limits(self.max_per_image, self.nms_threshold, self.max_detections)

    def save_candidates(self, workshop: Workshop, candidates: Iterable) -> dict:
        """Writes the candidates of each image of a shard; returns the figures. Suppressed ones only if the split is limited."""
        from pipeline.detection.candidates import save_candidates

        kept = [of_image if self.mean_per_image else of_image.without_suppressed() for of_image in candidates]
        save_candidates(workshop.files / CANDIDATES, kept)
        return candidate_figures(kept)

    @abc.abstractmethod
    def training_tasks(self) -> dict[str, CachedTask]:
        """The last stages of the chain's training."""

    @abc.abstractmethod
    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        """The parts of the chain's detector: for each the stage that makes it, and the name of its file."""

    def detector_settings(self) -> dict:
        """The settings of the chain's detector, for `build_chain`, as JSON."""
        names = "max_per_image", "nms_threshold", "max_detections"
        return {name: getattr(self, name) for name in names}

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
        ids = [image.id for image in split.images]
        detections = select_detections(StoredCandidates(shards), ids, split.classes, self.mean_per_image)
        detections.save(workshop.files / DETECTIONS)
        (workshop.files / "voc").mkdir()
        write_voc(workshop.files / "voc", split.name, detections)
        write_coco(workshop.files / "coco.json", detections, names_in_coco(split))
        sums = sum_figures(shards)
        over_split = sums["detections"] - len(detections)
        warn_of_limits(self.label, {
            "max_per_image": (self.max_per_image, sums.get("left_out_candidates", 0)),
            "mean_per_image": (self.mean_per_image, over_split),
            "max_detections": (self.max_detections, sums.get("left_out_detections", 0)),
        })
        return {"detections": len(detections), **({"left_out_over_split": over_split} if over_split else {})}


class DetectByNetwork(DetectSplit):
    """Detections by a network that reads whole images."""

    version = 2

    def requires(self) -> dict[str, CachedTask]:
        refuse_tested(self)
        return super().requires()

    def record_key(self, split, record) -> dict:
        return {"id": record.id, **record.pixels_key()}

    def detector_settings(self) -> dict:
        return {**super().detector_settings(), "backbone": self.backbone, "precision": self.arithmetic}

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.prefetch import prefetch

        detector, inputs = self.load_detector(), self.inputs()
        pixels = prefetch(map(ImageCache(self.index_task().root, 0).read, split.images))
        proposals = [load_proposals(inputs["proposals"])] if self.needs_proposals else []
        arguments = self.progress()(zip(pixels, *proposals, strict=True), len(split.images))
        return self.save_candidates(workshop, (detector.detect(*of_image) for of_image in arguments))


class StoredCandidates:
    """The candidates of every image of a split. Each iteration reads them from the shards' files again, to save memory."""

    def __init__(self, shards: list[Artefact]):
        self.paths = [shard.path(CANDIDATES) for shard in shards]

    def __iter__(self) -> Iterator:
        from pipeline.detection.candidates import load_candidates

        return (image for path in self.paths for image in load_candidates(path))
