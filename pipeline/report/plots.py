"""Pictures of measurements, as SVG. The same numbers give the same bytes.

Colours are those of Okabe and Ito, which people with any colour vision can distinguish; lines also differ in their dashes.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from pipeline.files.writing import write_file
from pipeline.proposals.recall import THRESHOLDS, Quality

STYLE: dict = {"svg.hashsalt": "rcnn", "svg.fonttype": "none", "font.family": "sans-serif", "axes.grid": True, "grid.alpha": 0.3}
REPORT_STYLE = STYLE | {
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "axes.titlesize": 11,
    "font.size": 9, "text.parse_math": False, "lines.markersize": 3,
}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
SMALL, WIDE = (3.4, 2.5), (5.4, 3.0)  # inches
SMOOTHED = 0.02  # share of all steps over which a loss is averaged


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
        write_file(path, _svg(figure))


def _rows_to_show(quality: Quality) -> list[int]:
    """The rows of 10, 100 and 1000 boxes, where they exist, and of all."""
    rows = [row for row, count in enumerate(quality.counts) if count in (10, 100, 1000)]
    return list(dict.fromkeys([*rows, len(quality.counts) - 1]))


def bars(values: Mapping[str, float | None], label: str, ends: Mapping[str, Sequence[float]] | None = None, log=False) -> str:
    """One bar for each name, with its value; `ends` are those of intervals. None has no bar."""
    with matplotlib.rc_context(REPORT_STYLE):
        figure, axes = _figure(WIDE)
        for place, (name, value) in enumerate(values.items()):
            if value is None:
                continue
            axes.barh(place, value, color=COLOURS[place % len(COLOURS)], height=0.6, label=name)
            end = value
            if ends and None not in ends[name]:
                low, end = ends[name]
                axes.plot([low, end], [place, place], color="black", marker="|", linewidth=1)
            text = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
            axes.annotate(text, (max(value, end), place), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(values)), values)
        axes.set(xlabel=label, ylim=(len(values) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.15)
        shown = [value for value in values.values() if value]
        if log and shown:
            decades = np.floor(np.log10(0.9 * min(shown))), np.ceil(np.log10(1.5 * max(shown)))
            axes.set(xscale="log", xlim=10.0 ** np.array(decades))
            _write_plainly(axes)
        return _svg(figure)


def offsets(points: Mapping[str, tuple[float | None, ...]], label: str) -> str:
    """For each name a value with the ends of its interval, and a published value; each may be None. A line marks zero."""
    with matplotlib.rc_context(REPORT_STYLE):
        figure, axes = _figure((WIDE[0], max(WIDE[1], 0.8 + 0.3 * len(points))))
        axes.axvline(0, color="black", linewidth=1)
        for place, (value, low, high, published) in enumerate(points.values()):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=2)
            if value is not None:
                axes.plot(value, place, "o", color=COLOURS[0], markersize=6, label="here")
            if published is not None:
                axes.plot(published, place, "x", color=COLOURS[4], markersize=6, label="paper")
        axes.set_yticks(range(len(points)), points)
        axes.set(xlabel=label, ylim=(len(points) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        if any(published is not None for *_, published in points.values()):
            handles, names = axes.get_legend_handles_labels()
            axes.legend(*zip(*dict(zip(names, zip(handles, names))).values()))  # each name once
        return _svg(figure)


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, x_label: str, y_label: str, *, legend: bool = True,
    size: tuple[float, float] = SMALL, marker: str = "", **settings,
) -> str:
    """Lines through (x, y) by their names, in the order of the colours; `settings` are those of the axes."""
    with matplotlib.rc_context(REPORT_STYLE):
        figure, axes = _figure(size)
        for place, (name, (x, y)) in enumerate(lines.items()):
            axes.plot(x, y, DASHES[place % len(DASHES)], marker=marker, color=COLOURS[place % len(COLOURS)], label=name)
        axes.set(title=title, xlabel=x_label, ylabel=y_label, **settings)
        if axes.get_xscale() == "log":
            _write_plainly(axes)
        if legend and lines:
            axes.legend()
        return _svg(figure)


def stacked(parts: Mapping[str, Mapping[str, float]], label: str) -> str:
    """One bar for each name, of parts that follow each other; all have the same parts."""
    hatches = ("", "//", "\\\\", "..", "xx")
    with matplotlib.rc_context(REPORT_STYLE | {"hatch.linewidth": 0.5}):
        figure, axes = _figure(WIDE)
        left = np.zeros(len(parts))
        for place, part in enumerate(next(iter(parts.values()), {})):
            values = np.array([values_of_name[part] for values_of_name in parts.values()], float)
            colour, hatch = COLOURS[(2, 1, 3, 4, 0)[place % 5]], hatches[place % 5]
            axes.barh(range(len(parts)), values, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.65, label=part)
            left += values
        axes.set_yticks(range(len(parts)), parts)
        axes.set(xlabel=label, ylim=(len(parts) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=5, columnspacing=1, handlelength=1.2)
        return _svg(figure)


def smoothed(values: Sequence[float]) -> np.ndarray:
    """Moving averages: the mean of each value and those before it, over a fiftieth of all values."""
    window = max(1, round(SMOOTHED * len(values)))
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, float)]))
    first = np.maximum(0, np.arange(1, len(values) + 1) - window)
    return (sums[1:] - sums[first]) / (np.arange(1, len(values) + 1) - first)


def _write_plainly(axes: Axes) -> None:
    """Labels 10 and 100 instead of powers, which would be formulas and not text; at whole powers only."""
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    # `figure.savefig` draws everything once more, to lay it out.
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return file.getvalue()
