"""How right label maps are: the figures of `scores` over a split, per class, with bootstrap intervals over the images; as text.

Shape shorthand: N images with a mask, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipeline.seeding import make_generator
from pipeline.segmentation.scores import bootstrap_scores, paired, scores
from pipeline.tables import format_table, in_percent, interval_text

# The four figures of Long et al. 2015, section 5, by their names in JSON; the first is the one that the field ranks by.
FIGURES = {"mean_iu": "mean IU", "pixel_accuracy": "pixel acc.", "mean_accuracy": "mean acc.", "fw_iu": "f.w. IU"}
NOTE = "In percent. Void pixels are left out. Mean IU is over the classes that are true or predicted anywhere."


def evaluate_segmentation(
    histograms: np.ndarray, names: Sequence[str], *, without_mask: int, resamples: int, generator: np.random.Generator
) -> dict:
    """The figures as JSON, from `histograms` int64 [N x K x K] of each image, rows true.

    `without_mask` counts the images that have no mask and are left out.
    """
    total = histograms.sum(axis=0)
    result, intervals = scores(total), bootstrap_scores(histograms, resamples, generator)
    classes = {
        name: {"iu": result["class_iu"][label], "accuracy": result["class_accuracy"][label], "pixels": int(total[label].sum()),
               "interval_95": intervals["class_iu"][label]}
        for label, name in enumerate(names)
    }
    return {
        "images": len(histograms), "without_mask": without_mask, "of_void_alone": int((histograms.sum(axis=(1, 2)) == 0).sum()),
        **{name: result[name] for name in FIGURES}, "interval_95": {name: intervals[name] for name in FIGURES},
        "names": list(names), "classes": classes, "confusion": total.tolist(), "one_class": one_class(total, names),
    }


def one_class(total: np.ndarray, names: Sequence[str]) -> dict:
    """The figures of a map that says the most frequent true class everywhere: a method that looks at no image has them."""
    label = int(total.sum(axis=1).argmax())
    constant = np.zeros_like(total)
    constant[:, label] = total.sum(axis=1)
    values = scores(constant)
    return {"class": names[label], **{name: values[name] for name in FIGURES}}


def segmentation_table(evaluation: Mapping) -> str:
    """The figures of `evaluate_segmentation` as text."""
    rows = [
        [name, in_percent(values["iu"]), interval_text(values["interval_95"]), in_percent(values["accuracy"]), values["pixels"]]
        for name, values in evaluation["classes"].items()
    ]
    classes = format_table(["class", "IU", "95 %", "accuracy", "true pixels"], rows)
    intervals, of_one_class = evaluation["interval_95"], evaluation["one_class"]
    rows = [[title, in_percent(evaluation[name]), interval_text(intervals[name]), in_percent(of_one_class[name])]
            for name, title in FIGURES.items()]
    baseline = f"{of_one_class['class']} everywhere"
    of_all = format_table(["", "all classes", "95 %", baseline], rows)
    return "\n\n".join([classes, of_all, "\n".join([NOTE, *left_out(evaluation)])]) + "\n"


def left_out(evaluation: Mapping) -> list[str]:
    """What the evaluation does not judge, as sentences."""
    without, void = evaluation["without_mask"], evaluation["of_void_alone"]
    lines = [f"{without} images have no mask and are left out."] if without else []
    return lines + ([f"{void} images have a mask of void alone: they count in no figure."] if void else [])


def methods_table(evaluations: Mapping[str, Mapping], gains: Iterable[Mapping], seconds: Mapping[str, Sequence[float]]) -> str:
    """Several methods side by side, each with the `seconds` of its training and of an image if any are given; then the gains."""
    headers = ["", *FIGURES.values(), "95 % of mean IU", *(["training s", "s/image"] if seconds else [])]
    rows = []
    for name, values in evaluations.items():
        figures = [None if values[figure] is None else f"{100 * values[figure]:.1f}" for figure in FIGURES]
        rows.append([name, *figures, interval_text(values["interval_95"]["mean_iu"]), *seconds.get(name, ())])
    return "\n".join([format_table(headers, rows, decimals=3), "", *map(gain_text, gains)]).rstrip() + "\n"


def paired_gains(histograms: Mapping[str, np.ndarray], pairs: Iterable[tuple[str, str]], resamples: int, seed: int) -> list[dict]:
    """By how much the second method of each pair is better than the first in mean IU, over the same resamples of the images.

    `histograms` are those of each method, [N x K x K] of the same images.
    """
    gains = []
    for before, after in pairs:
        generator = make_generator(seed, "bootstrap", before, after)
        gains.append({"before": before, "after": after, **paired(histograms[before], histograms[after], resamples, generator)})
    return gains


def gain_text(gain: Mapping) -> str:
    """One paired comparison as a sentence."""
    low, high = gain["interval_95"]
    if gain["gain"] is None or low is None or high is None:
        return f"{gain['after']} against {gain['before']}: no mean IU to compare."
    return (f"{gain['after']} gains {100 * gain['gain']:.1f} ({100 * low:.1f} to {100 * high:.1f}) points of mean IU "
            f"over {gain['before']}.")
