"""A trained cascade of poses as one folder that works without the cache: for `PhotographPoses --pose-model` and for Python."""

from dataclasses import asdict

from pipeline.text import printable
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask
from tasks.pose.estimate import EstimatePoses
from tasks.pose.training import MODEL, TrainPose

SETTINGS = "pose.json"


@parameters.inherits(TrainPose, without=("pose_stage",))
class ExportPoseModel(NetworkTask):
    """The networks of all stages, and `pose.json` with everything else."""

    computes = False

    pose_stages = EstimatePoses.pose_stages

    def requires(self) -> dict[str, CachedTask]:
        last = self.clone(TrainPose, pose_stage=self.pose_stages)
        return {"train": last.requires()["train"], **{f"stage {task.pose_stage}": task for task in last.stages()}}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.files.writing import copy_file
        from pipeline.pose.objects import classes_with_keypoints, skeleton_of
        from pipeline.pose_model_folder import network_name

        split = load_split(self.inputs()["train"])
        skeleton = skeleton_of(split)
        stages = self.clone(TrainPose, pose_stage=self.pose_stages).stages()
        for task in stages:
            copy_file(task.artefact.path(MODEL), workshop.files / network_name(task.pose_stage))
        description = {
            "names": list(skeleton.names), "limbs": list(map(list, skeleton.limbs)), "classes": classes_with_keypoints(split),
            "backbone": self.backbone, "sides": [task.side for task in stages], "framing": asdict(stages[0].framing),
            "precision": self.arithmetic,
        }
        workshop.write(SETTINGS, canonical_json(description) + "\n")
        return {"megabytes": sum(path.stat().st_size for path in workshop.files.iterdir()) / 1e6}

    def show(self) -> None:
        tell("\n" + printable(f"pose model: {self.artefact.folder}/ ({', '.join(self.artefact.manifest['files'])})"))
