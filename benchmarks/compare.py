"""Compares two runs on the same test images by paired bootstrap.

    python -m benchmarks.compare CACHE/Evaluate/KEY CACHE/Evaluate/KEY

Prints for each class and for the mean: both eleven-point APs, their difference (second minus first) with its 95 % interval over
resamples of the images, and the share of resamples in which the second is better.
"""

import argparse
from pathlib import Path

from pipeline.detection.detections import Detections
from pipeline.evaluation.bootstrap import paired_difference
from pipeline.evaluation.voc_ap import Result, evaluate
from pipeline.seeding import make_generator
from pipeline.tables import format_table
from tasks.data.splits import load_split
from tasks.detection import DETECTIONS
from tasks.engine.artefacts import Artefact
from tasks.engine.manifest import read_manifest

RESAMPLES = 2000


def load(folder: Path) -> Result:
    """Evaluates the detections behind an artefact of `Evaluate` again."""
    manifest = read_manifest(folder)
    if manifest is None or manifest["stage"] != "Evaluate":
        raise SystemExit(f"{folder}: not an artefact of Evaluate; see `rcnn-cache ls`")
    inputs = {name: Artefact(folder.parents[1], source["stage"], source["key"]) for name, source in manifest["inputs"].items()}
    split = load_split(inputs["test"])
    return evaluate(Detections.load(inputs["detections"].path(DETECTIONS)), split.images, split.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args()
    first, second = load(options.first), load(options.second)
    # paired_difference subtracts its second argument from its first.
    difference = paired_difference(second.matches, first.matches, RESAMPLES, make_generator(0, "compare"), metric="07")
    aps = [[100 * of_class.ap_07 for of_class in result.classes] + [100 * result.mean_ap_07] for result in (first, second)]
    rows = [
        [name, before, after, after - before, f"{100 * low:.1f} to {100 * high:.1f}", 100 * above]
        for name, before, after, low, high, above in zip(
            [*(of_class.name for of_class in first.classes), "mean"], *aps, difference.low, difference.high,
            difference.share_above, strict=True,
        )
    ]
    headers = ["class", "first", "second", "difference", "95 % of difference", "% of resamples above 0"]
    print(format_table(headers, rows, footer=1))


if __name__ == "__main__":
    main()
