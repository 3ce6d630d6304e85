"""DeepPose: how right the poses are after each stage, and the time that they take."""

import logging
from collections.abc import Callable

from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, show_table
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.chapter import ChainEvaluation
from tasks.evaluation.evaluate import EVALUATION, Evaluate
from tasks.evaluation.timing import TimePrediction
from tasks.pose.estimate import POSES, TRUE, EstimatePoses

logger = logging.getLogger("stages")

BOX = "box"


@parameters.inherits(EstimatePoses)
class EvaluatePose(ChainEvaluation):
    """PDJ and PCP of poses on the test split after each stage, beside the mean pose, with bootstrap intervals."""

    chain = "pose"
    title = "Pose by regression"

    bootstrap_resamples = Evaluate.bootstrap_resamples
    pose_diameter = parameters.text(
        BOX, "pose", "diameter", "what PDJ's fractions are of: box, its longer side; or two keypoints, left_shoulder+right_hip"
    )
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {**self.splits(), "poses": self.poses}

    @property
    def poses(self) -> EstimatePoses:
        """The stage of the poses. Its key holds whose boxes they have."""
        return self.clone(EstimatePoses)

    def build(self, workshop: Workshop) -> dict:
        from pipeline.pose.evaluation import evaluate_poses, left_out, mean_pose, pose_table
        from pipeline.pose.objects import posed_objects, skeleton_of
        from pipeline.seeding import make_generator

        inputs = self.inputs()
        train, test = load_split(inputs["train"]), load_split(inputs["test"])
        skeleton = skeleton_of(train)
        objects = posed_objects(test.images, len(skeleton.names))
        self._check(test, skeleton, objects)
        diameters, diameter_text = self._diameters(objects, skeleton)
        mean = mean_pose(posed_objects(train.images, len(skeleton.names)))
        boxes, joints = self._posed(test)
        found_boxes = boxes if self.poses.pose_boxes != TRUE else None
        result = evaluate_poses(
            joints, objects, mean, skeleton, diameters, images=len(test.images), found_boxes=found_boxes,
            resamples=self.bootstrap_resamples, generator=make_generator(self.seed, "bootstrap"),
        )
        for line in left_out(result):
            logger.warning("%s: %s", self.label, line)
        workshop.write(EVALUATION, canonical_json(result) + "\n")
        workshop.write(TABLE, pose_table(result, skeleton, diameter_text))
        return {name: values["pdj_10"] for name, values in result["results"].items()}

    def _posed(self, test):
        """The boxes [N x 4] and the joints [S x N x k x 2] of those test objects that have keypoints."""
        import numpy as np

        from pipeline.pose.poses import Poses

        counted = [record.keypoints[record.counted] for record in test.images]
        has_pose = (np.concatenate(counted)[..., 2] > 0).any(axis=1)
        poses = Poses.load(self.inputs()["poses"].path(POSES))
        return poses.boxes[has_pose], poses.joints[:, has_pose]

    def _check(self, test, skeleton, objects) -> None:
        """Raises PipelineError for test objects that cannot be judged."""
        from pipeline.errors import PipelineError
        from pipeline.pose.objects import skeleton_of

        if skeleton_of(test).names != skeleton.names:
            raise PipelineError(f"split '{test.name}' has other keypoints than '{self.train_split}'; name the same in both")
        if not len(objects):
            fault = f"split '{test.name}': none of its objects has a labelled keypoint"
            raise PipelineError(f"{fault}; label some, or leave out the chain pose")

    def _diameters(self, objects, skeleton):
        """The diameter of each object, and a text that says what a diameter is. Raises PipelineError for an unknown setting."""
        from pipeline.errors import PipelineError
        from pipeline.evaluation.keypoints import diameters_between
        from pipeline.pose.geometry import longer_sides

        if self.pose_diameter == BOX:
            return longer_sides(objects.boxes), "the longer side of the object's box"
        names = self.pose_diameter.split("+")
        if len(names) != 2 or set(names) - set(skeleton.names):
            expected = f"expected {BOX}, or two of {', '.join(skeleton.names)} joined by +"
            raise PipelineError(f"--pose-diameter {self.pose_diameter}: {expected}")
        first, second = map(skeleton.names.index, names)
        text = f"the distance of {names[0]} and {names[1]}, or the box's longer side where one is not labelled"
        return diameters_between(objects.joints, objects.labelled, (first, second), objects.boxes), text

    def show(self) -> None:
        show_table(self.artefact, EVALUATION, TABLE)

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self.poses.trainings()[-1]}

    def timing(self) -> CachedTask:
        return self.clone(TimePose)

    def summary(self, evaluation: dict) -> dict:
        from pipeline.pose.evaluation import MEAN_POSE

        stages = {name: values for name, values in evaluation["results"].items() if name != MEAN_POSE}
        mean = evaluation["results"][MEAN_POSE]
        intervals = {name: values["interval_95"] for name, values in stages.items()}
        missed, boxes = evaluation.get("objects_not_found"), {}
        if missed is not None:
            boxes = {"boxes": self.poses.pose_boxes, "not_found": missed}
        return {
            **boxes,
            "pdj_10": {name: values["pdj_10"] for name, values in stages.items()}, "mean_pose_pdj_10": mean["pdj_10"],
            "pcp": {name: values["pcp"] for name, values in stages.items()}, "gains": evaluation["gains"],
            "interval_95": {"pdj_10": intervals, "mean_pose_pdj_10": mean["interval_95"]},
        }

    def section(self, album, number: int) -> dict:
        from pipeline.report.poses import pose_section

        inputs = self.inputs()
        train, test = load_split(inputs["train"]), load_split(inputs["test"])
        evaluation, (_, joints) = self.artefact.json(EVALUATION), self._posed(test)
        return pose_section(evaluation, train.skeleton, test.images, joints, album=album, number=number)


@parameters.inherits(EstimatePoses)
class TimePose(TimePrediction):
    """Seconds per image from pixels to the poses of its objects: one image at a time, after a warm-up."""

    def requires(self) -> dict[str, CachedTask]:
        poses = self.clone(EstimatePoses)
        return {"test": self.test_index(), "poses": poses, **{f"stage {task.pose_stage}": task for task in poses.trainings()}}

    def predictor(self, split) -> Callable:
        estimator = self.clone(EstimatePoses).load_estimator()
        return lambda number, record, pixels: estimator.estimate(pixels, record.boxes[record.counted])
