"""What the four chains would take on PASCAL VOC 2007, with the papers' settings: hours and disk of each stage, from a few images.

    python -m benchmarks.voc_plan --dataset FOLDER --backbone vgg16 [--images 4] [--steps 3] [--regions 100]

`--dataset` is a folder in VOC's layout with photographs of the usual size; weights are random. The stages run with the settings
of experiments/voc2007-BACKBONE.cfg, but on few images, with few steps and regions, and three times: to warm up, with half of all,
with all. The difference of the last two gives the seconds and bytes for each image, region or step; what is left is the start of
the stage, which each shard pays.

Seconds are those of one core, so that other programs on the machine do not count: T cores take a T-th of the hours at best.
`--precision float32` is the papers' arithmetic; by default it is the quicker one of this machine.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CHAINS = "rcnn", "spp-net", "fast-rcnn", "faster-rcnn"
IMAGES = {"train": 5011, "test": 4952}  # VOC 2007's trainval and test
REGIONS = 1784  # an image, of selective search in its fast mode
SHARD = 50  # images
REUSED = 0.1  # a stage of the test split that took less than this part of the training split's time found its shards in the cache
ITERATIONS = "finetune", "spp", "fast", "rpn", "rpn_shared", "shared"  # settings that end in _iterations
# Stages whose work grows with the regions of a split, with its images, or with the steps of a training. The others are small.
OF_REGIONS = "ExtractFeatures", "SpatialPyramidFeatures", "TrainSVMs", "TrainBoxRegressors", "DetectRCNN"
OF_IMAGES = "RegionProposals", "ConvFeatures", "SharedConvFeatures", "RPNProposals", "DetectFastRCNN", "DetectFasterRCNN"
OF_STEPS = {"FineTune": "finetune_iterations", "FineTuneSPP": "spp_iterations"}  # of the others: `iterations`
# Training on more regions takes more passes, and solving for a regressor takes the cube of a feature's values. Their files hold
# models, whose size does not grow with the regions.
AT_LEAST = "TrainSVMs", "TrainBoxRegressors"
DETAILS = "split", "layer", "spp_layer", "region_features", "rpn_step", "fast_step", "map_scales", "map_originals"
HEADERS = ["stage", "", "units", "ms a unit", "start s", "core hours", "GB", "GB before"]


@dataclass
class Usage:
    """What a stage took, its shards included: seconds of a core, bytes, and the images, regions or steps that it worked on."""

    seconds: float = 0
    bytes: float = 0
    units: float = 0


@dataclass(frozen=True)
class Row:
    """A stage of the plan. `unit` is image, region or step; `start`: seconds that each of its `artefacts` takes to begin."""

    stage: str
    details: str
    unit: str
    units: float
    seconds: float  # a unit
    start: float
    artefacts: int
    bytes: float  # a unit
    bytes_before: float

    @property
    def hours(self) -> float:
        return (self.seconds * self.units + self.start * self.artefacts) / 3600

    def cells(self) -> list:
        at_least = " (at least)" if self.stage in AT_LEAST else ""
        gigabytes = [self.bytes * self.units / 1e9, self.bytes_before * self.units / 1e9]
        units = f"{self.units:,.0f} {self.unit}s"
        return [self.stage + at_least, self.details, units, 1000 * self.seconds, self.start, self.hours, *gigabytes]


def small_folder(source: Path, folder: Path, images: int) -> Path:
    """A data set of the first `images` images of a folder, which are both training and test images."""
    ids = (source / "ImageSets/Main/train.txt").read_text().split()[:images]
    (folder / "ImageSets/Main").mkdir(parents=True)
    for split in IMAGES:
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(ids) + "\n")
    for name in ("JPEGImages", "Annotations"):
        (folder / name).symlink_to((source / name).absolute())
    return folder


def random_weights(path: Path, backbone: str) -> Path:
    """A file of weights as torchvision's are."""
    import torch
    from torchvision.models import get_model

    torch.save(get_model(backbone, weights=None).state_dict(), path)
    return path


def words(dataset: Path, cache: Path, backbone: str, weights: Path, *, regions: int, precision: str) -> list[str]:
    return [
        "FullPipeline", "--dataset", str(dataset), "--train-split", "train", "--test-split", "test", "--cache-dir", str(cache),
        "--chains", ",".join(CHAINS), "--backbone", backbone, "--weights", str(weights),
        "--max-proposals", str(regions), "--proposals", "fast", "--precision", precision, "--threads", "1",
        "--box-gigabytes", "0.5", "--svm-gigabytes", "0.5", "--check-disk", "false",
    ]


def detections(arguments: list[str]) -> list:
    """The last stages of the four chains, after the indexes are made."""
    from benchmarks.many_images import task_of

    pipeline = task_of(*arguments)
    for index in pipeline.splits().values():
        if not index.complete():
            index.make_artefact()
    return [pipeline.detection(chain) for chain in CHAINS]


def parts_of(last: list) -> Iterator:
    from benchmarks.many_images import in_order

    seen: set[str] = set()
    for task in last:
        yield from in_order(task, seen)


def name_of(task) -> tuple[str, str]:
    """The stage, and the settings that tell one task of it from another."""
    names = [name for name in DETAILS if name in type(task).own_parameters or (name == "split" and hasattr(task, name))]
    return task.stage, ", ".join(f"{name.replace('_', ' ')} {getattr(task, name)}" for name in names)


