"""The score from which detections of each class are worth showing, and how likely detections are right."""

import logging
from functools import cached_property

from pipeline.errors import PipelineError
from tasks.data.first import IndexesFirst
from tasks.data.held_out import has_split, held_out_split
from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.detection import DETECTIONS, DetectSplit
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, show_table
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.evaluate import LOCALISATION, OF_ONE_CHAIN, STAGES, OfOneChain, iou_threshold_setting

logger = logging.getLogger("stages")

THRESHOLDS = "thresholds.json"
AUTO, NONE = "auto", "none"
CALIBRATED = ("rcnn", "spp-net")  # the chains whose scores are those of SVMs


@parameters.inherits(*STAGES, without=OF_ONE_CHAIN)
class FindThresholds(OfOneChain, IndexesFirst):
    """The score of each class's best F1, on a split that the chain is neither trained nor tested on, if there is one.

    With `calibrate`, also the probabilities that the scores of the SVMs stand for.
    """

    computes = False
    resolved = ("threshold_split",)  # the key of its index says which

    iou_threshold = iou_threshold_setting()
    threshold_split = parameters.text(
        AUTO, "detect", "threshold_split",
        "split whose best F1 gives the thresholds; auto: val if nothing is trained or tested on it, else the test split; none",
    )
    calibrate = parameters.switch(
        False, "detect", "calibrate", "whether probabilities are fitted to the scores of SVMs (Platt's method)"
    )

    @cached_property
    def chosen_split(self) -> str | None:
        """The split that the thresholds are chosen on; None without thresholds."""
        if self.threshold_split != AUTO:
            return None if self.threshold_split == NONE else self.threshold_split
        return held_out_split(self) or (self.test_split if has_split(self, self.test_split) else None)

    def splits(self) -> dict[str, IndexDataset]:
        names = dict.fromkeys([self.train_split, self.chosen_split or self.train_split])
        return {name: self.clone(IndexDataset, split=name) for name in names}

    def requires(self) -> dict[str, CachedTask]:
        if not (split := self.chosen_split):
            raise PipelineError(f"--threshold-split {self.threshold_split}: no split to choose thresholds on; give one by name")
        self._check_chain()
        stage: DetectSplit = self.detection()
        return {"split": self.clone(IndexDataset, split=split), "detections": stage.clone(type(stage), test_split=split)}

    def _check_chain(self) -> None:
        if self.calibrate and self.chain not in CALIBRATED:
            chains = " or ".join(CALIBRATED)
            raise PipelineError(f"--calibrate true: {self.chain} gives probabilities already; use it with --chain {chains}")

    def also(self) -> str | None:
        """What else the split is used for: `training`, `test` or nothing."""
        split = self.chosen_split
        if split == self.train_split:
            return "training"
        return "test" if split == self.test_split else None

    def resolve(self) -> dict:
        # Whether the split is also trained or tested on is in the file.
        return {**super().resolve(), "also": self.also()}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.detection.detections import Detections
        from pipeline.evaluation.calibration import calibrate
        from pipeline.evaluation.operating_points import best_f1
        from pipeline.evaluation.voc_ap import match_detections
        from pipeline.tables import format_table

        split, also = load_split(self.inputs()["split"]), self.also()
        detections = Detections.load(self.inputs()["detections"].path(DETECTIONS))
        matches = match_detections(detections, split.images, split.classes, self.iou_threshold)
        points = [best_f1(matches, label) for label in range(len(split.classes))]
        result = {
            "split": split.name, "also": also, "images": len(split.images), "iou_threshold": self.iou_threshold,
            "classes": {name: point.to_json() for name, point in zip(split.classes, points, strict=True)},
        }
        if self.calibrate:
            result["calibration"] = dict(zip(split.classes, calibrate(matches), strict=True))
        if without := [name for name, point in zip(split.classes, points, strict=True) if point.score is None]:
            logger.warning(
                "%s: on the split '%s' nothing is found of %s: no threshold; --draw-score auto stands in", self.label, split.name,
                ", ".join(without),
            )
        workshop.write(THRESHOLDS, canonical_json(result) + "\n")
        rows = [[name, point.score, point.num_objects, 100 * point.precision, 100 * point.recall, 100 * point.f1]
                for name, point in zip(split.classes, points, strict=True)]
        table = format_table(["class", "from score", "objects", "precision", "recall", "F1"], rows, decimals=2)
        workshop.write(TABLE, f"{source_text(result)}\n\n{table}\n")
        return {"split": split.name, "images": len(split.images), "without_threshold": len(without)}

    def show(self) -> None:
        show_table(self.artefact, THRESHOLDS, TABLE)


def source_text(thresholds: dict) -> str:
    """Which split thresholds come from."""
    used = {"training": "the chain was trained on it", "test": "the chain is also tested on it"}
    also = f"; {used[thresholds['also']]}, so they look better than they are" if thresholds["also"] else ""
    return f"thresholds: best F1 of each class on the split '{thresholds['split']}'{also}"


def detector_thresholds(artefact: Artefact, classes) -> dict:
    """What `detector.json` says of thresholds and probabilities: see `pipeline.detection.thresholds`."""
    document = artefact.json(THRESHOLDS)
    scores = [document["classes"][name]["score"] for name in classes]
    thresholds = {"thresholds": {"split": document["split"], "also": document["also"], "scores": scores}}
    if "calibration" in document:
        thresholds["calibration"] = [document["calibration"][name] for name in classes]
    return thresholds


def thresholds_of(task: CachedTask) -> FindThresholds | None:
    """The stage that finds the thresholds of the detector of `task`; None where there is no split for them.

    Raises PipelineError if there is none and probabilities are asked for.
    """
    if task.chain == LOCALISATION and not task.calibrate:  # one detection an image: no average precision, no thresholds
        return None
    stage = task.clone(FindThresholds)
    return stage if stage.chosen_split or task.calibrate else None
