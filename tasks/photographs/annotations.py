"""Detections as annotations for labelling tools: the settings, and how the stage writes them."""

import logging
from collections.abc import Sequence

from pipeline.detection.score_names import AUTO, BEST_F1
from tasks.engine import parameters
from tasks.engine.workshop import Workshop

logger = logging.getLogger("stages")

ANNOTATIONS = "annotations"
FORMATS = ("voc", "coco", "yolo", "label-studio")


class Score(parameters.Number):
    """A number, `auto` or `best-f1`."""

    def normalize(self, value):
        return value if value in (AUTO, BEST_F1) else super().normalize(value)

    def serialize(self, value) -> str:
        return str(value)


class Formats(parameters.Names):
    """Names of formats, each once, in the order of FORMATS."""

    def normalize(self, value) -> tuple[str, ...]:
        names = super().normalize(value)
        if set(names) - set(FORMATS):
            raise parameters.SettingError(f"{self.option}: found {','.join(names)!r}, expected some of {', '.join(FORMATS)}")
        return tuple(name for name in FORMATS if name in names)


def score_setting(name: str, what: str):
    description = f"{what}: a number; {BEST_F1}: the class's threshold; {AUTO}: 0 for SVMs, 0.5 for probabilities"
    return Score(default=BEST_F1, config_path={"section": "detect", "name": name}, description=description)


def formats_setting():
    description = f"formats of annotations for labelling tools, from {','.join(FORMATS)}; empty: none"
    return Formats(default=(), config_path={"section": "detect", "name": ANNOTATIONS}, description=description)


def write_annotations(
    workshop: Workshop, images: Sequence[dict], detections, *, lowest, formats: Sequence[str], studio_images: str
) -> dict:
    """Writes those `detections` that reach the `lowest` score [C] of their class. Returns figures.

    `images` are as the shards list them.
    """
    from pipeline.detection import annotation_files
    from pipeline.detection.detections import ImageDetections

    usable = [image for image in images if "error" not in image]
    pairs = [
        annotation_files.prepare(image["image"], image["width"], image["height"], ImageDetections.of(detections, number), lowest)
        for number, image in enumerate(usable)
    ]
    annotated = [image for image, _ in pairs]
    annotation_files.write_annotations(workshop.files / ANNOTATIONS, formats, annotated, detections.classes, studio_images)
    figures = {"annotated": sum(len(image.detections) for image in annotated)}
    if without_area := sum(count for _, count in pairs):
        logger.warning("%d boxes have no area in their photograph and are left out of the annotations", without_area)
        figures["annotations_left_out"] = without_area
    return figures