def units_of(task, figures: dict) -> float:
    if task.stage in OF_IMAGES:
        return figures["images"]
    if task.stage in OF_REGIONS:
        return figures.get("regions") or sum(
            artefact.manifest["figures"].get("regions", 0) for artefact in task.inputs().values() if "Features" in artefact.stage
        )
    return steps_of(task)


def steps_of(task) -> int:
    return getattr(task, OF_STEPS.get(task.stage, "iterations"), 0)


def run(arguments: list[str]) -> dict[tuple[str, str], Usage]:
    """Makes all stages one after the other in this process; what each took, by name."""
    from tasks.data.splits import load_split

    usages: dict[tuple[str, str], Usage] = {}
    for task in parts_of(detections(arguments)):
        if task.complete():
            continue
        used = usages.setdefault(name_of(task), Usage())
        started = time.process_time()
        task.make_artefact()
        used.seconds += time.process_time() - started
        manifest = task.artefact.manifest
        used.bytes += sum(file["size"] for file in manifest["files"].values())
        if getattr(task, "shard", -1) < 0:
            figures = manifest["figures"]
            if task.stage in OF_IMAGES:
                figures = {"images": len(load_split(task.index_task().artefact).images)}
            used.units = units_of(task, figures)
        print(f"  {task.label}: {time.process_time() - started:.1f} s", flush=True)
    return usages


def plan(small: dict, large: dict, steps: dict, backbone: str) -> list[Row]:
    """The stages of the whole run. `steps` are those of the papers' settings, by name."""
    rows = []
    for name, more in large.items():
        unit = unit_of(name, steps)
        if unit is None:
            continue
        # The test images of a trial are its training images, so what was made for these was there already.
        of_train = name[0], name[1].replace("split test", "split train")
        train = large.get(of_train, more)
        measured = of_train if more.seconds / more.units < REUSED * train.seconds / train.units else name
        less, more = small.get(measured, Usage()), large[measured]
        grown = more.units - less.units
        seconds = (more.seconds - less.seconds) / grown
        if seconds <= 0:  # too little to be measured
            seconds = more.seconds / more.units
        size = 0 if unit == "step" or name[0] in AT_LEAST else max(0, more.bytes - less.bytes) / grown
        images = IMAGES["test" if "split test" in name[1] or name[0].startswith("Detect") else "train"]
        units = steps[name] if unit == "step" else images * (REGIONS if unit == "region" else 1)
        is_sharded = unit == "image" or "Features" in name[0] or name[0].startswith("Detect")
        start, artefacts = max(0, less.seconds - seconds * less.units), -(-images // SHARD) if is_sharded else 1
        rows.append(Row(*name, unit, units, seconds, start, artefacts, size, before(*name, backbone, size)))
    return rows


def unit_of(name: tuple[str, str], steps: dict) -> str | None:
    """What the work of a stage grows with; None for small stages."""
    if name[0] in OF_REGIONS:
        return "region"
    return "image" if name[0] in OF_IMAGES else "step" if steps.get(name) else None


def before(stage: str, details: str, backbone: str, now: float) -> float:
    """The bytes of a unit when stores of features had two for each value, zeros included, and the pyramid was stored."""
    from tasks.networks.sizes import feature_size, map_channels

    if stage == "ExtractFeatures":
        return 2 * feature_size(backbone, "pool5" if "pool5" in details else "fc7")
    if stage == "SpatialPyramidFeatures":
        return 2 * (map_channels(backbone) * (36 + 9 + 4 + 1) if "pool5" in details else feature_size(backbone, "fc7"))
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--backbone", default="alexnet", choices=("alexnet", "vgg16"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--no-warm-up", action="store_true", help="leaves the first pass out, where a step takes many seconds")
    options = parser.parse_args()
    source = options.dataset.absolute()
    os.environ["LUIGI_CONFIG_PATH"] = str(REPOSITORY / f"experiments/voc2007-{options.backbone}.cfg")
    import tasks  # noqa: F401 - only now, because Luigi reads the environment when it is imported

    logging.getLogger("stages").setLevel(logging.ERROR)
    from pipeline.tables import format_table
    from tasks.engine.processes import limited_threads

    usages = []
    with limited_threads(1), tempfile.TemporaryDirectory(prefix="voc-plan-") as name:
        weights = random_weights(Path(name) / "weights.pth", options.backbone)
        shares = (2, 1) if options.no_warm_up else (2, 2, 1)
        for number, share in enumerate(shares):
            folder = Path(name) / str(number)
            dataset = small_folder(source, folder / "data", options.images // share)
            settings = words(
                dataset, folder / "cache", options.backbone, weights, regions=options.regions, precision=options.precision
            )
            steps = str(-(-options.steps // share) if share == 1 else max(1, options.steps // share))
            few = [word for setting in ITERATIONS for word in (f"--{setting.replace('_', '-')}-iterations", steps)]
            print(f"pass {number + 1} of {len(shares)}", flush=True)
            usages.append(run([*settings, *few]))
        papers = {name_of(task): steps_of(task) for task in parts_of(detections(settings))}
    rows = plan(*usages[-2:], papers, options.backbone)
    print(f"{options.backbone}, VOC 2007, {sum(IMAGES.values()):,} images with {REGIONS} regions")
    print(format_table(HEADERS, [row.cells() for row in rows], decimals=2))
    hours, now = sum(row.hours for row in rows), sum(row.bytes * row.units for row in rows) / 1e9
    earlier = sum(row.bytes_before * row.units for row in rows) / 1e9
    print(f"all: {hours:.1f} hours of a core, {now:.0f} GB (before: {earlier:.0f} GB)")


if __name__ == "__main__":
    main()
