"""Faster R-CNN trained jointly: both networks as one, with all four losses."""

from dataclasses import replace

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.fast_rcnn import MODEL
from tasks.faster_rcnn.base import OF_ONE_STAGE, RPN_FILE, AnchorTraining, background_setting
from tasks.networks.base import CURVE, load_backbone, recent_loss
from tasks.networks.conv_maps import ConvFeatures
from tasks.networks.map_training import scalar_log
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights

RELEASE_JOINT_LR_STEP = 50000  # models/pascal_voc/VGG16/faster_rcnn_end2end/solver.prototxt of rbgirshick/py-faster-rcnn


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, ConvFeatures, without=OF_ONE_STAGE)
class TrainFasterRCNN(AnchorTraining):
    """Trains both networks as one, by the approximate joint training of section 3.2."""

    resolved = (*AnchorTraining.resolved, "joint_learning_rate", "joint_lr_step")

    joint_iterations = parameters.integer(800, "joint", "iterations", "steps of joint training", minimum=1)
    joint_images = parameters.integer(
        2, "joint", "images", "images per training step, with 256 anchors and 128 regions each", minimum=1
    )
    background_overlap = background_setting()
    joint_learning_rate = parameters.number(0, "joint", "learning_rate", "learning rate; 0: the backbone's default", minimum=0)
    joint_lr_step = parameters.integer(
        0, "joint", "lr_step", "steps after which the rate falls to a tenth; 0: three quarters of all steps, at most 50000"
    )

    def resolve(self) -> dict:
        schedule = self.joint_iterations, self.joint_learning_rate, self.joint_lr_step, RELEASE_JOINT_LR_STEP
        return {**super().resolve(), **self.settle(*schedule, "output_rate", "rpn_rate")}

    def requires(self) -> dict[str, CachedTask]:
        return {"train": self.train_index(), "weights": first_weights(self), **self.frozen_maps()}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.fast_rcnn.training import freeze
        from pipeline.faster_rcnn.joint import LOSSES, SAMPLING, train_jointly
        from pipeline.networks.training import Schedule, TrainingRun, loss_table
        from pipeline.networks.weights import save_tensors
        from pipeline.seeding import derive_seed

        device, inputs = self.prepare(), self.inputs()
        split, seed = load_split(inputs["train"]), derive_seed(self.seed, "faster r-cnn")
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
                backbone, run, sampler=sampler, classes=split.classes, layout=self.layout(),
                inputs=self.map_inputs(split, inputs.get("maps")), rate=resolved["output_rate"], rpn_rate=resolved["rpn_rate"],
                sampling=replace(SAMPLING, background_overlaps=(self.background_overlap, 0.5)), light=resolved["light"],
            )
        save_tensors(model, workshop.files / MODEL)
        save_tensors(rpn, workshop.files / RPN_FILE)
        workshop.write(CURVE, loss_table(losses, schedule, LOSSES))
        return {"steps": len(losses), "loss": recent_loss(losses), "unused_images": len(split.images) - sampler.num_usable}
