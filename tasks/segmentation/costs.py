"""SegmentationCosts: what each method costs for one image, side by side."""

import time

from tasks.data.index_masks import IndexMasks
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import tell
from tasks.engine.processes import available_cores
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask
from tasks.segmentation.base import FULL_RESOLUTION, METHODS, PATCHES
from tasks.segmentation.training import TrainSegmenter

COSTS = "costs.json"
SECONDS = "seconds "  # begins the name of a figure
STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}
SAME_STRIDE = 32


@parameters.inherits(TrainSegmenter, without=("segment_method",))
class SegmentationCosts(NetworkTask):
    """Pixels and multiplications of each method on the first test image, and the seconds that it takes.

    The networks are not trained: a cost is not a matter of weights. The seconds are in the manifest: files hold no clock.
    """

    priority = -1  # stages that need only a part of the host run first, because this one needs the whole host

    def index_task(self) -> IndexMasks:
        return self.clone(IndexMasks, split=self.test_split)

    @property
    def cores_needed(self) -> tuple[int, int]:
        return available_cores(), available_cores()  # so that no other stage runs at the same time

    def requires(self) -> dict[str, CachedTask]:
        return {"test": self.index_task()}
