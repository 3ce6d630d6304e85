"""R-FCN: joint training with a proposal network, as of Faster R-CNN, and detection."""

from collections.abc import Callable
from dataclasses import replace

from tasks.data.index import IndexDataset
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.faster_rcnn.base import OF_ONE_STAGE, RPN_FILE
from tasks.faster_rcnn.detect import ProposingDetection
from tasks.faster_rcnn.joint import JointTraining
from tasks.networks.conv_maps import ConvFeatures
from tasks.networks.defaults import defaults_of
from tasks.networks.weights import LoadWeights, PretrainClassifier

MODEL = "rfcn.safetensors"
RELEASE_LR_STEP = 80000  # models/pascal_voc/ResNet-101/rfcn_end2end/solver_ohem.prototxt of YuwenXiong/py-R-FCN


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, ConvFeatures, without=OF_ONE_STAGE)
class TrainRFCN(JointTraining):
    """Trains R-FCN and its proposal network as one."""

    resolved = (*JointTraining.resolved, "rfcn_k")
    draws = False
    seed_name, model_file, release_lr_step = "r-fcn", MODEL, RELEASE_LR_STEP

    rfcn_k = parameters.integer(0, "rfcn", "k", "bins of a region along each side; 0: 7, or the backbone's default")
    rfcn_ohem = parameters.switch(
        True, "rfcn", "ohem",
        "whether R-FCN is trained on the 128 regions of an image with the largest losses; false: on samples, as Fast R-CNN"
    )

    def resolve(self) -> dict:
        resolved, defaults = super().resolve(), defaults_of(self.backbone)
        rate = defaults.rfcn_output_rate or resolved["output_rate"]
        return {**resolved, "bins": self.rfcn_k or defaults.rfcn_bins, "output_rate": rate}

    def detector_maker(self, num_classes: int) -> Callable:
        from pipeline.r_fcn.network import RFCN

        return lambda backbone: RFCN(backbone, num_classes, self.resolve()["bins"])

    def region_choice(self):
        from pipeline.fast_rcnn.hard_examples import HardExamples
        from pipeline.faster_rcnn.joint import SAMPLING, RegionChoice
        from pipeline.faster_rcnn.rpn import ProposalSettings

        sampling = replace(SAMPLING, background_overlaps=(self.background_overlap, SAMPLING.foreground_overlap))
        # ProposalSettings: those of the release, in training too (experiments/cfgs/rfcn_end2end.yml of YuwenXiong/py-R-FCN)
        return RegionChoice(sampling, ProposalSettings(), HardExamples() if self.rfcn_ohem else None)


@parameters.inherits(TrainRFCN, without=OF_ONE_STAGE)
class DetectRFCN(ProposingDetection):
    """Detections of the test split by R-FCN: all layers over the whole image, and means over bins of each proposal."""

    chain = "r-fcn"

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self.clone(TrainRFCN)}

    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        network = self.clone(TrainRFCN)
        return {"network": (network, MODEL), "rpn": (network, RPN_FILE)}
