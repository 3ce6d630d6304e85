"""DeepPose: the training of each stage's network."""

import logging

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_arrays, read_tensors
from tasks.networks.base import IMAGE_CACHE_MEGABYTES, load_backbone, mirror_setting
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import PlainTraining, lr_step_of, lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights

logger = logging.getLogger("stages")

MODEL, ERRORS, TRAIN_POSES = "pose.safetensors", "errors.npz", "train_poses.npz"


@parameters.inherits(LoadWeights, PretrainClassifier, IndexDataset, without=("split",))
class TrainPose(PlainTraining):
    """Trains the network of one stage: of a pose from an object's box, or of one joint from a window around it.

    A later stage begins with the backbone of the stage before, and looks at windows that are displaced as that stage errs.
    """

    resolved = (*PlainTraining.resolved, "pose_learning_rate", "pose_output_rate", "pose_lr_step", "pose_side", "pose_joint_side",
                "pose_joint_iterations")

    pose_stage = parameters.integer(1, "pose", "stage", "stage of the cascade to train", minimum=1)
    pose_iterations = parameters.integer(1200, "pose", "iterations", "training steps of stage 1", minimum=1)
    pose_joint_iterations = parameters.integer(0, "pose", "joint_iterations", "training steps of later stages; 0: as stage 1")
    pose_batch = parameters.integer(64, "pose", "batch", "windows in a training step", minimum=1)
    pose_learning_rate = rate_setting("pose")
    pose_output_rate = parameters.number(
        0, "pose", "output_rate", "rate of new layers as a multiple of it; 0: the backbone's default", minimum=0
    )
    pose_lr_step = lr_step_setting("pose")
    pose_side = parameters.integer(0, "pose", "side", "side of stage 1's windows in pixels; 0: the backbone's crops'")
    pose_joint_side = parameters.integer(
        0, "pose", "joint_side", "side of later stages' windows in pixels; 0: the backbone's default"
    )
    pose_context = parameters.number(
        1.2, "pose", "context", "size of stage 1's window, in sizes of the object's box", minimum=0.1
    )
    pose_square = parameters.switch(
        True, "pose", "square", "whether stage 1's window is a square; false: the box is warped, as in the paper"
    )
    pose_sigma = parameters.number(
        1.0, "pose", "sigma", "side of the window around a joint, in longer sides of the object's box", minimum=0.05
    )
    mirror = mirror_setting()
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        required = {"train": self.clone(IndexDataset, split=self.train_split)}
        if self.pose_stage == 1:
            return {**required, "weights": first_weights(self)}
        return {**required, "before": self.clone(TrainPose, pose_stage=self.pose_stage - 1)}

    def resolve(self) -> dict:
        return {
            **super().resolve(), "learning_rate": self.pose_learning_rate or defaults_of(self.backbone).pose_rate,
            "output_rate": self.pose_output_rate or defaults_of(self.backbone).pose_output_rate,
            "iterations": self.iterations, "lr_step": lr_step_of(self.pose_lr_step, self.iterations), "side": self.side,
        }

    @property
    def iterations(self) -> int:
        return self.pose_iterations if self.pose_stage == 1 else self.pose_joint_iterations or self.pose_iterations

    @property
    def side(self) -> int:
        if self.pose_stage == 1:
            return self.pose_side or defaults_of(self.backbone).pose_side
        return self.pose_joint_side or defaults_of(self.backbone).pose_joint_side

    @property
    def framing(self):
        from pipeline.pose.estimate import Framing

        return Framing(self.pose_context, self.pose_square, self.pose_sigma)

    def stages(self) -> list["TrainPose"]:
        """The trainings of all stages up to this one."""
        return [self.clone(TrainPose, pose_stage=number) for number in range(1, self.pose_stage + 1)]

    def load_network(self, joints: int):
        """The trained network, in float32 on the CPU."""
        from pipeline.pose.network import restore_network

        return restore_network(read_tensors(self.artefact, MODEL), self.backbone, joints, self.side, repr(self.artefact))

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.pose.objects import posed_objects, skeleton_of
        from pipeline.pose.training import StageSettings, train_pose
        from pipeline.seeding import derive_seed

        split, resolved = load_split(self.inputs()["train"]), self.resolve()
        skeleton = skeleton_of(split)
        objects = posed_objects(split.images, len(skeleton.names))
        self._tell(split.name, objects)
        device, seed = self.prepare(), derive_seed(self.seed, "pose", self.pose_stage)
        mirror = self.mirror and split.mirror
        sampler = self._sampler(objects, skeleton.mirrored, seed, mirror)
        run = self.new_run(workshop, seed, device, iterations=self.iterations, resolved=resolved)
        read = ImageCache(self.requires()["train"].root, IMAGE_CACHE_MEGABYTES).read
        settings = StageSettings(resolved["side"], resolved["output_rate"], resolved["light"])
        model, losses = train_pose(
            self._backbone(len(skeleton.names)), run, sampler=sampler, images=split.images, read=read, settings=settings
        )
        figures = self.save_network(workshop, MODEL, model, run, losses)
        error = self._write_errors(workshop, self._refined(model, split.images, objects, read), objects)
        counts = {"objects": len(objects), "without_keypoints": objects.without, "with_one_keypoint": objects.with_one}
        return {**figures, "train_error": error, **counts}

    def _tell(self, name: str, objects) -> None:
        """Says what is not trained on. Raises PipelineError when nothing is left."""
        from pipeline.errors import PipelineError

        if not len(objects):
            raise PipelineError(f"split '{name}': none of its objects has a labelled keypoint; label some, or leave out pose")
        if objects.without:
            logger.warning("%s: %d objects have no labelled keypoint and are not trained on", self.label, objects.without)
        if objects.with_one:
            logger.warning("%s: %d objects have a single labelled keypoint; it is trained on", self.label, objects.with_one)

    def _backbone(self, joints: int):
        """The backbone to begin with: the first weights, or that of the stage before."""
        if self.pose_stage == 1:
            return load_backbone(self.inputs()["weights"], self.backbone)
        return self.clone(TrainPose, pose_stage=self.pose_stage - 1).load_network(joints).backbone

    def _sampler(self, objects, order, seed: int, mirror: bool):
        """What draws the windows to train on."""
        from pipeline.pose.sampling import JointWindows, ObjectWindows

        if self.pose_stage == 1:
            return ObjectWindows(
                objects, order, seed, batch_size=self.pose_batch, mirror=mirror, context=self.pose_context,
                square=self.pose_square,
            )
        errors = read_arrays(self.inputs()["before"], ERRORS)
        return JointWindows(
            objects, order, seed, batch_size=self.pose_batch, mirror=mirror, sigma=self.pose_sigma,
            error_mean=errors["mean"], error_deviation=errors["deviation"], stage=str(self.pose_stage),
        )

    def _refined(self, model, images, objects, read):
        """The poses [N x k x 2] of the training objects after this stage."""
        import numpy as np

        from pipeline.pose.estimate import PoseEstimator

        estimator, joints = PoseEstimator([model], self.framing, self.prepare(), self.arithmetic), np.zeros_like(objects.joints)
        before = read_arrays(self.inputs()["before"], TRAIN_POSES)["joints"] if self.pose_stage > 1 else None
        for number in np.unique(objects.image):
            rows = np.flatnonzero(objects.image == number)
            pixels, boxes = read(images[number]), objects.boxes[rows]
            joints[rows] = (
                estimator.first(pixels, boxes) if before is None
                else estimator.refine(estimator.networks[0], pixels, boxes, before[rows])
            )
        return joints

    def _write_errors(self, workshop: Workshop, joints, objects) -> float:
        """Writes the poses of the training objects and their errors, in longer sides of the box; returns the mean distance."""
        import numpy as np

        from pipeline.files.writing import write_arrays
        from pipeline.pose.geometry import displacement_statistics, longer_sides

        errors = (joints - objects.joints) / longer_sides(objects.boxes)[:, None, None]
        mean, variance = displacement_statistics(errors, objects.labelled)
        write_arrays(workshop.files / ERRORS, {"mean": mean, "deviation": np.sqrt(variance)})
        write_arrays(workshop.files / TRAIN_POSES, {"joints": joints})
        return float(np.linalg.norm(errors, axis=-1)[objects.labelled].mean())
