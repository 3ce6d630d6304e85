"""The labelling loop on a data set in VOC's layout: what annotating with a detector saves, and what the new photographs bring.

    python -m tests.trials.labelling VOC_FOLDER WORK_FOLDER --start small --photographs val -- --threads 1 MORE SETTINGS

Every second image of the split `--photographs`, at most `--number`, loses its annotation. The others are the test images.

1. A detector is trained on the split `--start`, less the images of `--photographs`. Its thresholds are chosen on as many images
   of the split `--held-out` that are in neither.
2. It annotates the photographs. VOC's files are read back by our reader.
3. They are corrected by the truth, as by a person: a box of the right class with an IoU of 0.7 or more stays as it is, each
   other box goes, and the missing ones are drawn.
4. Detectors are trained on the first split with the photographs: as corrected, as annotated, and with the truth.

It prints how many boxes stayed, went and were drawn, and the mAP of each detector on the test images. The settings after `--` go
to each command. Results are in the cache of WORK_FOLDER: a second call goes on where the first ended.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.records import Split
from pipeline.matching import match_boxes
from tasks.engine.digests import DigestMemory

KEPT_FROM = 0.7
FOLDERS = ("JPEGImages", "Annotations", "ImageSets/Main")
POOL, START, TEST, VAL = "photographs", "start", "rest", "val"


def ids_of(root: Path, split: str) -> list[str]:
    return [line.split()[0] for line in (root / f"ImageSets/Main/{split}.txt").read_text().splitlines() if line.strip()]


def write_list(root: Path, split: str, ids: list[str]) -> None:
    (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{id}\n" for id in ids))


def copy_image(source: Path, root: Path, id: str, annotation: Path | None) -> None:
    shutil.copyfile(source / f"JPEGImages/{id}.jpg", root / f"JPEGImages/{id}.jpg")
    if annotation:
        shutil.copyfile(annotation, root / f"Annotations/{id}.xml")


def prepare(source: Path, work: Path, start: str, photographs: str, held_out: str, number: int) -> dict[str, list[str]]:
    """The data set without the photographs' annotations, and the photographs; returns the ids of each split."""
    chosen = ids_of(source, photographs)
    first = [id for id in ids_of(source, start) if id not in set(chosen)]
    others = [id for id in ids_of(source, held_out) if id not in {*chosen, *first}]
    splits = {START: first, POOL: chosen[::2][:number], TEST: chosen[1::2], VAL: others[:number]}
    for folder in FOLDERS:
        (work / "data" / folder).mkdir(parents=True, exist_ok=True)
    (work / POOL).mkdir(exist_ok=True)
    for split in (START, TEST, VAL):
        for id in splits[split]:
            copy_image(source, work / "data", id, source / f"Annotations/{id}.xml")
        write_list(work / "data", split, splits[split])
    for id in splits[POOL]:
        shutil.copyfile(source / f"JPEGImages/{id}.jpg", work / POOL / f"{id}.jpg")
    return splits


def luigi(work: Path, stage: str, *settings: str) -> str:
    """Runs a stage in the work folder; returns what it printed to standard output."""
    command = [sys.executable, "-m", "luigi", "--module", "tasks", stage, *settings]
    done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def result_folder(work: Path, output: str) -> Path:
    (folder,) = re.findall(r"^results: (\S+)/ \(", output, re.M)
    return work / folder


def read(root: Path, split: str, classes: tuple[str, ...] | None = None) -> Split:
    names = split_files(root, split)
    digests = DigestMemory(root / ".digests").of(root / name for name in names)
    return read_split(root, split, classes, {name: digests[root / name] for name in names})


def add_photographs(work: Path, name: str, splits: dict[str, list[str]], annotations: Path) -> Path:
    """The data set `name`: the first one, whose split `start` also has the photographs with these annotations."""
    root = work / name
    shutil.copytree(work / "data", root, dirs_exist_ok=True)
    for id in splits[POOL]:
        shutil.copyfile(work / POOL / f"{id}.jpg", root / f"JPEGImages/{id}.jpg")
        shutil.copyfile(annotations / f"{id}.xml", root / f"Annotations/{id}.xml")
    write_list(root, START, [*splits[START], *splits[POOL]])
    write_list(root, POOL, splits[POOL])
    return root


def correct(detected: Split, truth: Split, source: Path, annotations: Path, target: Path) -> Counter:
    """Writes corrected annotations into `target`. Objects that the truth calls difficult are drawn too, and marked."""
    target.mkdir(exist_ok=True)
    counts: Counter[str] = Counter()
    for image, true in zip(detected.images, truth.images, strict=True):
        overlaps = match_boxes(image.boxes, true.boxes).iou * (image.labels[:, None] == true.labels)
        kept: dict[int, int] = {}  # a box that stays, by its object
        while overlaps.size and overlaps.max() >= KEPT_FROM:
            box, place = divmod(int(overlaps.argmax()), overlaps.shape[1])
            kept[place] = box
            overlaps[box], overlaps[:, place] = 0, 0
        boxes = ElementTree.parse(annotations / f"{image.id}.xml").getroot().findall("object")
        tree = ElementTree.parse(source / f"Annotations/{image.id}.xml")
        for place, entry in enumerate(tree.getroot().findall("object")):
            if place in kept:
                entry.remove(entry.find("bndbox"))
                entry.append(boxes[kept[place]].find("bndbox"))
        tree.write(target / f"{image.id}.xml")
        counts += Counter(stayed=len(kept), went=len(image.labels) - len(kept), drawn=len(true.labels) - len(kept))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--start", default="train")
    parser.add_argument("--photographs", default="val")
    parser.add_argument("--held-out", default="train")
    parser.add_argument("--number", type=int, default=50)
    ours, _, settings = "\0".join(sys.argv[1:]).partition("\0--\0")
    given = parser.parse_args(ours.split("\0"))
    source, work = given.source.resolve(), given.work.resolve()
    splits = prepare(source, work, given.start, given.photographs, given.held_out, given.number)
    print({name: len(ids) for name, ids in splits.items()}, flush=True)
    common = ["--train-split", START, "--test-split", TEST, *filter(None, settings.split("\0"))]

    def evaluate(name: str) -> dict:
        output = luigi(work, "Evaluate", "--dataset", name, *common)
        evaluation = json.loads((result_folder(work, output) / "evaluation.json").read_text())
        low, high = evaluation["interval_07"]["mean"]
        text = f"mAP {100 * evaluation['map_07']:.1f} (95 %: {100 * low:.1f} to {100 * high:.1f}), AP by area"
        print(f"{name}: {text} {100 * evaluation['map_area']:.1f}; {result_folder(work, output).name}", flush=True)
        return evaluation

    evaluate("data")
    formats = ["--annotations", "voc,coco,yolo,label-studio"]
    printed = luigi(work, "DetectImages", "--dataset", "data", "--images", POOL, *formats, *common)
    print(printed, flush=True)
    annotations = result_folder(work, printed) / "annotations" / "voc"
    annotated, classes = add_photographs(work, "annotated", splits, annotations), read(work / "data", START).classes
    truth = add_photographs(work, "truth", splits, source / "Annotations")
    of_truth = read(truth, POOL, classes)
    counts = correct(read(annotated, POOL, classes), of_truth, source, annotations, work / "corrections")
    print(dict(counts), flush=True)
    add_photographs(work, "corrected", splits, work / "corrections")
    for name in ("corrected", "annotated", "truth"):
        evaluate(name)


if __name__ == "__main__":
    main()
