"""What `rcnn-data` prints."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.conversion.convert import Conversion
from pipeline.datasets.whole import Dataset
from pipeline.tables import format_table

NAMES = {"voc": "VOC", "coco": "COCO", "yolo": "YOLO"}


def conversion_lines(converted: Conversion, target: Path, format: str) -> Iterator[str]:
    source, differences = converted.source, converted.differences
    yield f"{source.root} ({NAMES[source.format]}'s format) is now also {target} ({NAMES[format]}'s format)"
    rows = [
        (name, len(split.images), sum(int((~image.ignored).sum()) for image in split.images))
        for name, split in source.splits.items()
    ]
    yield from format_table(("split", "images", "objects"), rows).splitlines()
    yield f"{len(converted.names):,} different images; classes: {', '.join(source.classes)}"
    yield f"largest difference of a box: {differences.boxes:.7f} pixels; of a keypoint: {differences.keypoints:.7f} pixels"
    for what, count in converted.lost.items():
        yield f"left out: {count:,} {what}, which {NAMES[format]}'s format does not have"
    yield from (f"noted: {count:,} {what}" for what, count in converted.noted.items())
    yield from remark_lines(source)


def remark_lines(dataset: Dataset) -> Iterator[str]:
    """What was left out and noted while the splits were read."""
    for name, split in dataset.splits.items():
        yield from (f"split '{name}': left out: {remark}" for remark in split.dropped)
        yield from (f"split '{name}': noted: {remark}" for remark in split.notes)
    if dataset.left_out:
        yield f"splits that were not read: {', '.join(dataset.left_out)}; give them with --splits"
