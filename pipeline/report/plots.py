"""Pictures of measurements, as SVG. The same numbers give the same bytes."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pipeline.proposals.recall import THRESHOLDS, Quality

STYLE = {"svg.hashsalt": "rcnn", "svg.fonttype": "none", "font.family": "sans-serif", "axes.grid": True, "grid.alpha": 0.3}


def plot_proposal_quality(quality: Quality, title: str, path: Path) -> None:
    """Writes recall over IoU, and recall and MABO over the number of boxes, as an SVG picture at `path`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        figure.suptitle(title)
        by_overlap, by_count = figure.subplots(1, 2)
        for row in _rows_to_show(quality):
            by_overlap.plot(THRESHOLDS, quality.recalls[row], marker=".", label=f"{quality.boxes_per_image[row]:.0f} boxes")
        by_overlap.set(xlabel="IoU", ylabel="recall", xlim=(0.5, 1), ylim=(0, 1))
        by_overlap.legend(title="an image, on average")
        for name, values in {
            "recall at IoU 0.5": quality.recalls[:, 0], "recall at IoU 0.7": quality.recalls[:, 4],
            "average recall": quality.average_recall, "MABO": quality.mabo,
        }.items():
            by_count.semilogx(np.maximum(quality.boxes_per_image, 1), values, marker=".", label=name)
        by_count.set(xlabel="boxes an image", ylim=(0, 1))
        by_count.legend()
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _rows_to_show(quality: Quality) -> list[int]:
    """The rows of 10, 100 and 1000 boxes, as far as there are so many, and of all."""
    rows = [row for row, count in enumerate(quality.counts) if count in (10, 100, 1000)]
    return list(dict.fromkeys([*rows, len(quality.counts) - 1]))
