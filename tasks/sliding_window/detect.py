"""Detections by sliding windows."""

from tasks.data.index import IndexDataset
from tasks.detection import DetectByNetwork
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.sliding_window.base import WINDOWS, WindowTask
from tasks.sliding_window.training import TrainWindows


@parameters.inherits(IndexDataset, TrainWindows, without=("split",))
class DetectSlidingWindow(DetectByNetwork, WindowTask):
    """Detections of the test split: every window of every scale is classified, and boxes are merged."""

    chain = "sliding-window"
    resolved = (*WindowTask.resolved, *DetectByNetwork.resolved)
    needs_proposals = False

    window_min_score = parameters.number(
        0.5, "windows", "min_score", "probability from which on a window takes part in merging", minimum=0, maximum=1
    )
    window_merge = parameters.choice(
        "greedy", ("greedy", "nms"), "windows", "merge",
        "what becomes of overlapping windows. greedy: boxes are merged, confidences add up; nms: the best stays",
    )
    window_merge_threshold = parameters.number(
        0.7, "windows", "merge_threshold",
        "largest match score of two boxes that are merged: distance of centres / mean diagonal + 1 - IoU", minimum=0,
    )

    def upstream(self) -> dict[str, CachedTask]:
        return self.training_tasks()

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self.clone(TrainWindows)}

    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        return {"network": (self.clone(TrainWindows), WINDOWS)}

    def detector_settings(self) -> dict:
        return {
            **super().detector_settings(), "window_scales": self.scales, "window_min_score": self.window_min_score,
            "window_merge": self.window_merge, "window_merge_threshold": self.window_merge_threshold,
        }
