"""The masks of objects in the report: what a chain with masks found, beside the truth."""

from collections.abc import Callable, Mapping

from pipeline.later_detectors.names import has_masks
from tasks.data.instances import masks_from
from tasks.evaluation.evaluate import Evaluate
from tasks.file_checks import read_arrays
from tasks.later_detectors.base import MASKS

# From the number of a test image, and the operating points of the classes, to two layers: the true masks, and those found.
Layers = Callable[[int, object], tuple[str | None, str]]


def mask_layers(report, matches: Mapping, test) -> dict[str, Layers]:
    """The layers of each chain that predicts masks. A true layer is None where the image has no masks."""
    return {chain: _layers(report.clone(Evaluate, chain=chain), of_chain, test)
            for chain, of_chain in matches.items() if has_masks(chain)}


def _layers(evaluation: Evaluate, matches, test) -> Layers:
    from pipeline.datasets.instances import object_masks
    from pipeline.report.instances import found_layer, true_layer

    detected = read_arrays(evaluation.detection().artefact, MASKS)["masks"]
    images, read = masks_from(evaluation, "test", test)

    def layers(number: int, points) -> tuple[str | None, str]:
        image = images[number]
        truth = true_layer(object_masks(read(image), image.boxes), image) if image.instance_mask else None
        return truth, found_layer(matches, detected, image, number, points)

    return layers
