"""The report's section of the segmenters of a run."""

from collections.abc import Mapping, Sequence

from tasks.data.splits import load_split
from tasks.engine.artefacts import Artefact
from tasks.evaluation.evaluate import EVALUATION
from tasks.segmentation.base import CHAINS
from tasks.segmentation.compare import GAINS
from tasks.segmentation.of_run import COMPARISON, COSTS

ID = "segmentation"


def segmentation_chapters(report, summary: dict, album) -> list[dict]:
    """The chapter of the segmenters of the stage `report`: one for all of them, or none."""
    from tasks.evaluation.chapters import chapters_of

    evaluations = {chain: task for chain, task in chapters_of(report).items() if chain in CHAINS}
    if not evaluations:
        return []
    inputs = report.summary().inputs()
    values = segmentation_section(
        evaluations, album=album, number=report.report_images, gains=inputs[COMPARISON].json(GAINS), costs=inputs[COSTS]
    )
    title = next(iter(evaluations.values())).title
    seconds = {chain: summary["chains"][chain] for chain in evaluations}
    return [{"id": ID, "title": title, "link": (ID, title, True), "seconds": seconds, **values}]


def segmentation_section(
    evaluations: Mapping, *, album, number: int, gains: Sequence[dict] = (), costs: Artefact | None = None
) -> dict:
    """What `segmentation.html` shows; `evaluations` are the stages by chain."""
    from pipeline.report.segmentation import MOST_CLASSES, colour_of, confusion_rows, largest_confusions
    from pipeline.segmentation.evaluation import FIGURES, gain_text, left_out
    from tasks.segmentation.costs import COSTS as COSTS_FILE

    results = {chain: task.artefact.json(EVALUATION) for chain, task in evaluations.items()}
    first = next(iter(results.values()))
    names = first["names"]
    best = max(results, key=lambda chain: results[chain]["mean_iu"] or 0)
    return {
        "template": "segmentation.html", "figures": FIGURES, "results": results, "names": names, "best": best,
        "colours": [colour_of(label) for label in range(len(names))], "gains": [gain_text(gain) for gain in gains],
        "left_out": left_out(first), "shown": _shown(evaluations, album, number), "images": first["images"],
        "confusion": confusion_rows(results[best]["confusion"], names) if len(names) <= MOST_CLASSES else None,
        "confused": largest_confusions(results[best]["confusion"], names), "kernels": _kernels(evaluations),
        "costs": costs and costs.json(COSTS_FILE), "cost_figures": costs and costs.manifest["figures"],
    }


def _shown(evaluations: Mapping, album, number: int) -> list[dict]:
    """Test images with the true label map and that of each method."""
    from pipeline.report.segmentation import choose_images, map_uri
    from pipeline.segmentation.label_maps import LabelMaps, label_names, usable

    first = next(iter(evaluations.values()))
    test = load_split(first.inputs()["test"])
    numbers = usable(test)
    part = test.select([numbers[place] for place in choose_images(first.histograms(), number)])
    truths = LabelMaps(first.splits()["test"].mask_root, label_names(test))
    maps = {chain: list(map(map_uri, task.maps().label_maps(part))) for chain, task in evaluations.items()}
    return [{"picture": album.add(record), "truth": map_uri(truths.read(record)),
             "maps": {chain: uris[place] for chain, uris in maps.items()}}
            for place, record in enumerate(part.images)]


def _kernels(evaluations: Mapping) -> list[dict]:
    """For each method with transposed convolutions, the kernels of the last of them."""
    from pipeline.report.segmentation import kernels_uri, last_kernels

    pictures = []
    for chain, task in evaluations.items():
        if last := last_kernels(task.maps().network().load_network()):
            kernels, learned = last
            pictures.append({"chain": chain, "size": kernels.shape[1], "learned": learned, "uri": kernels_uri(kernels)})
    return pictures
