"""Joint training of a proposal network and a detector, with all four losses: Faster R-CNN's, and what R-FCN's shares with it."""

import abc
from collections.abc import Callable
from dataclasses import replace

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.fast_rcnn import MODEL
from tasks.faster_rcnn.base import OF_ONE_STAGE, RPN_FILE, AnchorTraining, background_setting
from tasks.networks.base import CURVE, load_backbone, recent_loss
from tasks.networks.class_weights import WeightedClasses
from tasks.networks.conv_maps import ConvFeatures
from tasks.networks.map_training import scalar_log
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights

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
    joint_learning_rate = parameters.number(0, "joint", "learning_rate", "learning rate; 0: the backbone's default", minimum=0)
    joint_lr_step = parameters.integer(
        0, "joint", "lr_step",
        "steps after which the rate falls to a tenth; 0: three quarters of all steps, at most the release's 50000 or 80000"
    )

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
        return {"train": self.train_index(), "weights": first_weights(self), **self.frozen_maps()}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.fast_rcnn.training import freeze
        from pipeline.faster_rcnn.joint import LOSSES, train_jointly
        from pipeline.networks.training import Schedule, TrainingRun, loss_table
        from pipeline.networks.weights import save_tensors
        from pipeline.seeding import derive_seed

        device, inputs = self.prepare(), self.inputs()
        split, seed = load_split(inputs["train"]), derive_seed(self.seed, self.seed_name)
        sampler = self.anchor_sampler(split, seed, self.joint_images)
        backbone = load_backbone(inputs["weights"], self.backbone)
        freeze(backbone, self.freeze)
        resolved = self.resolve()
        schedule = Schedule(self.joint_iterations, resolved["learning_rate"], resolved["lr_step"])
        with scalar_log(self.tensorboard, self.label) as log:
            run = TrainingRun(
                schedule, seed, device, self.arithmetic, workshop.checkpoint, progress=self.progress("step"), log=log
            )
            model, rpn, losses = train_jointly(
                backbone, run, make_detector=self.detector_maker(len(split.classes)), sampler=sampler, layout=self.layout(),
                inputs=self.map_inputs(split, inputs.get("maps")), rate=resolved["output_rate"], rpn_rate=resolved["rpn_rate"],
                choice=replace(self.region_choice(), class_weights=self.weights_of_classes(split)), light=resolved["light"],
            )
        save_tensors(model, workshop.files / self.model_file)
        save_tensors(rpn, workshop.files / RPN_FILE)
        workshop.write(CURVE, loss_table(losses, schedule, LOSSES))
        return {"steps": len(losses), "loss": recent_loss(losses), "unused_images": len(split.images) - sampler.num_usable}


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, ConvFeatures, without=OF_ONE_STAGE)
class TrainFasterRCNN(JointTraining):
    """Trains Faster R-CNN's networks as one, by the approximate joint training of section 3.2."""

    resolved = (*JointTraining.resolved, "joint_ohem")
    seed_name, model_file, release_lr_step = "faster r-cnn", MODEL, RELEASE_JOINT_LR_STEP

    joint_ohem = parameters.switch(
        False, "joint", "ohem", "whether joint training of Faster R-CNN takes the 128 regions of an image with the largest losses"
    )

    def resolve(self) -> dict:
        # The default stays out of keys, so that older keys stay valid.
        return {**super().resolve(), **({"ohem": True} if self.joint_ohem else {})}

    def detector_maker(self, num_classes: int) -> Callable:
        from pipeline.fast_rcnn.network import FastRCNN

        return lambda backbone: FastRCNN(backbone, num_classes)

    def region_choice(self):
        from pipeline.fast_rcnn.hard_examples import HardExamples
        from pipeline.faster_rcnn.joint import SAMPLING, RegionChoice

        sampling = replace(SAMPLING, background_overlaps=(self.background_overlap, SAMPLING.foreground_overlap))
        return RegionChoice(sampling, hard=HardExamples() if self.joint_ohem else None)
