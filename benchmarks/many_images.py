"""A data set of very many tiny images: its index, a run with nothing to do, and the refusal of a disk that is too small.

    python -m benchmarks.many_images [--images 100000] [--folder FOLDER]

Makes a folder in VOC's layout with `--images` training images of 8 x 8 pixels and a hundredth as many test images, and prints:

- how long it takes just to read and hash the files of the training split, and how long to index it;
- how long `FullPipeline` takes when all its results are in the cache, and so a single stage that works image by image;
- how long it takes until `FullPipeline` refuses to start because the disk is too small.

To compute the results would take weeks. So artefacts with the right keys are put in their places, each with a small file.
"""

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from luigi.cmdline_parser import CmdlineParser
from PIL import Image

import tasks  # noqa: F401 - its stages
from tasks.data.sharded import ShardedTask
from tasks.engine.artefacts import SHARDS
from tasks.engine.digests import canonical_json
from tasks.engine.manifest import MANIFEST, describe_files, digest_files, seal
from tasks.engine.package_versions import package_versions
from tasks.engine.printing import TABLE, ShowResult
from tasks.engine.task import CachedTask, describe

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = [f"class{number:02d}" for number in range(20)]
OBJECTS = 3  # an image
SIDE = 8  # pixels
FIGURES = {"boxes_per_image": 2000}  # what a run reads in manifests before it starts
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
SIZE = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, seconds of processors, and the peak memory in MB of the largest process."""

    wall: float
    cpu: float
    memory: float = 0

    def __str__(self) -> str:
        memory = f", {self.memory:.0f} MB" if self.memory else ""
        return f"{self.wall:.1f} s by the clock, {self.cpu:.1f} s of a processor{memory}"


def write_folder(root: Path, train: int, test: int) -> None:
    """A data set in VOC's layout, whose images all differ."""
    generator = np.random.default_rng(0)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for split, first, count in (("train", 0, train), ("test", train, test)):
        ids = [f"{number:06d}" for number in range(first, first + count)]
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(ids) + "\n")
        for number, id in enumerate(ids):
            pixels = generator.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "JPEG")
            (root / f"JPEGImages/{id}.jpg").write_bytes(content.getvalue())
            corners = [(number % 4 + place + 1, 1, number % 4 + place + 2, 4) for place in range(OBJECTS)]
            objects = [OBJECT.format(CLASSES[(number + place) % 20], *corner) for place, corner in enumerate(corners)]
            (root / f"Annotations/{id}.xml").write_text(f"<annotation>{SIZE}{''.join(objects)}</annotation>")


def read_plainly(root: Path) -> Cost:
    """What it costs to read and hash the files of the training split."""
    start, clock = processor_seconds(), time.perf_counter()
    for id in (root / "ImageSets/Main/train.txt").read_text().split():
        for name in (f"Annotations/{id}.xml", f"JPEGImages/{id}.jpg"):
            with open(root / name, "rb") as file:
                hashlib.sha256(file.read()).hexdigest()
    return Cost(time.perf_counter() - clock, processor_seconds() - start)


def processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


def run(folder: Path, *words: str, status: int = 0) -> tuple[Cost, str]:
    """Runs `luigi --module tasks` with `words` in `folder`; what it cost, all its processes together, and what it printed."""
    search = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    clock = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "luigi", "--module", "tasks", *words], cwd=folder, env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    output = process.stdout.read()
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != status:
        raise SystemExit(output)
    cost = Cost(time.perf_counter() - clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)
    return cost, output


def task_of(*words: str) -> CachedTask:
    """The task that a command with these words runs."""
    with CmdlineParser.global_instance(list(words)) as parser:
        task = parser.get_task_obj()
        return task.of if isinstance(task, ShowResult) else task


def in_order(task: CachedTask, seen: set[str]) -> Iterator[CachedTask]:
    """`task` and all that it needs, shards included, each once, needed ones first."""
    if task.task_id not in seen:
        seen.add(task.task_id)
        for needed in task.requires().values():
            yield from in_order(needed, seen)
        for shard in task.shards() if isinstance(task, ShardedTask) and task.is_whole else []:
            yield from in_order(shard, seen)
        yield task


def put_in_place(task: CachedTask) -> int:
    """Writes an artefact for `task` and each task that it needs where there is none; returns how many."""
    count = 0
    for part in in_order(task, set()):
        folder = part.artefact.folder
        if (folder / MANIFEST).exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(part, ShardedTask) and part.is_whole:
            shards = [describe(shard.artefact) for shard in part.shards()]
            (folder / SHARDS).write_text(canonical_json(shards) + "\n")
        (folder / TABLE).write_text("no table\n")
        files = describe_files(folder)
        manifest = {
            "key": part.key, "stage": part.stage, "version": part.version, "settings": part.to_str_params(),
            "parameters": {name: getattr(part, name) for name in part.own_parameters}, "inputs": part.describe_inputs(),
            "outside": {}, "started": 0, "seconds": 0, "peak_memory": 0, "figures": FIGURES,
            "packages": package_versions(part.packages), "digest": digest_files(files), "files": files,
        }
        (folder / MANIFEST).write_bytes(seal(manifest))
        count += 1
    return count


def measure(folder: Path, images: int) -> None:
    root = folder / "tiny"
    if not root.exists():
        write_folder(root, images, max(20, images // 100))
    (folder / "luigi.cfg").write_text((REPOSITORY / "luigi.cfg").read_text())
    of_data = "--dataset", str(root), "--threads", "1"
    print(f"{images:,} training images; two files each")
    print(f"reading and hashing the files: {read_plainly(root)}", flush=True)
    print(f"indexing: {run(folder, 'IndexDataset', *of_data)[0]}", flush=True)
    run(folder, "IndexDataset", *of_data, "--split", "test")
    print(f"the index again, nothing to do: {run(folder, 'IndexDataset', *of_data)[0]}", flush=True)
    refused, message = run(folder, "FullPipeline", *of_data, "--backbone", "vgg16", status=30)
    print(f"refusing a disk that is too small: {refused}\n  {message.strip().splitlines()[-1]}", flush=True)
    os.chdir(folder)
    for stage in (("ExtractFeatures", "--layer", "pool5"), ("FullPipeline",)):
        words = *stage, *of_data
        print(f"{put_in_place(task_of(*words)):,} artefacts put in place for {stage[0]}", flush=True)
        print(f"{stage[0]}, nothing to do: {run(folder, *words)[0]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the data set and the cache are kept; by default they are temporary")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        measure(options.folder.absolute(), options.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.images)


if __name__ == "__main__":
    main()
