"""Detections by SSD, RetinaNet, Mask R-CNN and torchvision's other detectors."""

from collections.abc import Iterable, Iterator

from pipeline.later_detectors.names import has_masks
from tasks.data.index import IndexDataset
from tasks.detection import CANDIDATES, DETECTIONS, DetectByNetwork
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_arrays
from tasks.later_detectors.base import MASKS, MIN_SCORE, NETWORK, LaterTask
from tasks.later_detectors.training import TrainDetector


@parameters.inherits(IndexDataset, TrainDetector, without=("split",))
class DetectWithNetwork(DetectByNetwork, LaterTask):
    """Detections of the test split by the detector that `--architecture` names; with masks, where it predicts any."""

    resolved = (*LaterTask.resolved, *DetectByNetwork.resolved)
    needs_proposals = False

    detector_min_score = parameters.number(
        MIN_SCORE, "detector", "min_score", "lowest score of a detection (the releases: 0.01 for SSD, 0.05 for the others)",
        minimum=0, maximum=1,
    )

    @property
    def chain(self) -> str:  # type: ignore[override]
        return self.architecture

    def upstream(self) -> dict[str, CachedTask]:
        return self.training_tasks()

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self.clone(TrainDetector)}

    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        return {"network": (self.clone(TrainDetector), NETWORK)}

    def detector_settings(self) -> dict:
        return {**super().detector_settings(), **self.design_values, "min_score": self.detector_min_score}

    def save_candidates(self, workshop: Workshop, candidates: Iterable) -> dict:
        from pipeline.detection.masks import save_masks

        if not has_masks(self.architecture):
            return super().save_candidates(workshop, candidates)
        candidates = [image if self.mean_per_image else image.without_suppressed() for image in candidates]
        save_masks(workshop.files / MASKS, [image.masks for image in candidates])
        return super().save_candidates(workshop, candidates)

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        figures = super().merge_shards(workshop, shards)
        if has_masks(self.architecture):
            self._merge_masks(workshop, shards)
        return figures

    def _merge_masks(self, workshop: Workshop, shards: list[Artefact]) -> None:
        """Writes the masks of the detections, in their order."""
        from pipeline.detection.detections import Detections
        from pipeline.detection.masks import kept_rows, of_image, save_masks

        detections = Detections.load(workshop.files / DETECTIONS)
        save_masks(workshop.files / MASKS, [
            masks[kept_rows(candidates, detections.class_index[of_image(detections, number)])]
            for number, (candidates, masks) in enumerate(self._of_shards(shards))
        ])

    def _of_shards(self, shards: list[Artefact]) -> Iterator[tuple]:
        import numpy as np

        from pipeline.detection.candidates import load_candidates

        for shard in shards:
            candidates = load_candidates(shard.path(CANDIDATES))
            masks = read_arrays(shard, MASKS)["masks"]
            ends = np.cumsum([len(image.score) for image in candidates])[:-1]
            yield from zip(candidates, np.split(masks, ends), strict=True)
