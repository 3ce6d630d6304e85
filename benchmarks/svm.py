"""Compares our SVM solver with scikit-learn's `LinearSVC` (liblinear) in the whole training with hard negative mining.

    python -m benchmarks.svm [--sizes 2048 6400 25600] [--runs 3] [SETTINGS OF TrainSVMs]

The stages make three feature stores, unless they are in the cache: `pool5` of `tiny` (2048 values per region), SPP-net's pyramid
on `tiny` (6400) and on SqueezeNet (25,600). SqueezeNet needs weights: `--weights imagenet` downloads them, `--weights FILE` reads
them. The default data set is `digits`; `--dataset FOLDER` takes photographs.

Then each solver trains the SVMs of all classes on each store, in a fresh process, on one thread. The table shows

- CPU seconds of the whole procedure, the least of the runs, and how many of them the solver itself takes;
- the memory that the first run adds to the process at its peak. Both hold the same rows of mined features.

A ratio is liblinear's figure divided by ours.
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
from pipeline.feature_store import FeatureStore
from pipeline.rcnn import svm
from pipeline.rcnn.svm import LinearSVMs
from pipeline.rcnn.svm_settings import LIBLINEAR, WARM_START, SvmSettings
from pipeline.seeding import make_generator
from tasks.engine.memory import peak_memory, release_memory, reset_peak_memory
from tasks.engine.processes import limited_threads
from tasks.features.stores import open_features
from tasks.rcnn import scale_of

STORES = {
    2048: ["--region-features", "crops", "--backbone", "tiny"],
    6400: ["--region-features", "pyramid", "--spp-layer", "pool5", "--backbone", "tiny"],
    25600: ["--region-features", "pyramid", "--backbone", "squeezenet1_0"],
}
HEADERS = ["values", "solver", "CPU s", "ratio", "solver's", "ratio", "MB", "ratio"]


@dataclass(frozen=True)
class Run:
    """The cost and the result of a training with one solver. `solver_seconds` is the solver's part of `seconds`."""

    seconds: float
    solver_seconds: float
    megabytes: float
    svms: LinearSVMs


def training_task(settings: list[str]):
    """The task `TrainSVMs` with these settings, after a run of its command, so that its features are in the cache."""
    words = ["--module", "tasks", "TrainSVMs", *settings]
    if subprocess.run([sys.executable, "-m", "luigi", *words], check=False).returncode:
        raise SystemExit("no feature store to train on")
    with CmdlineParser.global_instance(words) as parser:
        return parser.get_task_obj()


def train(paths: list, settings: SvmSettings, seed: int, runs: int) -> Run:
    """Trains on the store in the files `paths`, `runs` times."""
    import scipy.sparse  # noqa: F401 - imported now, so that its memory does not count
    import sklearn.svm  # noqa: F401

    store, results = FeatureStore(paths), []
    name = {WARM_START: "solve", LIBLINEAR: "solve_by_liblinear"}[settings.solver]
    solve = getattr(svm, name)
    with limited_threads(1):
        scale = scale_of(store, seed)
        for _ in range(runs):
            spent = []
            setattr(svm, name, timed(solve, spent))
            release_memory()
            reset_peak_memory()
            memory, started = peak_memory(), time.process_time()
            svms = svm.train_svms(store, scale, make_generator(seed, "svm"), settings)
            seconds = time.process_time() - started
            results.append(Run(seconds, sum(spent), (peak_memory() - memory) / 1e6, svms))
    quickest = min(results, key=lambda run: run.seconds)
    return replace(quickest, megabytes=results[0].megabytes)


def timed(function, spent: list[float]):
    """`function`, with the CPU seconds of each call added to `spent`."""

    def call(*arguments, **options):
        started = time.thread_time()
        result = function(*arguments, **options)
        spent.append(time.thread_time() - started)
        return result

    return call


def in_fresh_process(*arguments) -> Run:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(train, *arguments).result()


def compare(task, runs: int) -> list[list]:
    """Two rows of the table. Also prints the size of the training, and whether the solvers agree."""
    store = open_features(task.inputs()["features"])
    ours, theirs = (
        in_fresh_process(store.paths, replace(task.svm_settings, solver=solver), task.seed, runs)
        for solver in (WARM_START, LIBLINEAR)
    )
    events, negatives = ours.svms.events, [set(map(tuple, run.svms.hard_negatives.tolist())) for run in (ours, theirs)]
    regions, values = sum(map(store.num_rows, range(store.num_images))), store.read(0).features
    print(
        f"{store.num_features} values per region, {np.count_nonzero(values) / values.size:.0%} of the first image's not 0; "
        f"{regions} regions of {store.num_images} images; {len(store.classes)} classes, {len(events)} trainings, "
        f"at most {(events['positives'] + events['negatives']).max()} examples\n"
        f"  the last objectives differ by {objective_difference(ours.svms, theirs.svms):.1g} of their value; "
        f"{len(negatives[0] ^ negatives[1])} of {len(negatives[0])} negatives at the end differ"
    )
    figures = [[run.seconds, run.solver_seconds, run.megabytes] for run in (ours, theirs)]
    ratios = [None] * 3, [more / less for less, more in zip(*figures, strict=True)]
    return [
        [str(size), solver, *(cell for pair in zip(values, shares, strict=True) for cell in pair)]
        for size, solver, values, shares in zip((store.num_features, ""), (WARM_START, LIBLINEAR), figures, ratios, strict=True)
    ]


def objective_difference(ours: LinearSVMs, theirs: LinearSVMs) -> float:
    """The largest relative difference of the classes' last objectives."""
    last = [{event["class"]: event["objective"] for event in svms.events} for svms in (ours, theirs)]
    return max(abs(last[0][label] - last[1][label]) / last[0][label] for label in last[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--sizes", type=int, nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--runs", type=int, default=3)
    options, settings = parser.parse_known_args()
    rows = [row for size in options.sizes for row in compare(training_task([*STORES[size], *settings]), options.runs)]
    print(format_table(HEADERS, rows))


if __name__ == "__main__":
    main()
