"""How the file of an index is written and read."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json

INDEX = "index.json"


def load_split(artefact: Artefact):
    """The split in an index artefact; each process reads it once."""
    return _split_of(artefact.cache, artefact.stage, artefact.key)


@cache
def _split_of(cache_dir: Path, stage: str, key: str):
    from pipeline.datasets.records import ImageTable, Split

    images = ImageTable()
    return Split.from_json(Artefact(cache_dir, stage, key).json(INDEX, images.take), images)


def write_index(path: Path, split) -> None:
    """Writes the canonical JSON of `split.to_json()` image by image: the dictionaries of all images would take ten times as much
    memory as the split.
    """
    from pipeline.files.writing import create

    head, images, tail = canonical_json(replace(split, images=()).to_json()).partition('"images":[')
    with create(path) as file:
        file.write((head + images).encode())
        for number, image in enumerate(split.images):
            file.write((("," if number else "") + canonical_json(image.to_json())).encode())
        file.write((tail + "\n").encode())
