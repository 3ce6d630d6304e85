"""Joint training of a proposal network and a detector, with all four losses: Faster R-CNN's, and what R-FCN's shares with it."""

import abc
from collections.abc import Callable
from dataclasses import replace

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.detection import validation_limits
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.fast_rcnn import MODEL, agnostic_key, agnostic_setting, outputs_key
from tasks.faster_rcnn.base import (
    BEFORE_NMS,
    OF_ONE_STAGE,
    RPN_FILE,
    TEST_PROPOSALS,
    AnchorTraining,
    background_setting,
)
from tasks.networks.base import load_backbone
from tasks.networks.class_weights import WeightedClasses
from tasks.networks.conv_maps import ConvFeatures
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights

RELEASE_REGIONS = 128  # lib/fast_rcnn/config.py of rbgirshick/py-faster-rcnn: BATCH_SIZE
RELEASE_JOINT_LR_STEP = 50000  # models/pascal_voc/VGG16/faster_rcnn_end2end/solver.prototxt of rbgirshick/py-faster-rcnn


class JointTraining(WeightedClasses, AnchorTraining):
    """Trains both networks as one, by the approximate joint training of Ren et al. 2015, section 3.2."""

    resolved = (*AnchorTraining.resolved, *WeightedClasses.resolved, "joint_learning_rate", "joint_lr_step")
    # Of each chain
    seed_name: str
    model_file: str
    release_lr_step: int

    joint_iterations = parameters.integer(800, "joint", "iterations", "steps of joint training", minimum=1)
    joint_images = parameters.integer(
        2, "joint", "images", "images per training step, with 256 anchors and 128 regions each", minimum=1
    )
    background_overlap = background_setting()
    joint_learning_rate = rate_setting("joint")
    joint_lr_step = lr_step_setting("joint", ", at most the release's 50000 or 80000")

    @abc.abstractmethod
    def detector_maker(self, num_classes: int) -> Callable:
        """A function that makes the detector on a backbone."""

    @abc.abstractmethod
    def region_choice(self):
        """Which regions of an image train the detector: a `RegionChoice`."""

    def resolve(self) -> dict:
        schedule = self.joint_iterations, self.joint_learning_rate, self.joint_lr_step, self.release_lr_step
        return {**super().resolve(), **self.settle(*schedule, "output_rate", "rpn_rate")}

    def requires(self) -> dict[str, CachedTask]:
        return {
            "train": self.train_index(), "weights": first_weights(self), **self.frozen_maps(), **self.validation_tasks(),
        }

    @property
    def iterations(self) -> int:
        return self.joint_iterations

    @property
    def trained(self) -> dict[str, str]:
        return {"network": self.model_file, "rpn": RPN_FILE}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.fast_rcnn.training import freeze
        from pipeline.faster_rcnn.joint import LOSSES, train_jointly
        from pipeline.networks.weights import save_tensors
        from pipeline.seeding import derive_seed

        device, inputs = self.prepare(), self.inputs()
        split, seed = load_split(inputs["train"]), derive_seed(self.seed, self.seed_name)
        sampler = self.anchor_sampler(split, seed, self.joint_images)
        backbone = load_backbone(inputs["weights"], self.backbone)
        freeze(backbone, self.freeze)
        resolved = self.resolve()
        validation = self.validation(lambda networks: self._detector(*networks, device).detect)
        schedule = self.schedule(resolved)
        with self.training_run(workshop, schedule, seed, device, classes=split.classes, validation=validation) as run:
            model, rpn, losses = train_jointly(
                backbone, run, make_detector=self.detector_maker(len(split.classes)), sampler=sampler, layout=self.layout(),
                inputs=self.map_inputs(split, inputs.get("maps")), rate=resolved["output_rate"], rpn_rate=resolved["rpn_rate"],
                choice=replace(self.region_choice(), class_weights=self.weights_of_classes(split)), light=resolved["light"],
            )
        save_tensors(model, workshop.files / self.model_file)
        save_tensors(rpn, workshop.files / RPN_FILE)
        figures = self.write_curve(workshop, run, losses, LOSSES)
        return {**figures, "unused_images": len(split.images) - sampler.num_usable}

    def _detector(self, network, rpn, device):
        from pipeline.faster_rcnn.joint import FasterRCNNDetector
        from pipeline.faster_rcnn.rpn import ProposalSettings

        proposals = ProposalSettings(BEFORE_NMS, TEST_PROPOSALS)
        return FasterRCNNDetector(network, rpn, device, *self.sides, proposals=proposals, limits=validation_limits())


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, ConvFeatures, without=OF_ONE_STAGE)
class TrainFasterRCNN(JointTraining):
    """Trains Faster R-CNN's networks as one, by the approximate joint training of section 3.2."""

    resolved = (*JointTraining.resolved, "joint_ohem", "joint_regions", "class_agnostic")
    seed_name, model_file, release_lr_step = "faster r-cnn", MODEL, RELEASE_JOINT_LR_STEP

    joint_ohem = parameters.switch(
        False, "joint", "ohem", "whether joint training of Faster R-CNN takes the 128 regions of an image with the largest losses"
    )

    joint_regions = parameters.integer(
        0, "joint", "regions", "regions of an image in joint training of Faster R-CNN; 0: 128, or the backbone's default"
    )

    class_agnostic = agnostic_setting()

    @property
    def regions(self) -> int:
        return self.joint_regions or defaults_of(self.backbone).joint_regions

    def resolve(self) -> dict:
        # Defaults stay out of keys, so that older keys stay valid.
        chosen = {"ohem": True} if self.joint_ohem else {}
        if self.regions != RELEASE_REGIONS:
            chosen["regions"] = self.regions
        return {**super().resolve(), **chosen, **agnostic_key(self), **outputs_key(self)}

    def detector_maker(self, num_classes: int) -> Callable:
        from pipeline.fast_rcnn.network import FastRCNN

        return lambda backbone: FastRCNN(backbone, num_classes, self.class_agnostic)

    def region_choice(self):
        from pipeline.fast_rcnn.hard_examples import HardExamples
        from pipeline.faster_rcnn.joint import SAMPLING, RegionChoice

        overlaps = self.background_overlap, SAMPLING.foreground_overlap
        sampling = replace(SAMPLING, regions=self.regions, background_overlaps=overlaps)
        return RegionChoice(sampling, hard=HardExamples() if self.joint_ohem else None)
