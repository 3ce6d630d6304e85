"""Detections by Faster R-CNN, trained in either way, and what R-FCN's share with them."""

from tasks.detection_views import DetectInViews
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.fast_rcnn import MODEL
from tasks.faster_rcnn.base import BEFORE_NMS, OF_ONE_STAGE, RPN_FILE, TEST_PROPOSALS, AnchorTask
from tasks.faster_rcnn.four_steps import STEPS, TrainRPN, TrainSharedFastRCNN
from tasks.faster_rcnn.joint import TrainFasterRCNN
from tasks.proposals.reach import warn_of_crowds

ALTERNATING, JOINT = "alternating", "joint"


class ProposingDetection(DetectInViews, AnchorTask):
    """Detections by a network that proposes its own regions."""

    resolved = (*AnchorTask.resolved, *DetectInViews.resolved)
    needs_proposals = False

    rpn_test_before_nms = parameters.integer(
        BEFORE_NMS, "rpn", "test_before_nms", "best anchors per test image that go into suppression (the release: 6000); 0: all"
    )
    rpn_test_proposals = parameters.integer(
        TEST_PROPOSALS, "rpn", "test_proposals", "most proposals per test image", minimum=1
    )

    def upstream(self) -> dict[str, CachedTask]:
        return self.training_tasks()

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        warn_of_crowds(self.label, self.load_split(), self.rpn_test_proposals, "--rpn-test-proposals")
        return super().merge_shards(workshop, shards)

    def detector_settings(self) -> dict:
        layout = self.resolve()
        return {
            **super().detector_settings(),
            "anchor_scales": layout["scales"], "anchor_ratios": self.anchor_ratios,
            "before_nms": self.rpn_test_before_nms, "after_nms": self.rpn_test_proposals,
        }


@parameters.inherits(*STEPS, TrainFasterRCNN, without=OF_ONE_STAGE)
class DetectFasterRCNN(ProposingDetection):
    """Detections of the test split from only the pixels: conv layers, proposals and detector in one pass."""

    chain = "faster-rcnn"

    faster_training = parameters.choice(ALTERNATING, (ALTERNATING, JOINT), "faster", "training", "how Faster R-CNN is trained")

    def training_tasks(self) -> dict[str, CachedTask]:
        if self.faster_training == JOINT:
            return {"network": self.clone(TrainFasterRCNN)}
        return {"rpn": self.clone(TrainRPN, rpn_step="3"), "network": self.clone(TrainSharedFastRCNN, fast_step="4")}

    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        tasks = self.training_tasks()
        return {"network": (tasks["network"], MODEL), "rpn": (tasks.get("rpn", tasks["network"]), RPN_FILE)}
