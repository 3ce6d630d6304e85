"""`describe`: the figures of a data set, with its proposals from the cache."""

import json
from pathlib import Path

from pipeline.conversion.convert import check_target, new_folder
from pipeline.datasets.whole import Dataset, Progress, read_dataset
from pipeline.description.describe import Proposals
from pipeline.description.describe import describe as measure
from pipeline.description.fit import AnchorSet
from pipeline.description.page import render, table_text
from pipeline.files.writing import write_file
from pipeline.text import printable, printable_lines
from tasks.data.splits import load_split
from tasks.data_cli.text import remark_lines
from tasks.engine.artefacts import Artefact
from tasks.engine.catalogue import Catalogue, Entry
from tasks.proposals.regions import RegionProposals, load_proposals


def describe(
    source: Path, output: Path | None, cache: Path, *, anchors: AnchorSet, as_json: bool, progress: Progress, **reading
) -> int:
    """Prints the description, and writes it into the new folder `output`."""
    if output:
        check_target(source, output)
    dataset = read_dataset(source, progress=progress, **reading)
    proposals = cached_proposals(cache, dataset)
    limit = reading["max_megapixels"]
    description = measure(dataset, anchors=anchors, proposals=proposals, max_megapixels=limit, progress=progress)
    remarks = list(remark_lines(dataset))
    text = json.dumps(description | {"remarks": remarks}, indent=1) + "\n"
    tables = printable_lines(table_text(description)) + "".join(f"{printable(line)}\n" for line in remarks)
    if output:
        with new_folder(output) as folder:
            files = {"describe.json": text, "table.txt": tables, "describe.html": render(description, remarks)}
            for name, content in files.items():
                write_file(folder / name, content)
    print(text if as_json else tables, end="")
    if output and not as_json:
        print(printable(f"written: {output / 'describe.html'}, describe.json, table.txt"))
    return 0


def cached_proposals(cache: Path, dataset: Dataset) -> dict[str, tuple[str, Proposals]]:
    """By split, the newest cached proposals of all its images: where they come from, and the boxes by the images' paths."""
    if not cache.is_dir():
        return {}
    catalogue = Catalogue(cache)
    entries = [entry for entry in catalogue.entries.values() if entry.stage == RegionProposals.stage and not entry.is_shard]
    proposals: dict[str, tuple[str, Proposals]] = {}
    for entry in sorted(entries, key=lambda entry: -entry.started):
        boxes = _by_pixels(catalogue, entry)
        for name, split in dataset.splits.items():
            keys = [(image.digest, image.orientation) for image in split.images]
            if name not in proposals and all(key in boxes for key in keys):
                method = f"{entry.name}, {entry.manifest['settings'].get('proposals')}"
                proposals[name] = method, {image.path: boxes[key] for image, key in zip(split.images, keys)}
    return proposals


def _by_pixels(catalogue: Catalogue, entry: Entry) -> dict:
    """The boxes of each image, by what its pixels depend on; none where the cache no longer has the index."""
    index = catalogue.get(entry.sources["index"]) if "index" in entry.sources else None
    if index is None or len(catalogue.shards(entry)) < sum(name.startswith("shard ") for name in entry.manifest["inputs"]):
        return {}
    split = load_split(Artefact(catalogue.cache, index.stage, index.key))
    boxes = load_proposals(Artefact(catalogue.cache, entry.stage, entry.key))
    return {(image.digest, image.orientation): of_image for image, of_image in zip(split.images, boxes)}
