"""SegmentationCosts: what each method costs for one image, side by side."""

import time
from dataclasses import asdict, replace

from tasks.data.index_masks import IndexMasks
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, tell
from tasks.engine.processes import available_cores
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask
from tasks.segmentation.base import FULL_RESOLUTION, METHODS, PATCHES, UNPOOLING
from tasks.segmentation.segment import SegmentImages
from tasks.segmentation.training import TrainSegmenter

COSTS = "costs.json"
SECONDS = "seconds "  # begins the name of a figure
FCNS = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}  # and the stride of the finest map that is scored
EVERY_PIXEL, SAME_STRIDE = "patches, every pixel", "patches, stride 32"


@parameters.inherits(SegmentImages, without=("segment_method",))
class SegmentationCosts(NetworkTask):
    """Pixels and multiplications of each method on the first test image, and the seconds that it takes.

    The networks are not trained: a cost is not a matter of weights. The seconds are in the manifest: files hold no clock.
    """

    priority = -1  # stages that need only a part of the host run first, because this one needs the whole host

    def resolve(self) -> dict:
        layouts = {method: asdict(self._layout(method, 1)) for method in METHODS}
        # The device and the threads are in this key because seconds depend on them.
        machine = {"device": self.device, "threads": self.num_threads}
        return {**super().resolve(), "backbone": self.backbone, "layouts": layouts, **machine}

    @property
    def cores_needed(self) -> tuple[int, int]:
        return available_cores(), available_cores()  # so that no other stage runs at the same time

    def requires(self) -> dict[str, CachedTask]:
        return {"test": self.clone(IndexMasks, split=self.test_split)}

    def _layout(self, method: str, num_classes: int):
        return self.clone(TrainSegmenter, segment_method=method).layout_of(num_classes)

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import read_record
        from pipeline.segmentation.cost_table import cost_row, cost_table, with_ratios
        from pipeline.segmentation.costs import cost_of
        from pipeline.segmentation.label_maps import label_names

        test = load_split(self.inputs()["test"])
        record, classes = test.images[0], len(label_names(test).names)
        pixels, rows, seconds = read_record(self.requires()["test"].root, record), [], {}
        for name, layout, stride in self._rows(classes):
            rows.append(cost_row(name, cost_of(layout, record.height, record.width), stride))
            if name != EVERY_PIXEL:
                seconds[f"{SECONDS}{name}"] = self._seconds(layout, pixels)
        result = {"image": record.id, "width": record.width, "height": record.height, "rows": with_ratios(rows)}
        workshop.write(COSTS, canonical_json(result) + "\n")
        workshop.write(TABLE, cost_table(result["rows"], {}) + "\n")
        return {**{f"{row['name']} over fcn32s": row["over_fcn32s"] for row in result["rows"][:2]}, **seconds}

    def _rows(self, classes: int) -> list[tuple]:
        """Name, layout and stride of each row."""
        from pipeline.segmentation.patches import STRIDES

        patches = self._layout(PATCHES, classes)
        own = patches.patch_stride or STRIDES.get(self.backbone, FCNS["fcn32s"])
        windows = {EVERY_PIXEL: 1, SAME_STRIDE: FCNS["fcn32s"], PATCHES: own}
        return [
            *((name, replace(patches, patch_stride=stride), stride) for name, stride in windows.items()),
            *((method, self._layout(method, classes), FCNS.get(method, 1)) for method in (*FCNS, UNPOOLING, FULL_RESOLUTION)),
        ]

    def _seconds(self, layout, pixels) -> float:
        """The seconds that a network without training takes for an image, after a warm-up."""
        from pipeline.networks.backbones import make_backbone
        from pipeline.segmentation.network import SegmentationNetwork
        from pipeline.segmentation.segment import ImageSegmenter

        segmenter = ImageSegmenter(SegmentationNetwork(make_backbone(layout.backbone), layout), self.prepare(), self.arithmetic)
        segmenter.segment(pixels)
        start = time.perf_counter()
        segmenter.segment(pixels)
        return time.perf_counter() - start

    def show(self) -> None:
        tell(f"\n{costs_text(self.artefact)}")


def costs_text(artefact: Artefact) -> str:
    """The table of costs with the seconds that were measured."""
    from pipeline.segmentation.cost_table import cost_table

    costs, figures = artefact.json(COSTS), artefact.manifest["figures"]
    seconds = {name.removeprefix(SECONDS): value for name, value in figures.items() if name.startswith(SECONDS)}
    return (
        f"segmentation of one image of {costs['width']} x {costs['height']} pixels\n{cost_table(costs['rows'], seconds)}\n"
        f"Stride: one window or one score each so many pixels. Windows around every pixel are not run: their cost is that of one "
        f"window, times the pixels."
    )
