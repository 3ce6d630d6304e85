"""Our SVM solver against scikit-learn's `LinearSVC` (liblinear), through the whole training with hard negative mining.

    python -m benchmarks.svm [--sizes 2048 6400 25600] [--runs 3] [SETTINGS OF TrainSVMs]

The stages make three feature stores, unless they are in the cache: `pool5` of `tiny` (2048 values per region), SPP-net's pyramid
on `tiny` (6400) and on SqueezeNet (25,600). SqueezeNet needs weights: `--weights imagenet` downloads them, `--weights FILE` reads
them. The default data set is `digits`; `--dataset FOLDER` takes photographs.

Then each solver trains the SVMs of all classes on each store, in a fresh process, on one thread. The table shows

- the trainings, the examples of the largest, and the share of the features that is not 0 (of the first ten images);
- CPU seconds of the whole procedure, the least of the runs;
- the memory that the first run adds to the process at its peak. Both hold the same rows of mined features;
- the largest relative difference of the objectives, and how many of the negatives at the end differ.
"""

import argparse
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from luigi.cmdline_parser import CmdlineParser

from pipeline.evaluation.table import format_table
from pipeline.rcnn.svm_settings import LIBLINEAR, WARM_START, SvmSettings
from pipeline.seeding import make_generator
from tasks.engine.memory import peak_memory, release_memory, reset_peak_memory
from tasks.engine.processes import limited_threads

STORES = {
    2048: ["--region-features", "crops", "--backbone", "tiny"],
    6400: ["--region-features", "pyramid", "--backbone", "tiny"],
    25600: ["--region-features", "pyramid", "--backbone", "squeezenet1_0"],
}
HEADERS = [
    "values", "regions", "trainings", "examples", "not 0", "CPU s, ours", "liblinear", "ratio", "MB, ours", "liblinear", "ratio",
    "objectives", "negatives",
]


@dataclass(frozen=True)
class Run:
    """What one solver took, and what came out."""

    seconds: float
    memory: int
    events: np.ndarray
    negatives: np.ndarray


def training_task(settings: list[str]):
    """`TrainSVMs` with these settings, made by the command line as a user does, so that its features are in the cache."""
    words = ["--module", "tasks", "TrainSVMs", *settings]
    if subprocess.run([sys.executable, "-m", "luigi", *words], check=False).returncode:
        raise SystemExit("no feature store to train on")
    with CmdlineParser.global_instance(words) as parser:
        return parser.get_task_obj()


def train(paths: list, settings: SvmSettings, seed: int, runs: int) -> Run:
    """Trains on the store in the files `paths`, `runs` times."""
    import scipy.sparse  # noqa: F401 - imported now, so that its memory does not count
    import sklearn.svm  # noqa: F401

    from pipeline.feature_store import FeatureStore
    from pipeline.rcnn.svm import train_svms
    from tasks.rcnn import scale_of

    store, seconds, memory = FeatureStore(paths), [], 0
    with limited_threads(1):
        scale = scale_of(store, seed)
        for _ in range(runs):
            release_memory()
            reset_peak_memory()
            before, started = peak_memory(), time.process_time()
            svms = train_svms(store, scale, make_generator(seed, "svm"), settings)
            seconds.append(time.process_time() - started)
            memory = memory or peak_memory() - before
    return Run(min(seconds), memory, svms.events, svms.hard_negatives)


def in_fresh_process(*arguments) -> Run:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(train, *arguments).result()


def share_of_values(store) -> float:
    """Of the features of the first ten images, the share that is not 0."""
    shares = [np.count_nonzero(store.read(image).features) for image in range(min(store.num_images, 10))]
    return sum(shares) / (store.num_features * sum(map(store.num_rows, range(min(store.num_images, 10)))))


def compare(task, runs: int) -> list:
    """One line of the table."""
    from tasks.features.stores import open_features

    store = open_features(task.inputs()["features"])
    ours, theirs = (
        in_fresh_process(store.paths, replace(task.svm_settings, solver=solver), task.seed, runs)
        for solver in (WARM_START, LIBLINEAR)
    )
    regions = sum(map(store.num_rows, range(store.num_images)))
    left = [set(map(tuple, run.negatives.tolist())) for run in (ours, theirs)]
    objectives = [run.events["objective"] for run in (ours, theirs)]
    apart = np.abs(np.subtract(*objectives) / objectives[0]).max() if len(objectives[0]) == len(objectives[1]) else np.nan
    return [
        store.num_features, regions, len(ours.events), int((ours.events["positives"] + ours.events["negatives"]).max()),
        f"{share_of_values(store):.0%}", ours.seconds, theirs.seconds, theirs.seconds / ours.seconds,
        ours.memory / 1e6, theirs.memory / 1e6, theirs.memory / ours.memory, f"{apart:.1g}",
        f"{len(left[0] ^ left[1])} of {len(left[0])}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--sizes", type=int, nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--runs", type=int, default=3)
    options, settings = parser.parse_known_args()
    rows = [compare(training_task([*STORES[size], *settings]), options.runs) for size in options.sizes]
    print(format_table(HEADERS, rows))


if __name__ == "__main__":
    main()
