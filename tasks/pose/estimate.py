"""DeepPose: the poses of the test objects after each stage."""

from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.data.splits import load_split
from tasks.detection import DETECTIONS, DetectSplit
from tasks.engine import parameters
from tasks.engine.artefacts import WHOLE, Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.evaluate import CHAINS, DETECT, OF_ONE_CHAIN, STAGES
from tasks.networks.base import NetworkTask
from tasks.pose.training import TrainPose

POSES = "poses.npz"
TRUE = "true"


@parameters.inherits(TrainPose, *STAGES, without=("pose_stage", *OF_ONE_CHAIN))
class EstimatePoses(ShardedTask, NetworkTask):
    """The joints of each object of the test split after each stage, from the object's true box or from a detector's."""

    resolved = (*ShardedTask.resolved, *NetworkTask.resolved, "pose_boxes")

    test_split = DetectSplit.test_split
    pose_stages = parameters.integer(2, "pose", "stages", "stages of the cascade (the paper: 3)", minimum=1)
    pose_boxes = parameters.choice(
        TRUE, (TRUE, *CHAINS), "pose", "boxes", "boxes of the test objects: the true ones, or those that a chain finds"
    )

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset, split=self.test_split)

    def upstream(self) -> dict[str, CachedTask]:
        trainings = {f"stage {task.pose_stage}": task for task in self.trainings()}
        return trainings | ({} if self.pose_boxes == TRUE else {"detections": self.detection()})

    def detection(self) -> DetectSplit:
        """The stage whose detections are the boxes."""
        stage, settings = DETECT[self.pose_boxes]
        return self.clone(stage, shard=WHOLE, **settings)

    def resolve(self) -> dict:
        # The default stays out of keys, so that older keys stay valid.
        return {**super().resolve(), **({} if self.pose_boxes == TRUE else {"boxes": self.pose_boxes})}

    def trainings(self) -> list[TrainPose]:
        """The training of each stage."""
        return self.clone(TrainPose, pose_stage=self.pose_stages).stages()

    def record_key(self, split, record) -> dict:
        labels = {} if self.pose_boxes == TRUE else {"labels": record.labels[record.counted].tolist()}
        return {"id": record.id, **record.pixels_key(), "boxes": record.boxes[record.counted].tolist(), **labels}

    def load_estimator(self):
        """The cascade for the objects of single images."""
        from pipeline.pose.estimate import PoseEstimator
        from pipeline.pose.objects import skeleton_of

        trainings = self.trainings()
        joints = len(skeleton_of(load_split(trainings[0].inputs()["train"])).names)
        networks = [task.load_network(joints) for task in trainings]
        return PoseEstimator(networks, trainings[0].framing, self.prepare(), self.arithmetic)

    def build_shard(self, workshop: Workshop, split) -> dict:
        import numpy as np

        from pipeline.images.reading import ImageCache
        from pipeline.pose.poses import Poses
        from pipeline.prefetch import prefetch

        estimator = self.load_estimator()
        pixels = prefetch(map(ImageCache(self.index_task().root, 0).read, split.images))
        boxes = self._boxes(split)
        joints = [estimator.estimate_found(image, of_image)
                  for image, of_image in zip(self.progress()(pixels, len(boxes)), boxes, strict=True)]
        counts = np.array([len(of_image) for of_image in boxes], np.int64)
        Poses(counts, np.concatenate(boxes), np.concatenate(joints, axis=1)).save(workshop.files / POSES)
        return {"images": len(boxes), "objects": int(counts.sum())}

    def _boxes(self, split) -> list:
        """The boxes [N x 4] of the objects of each image, float64; NaN for those that the detector did not find."""
        import numpy as np

        from pipeline.detection.detections import Detections, ImageDetections
        from pipeline.pose.found import found_boxes

        true = [record.boxes[record.counted].astype(np.float64) for record in split.images]
        if self.pose_boxes == TRUE:
            return true
        detections = Detections.load(self.inputs()["detections"].path(DETECTIONS))
        places = {name: number for number, name in enumerate(detections.image_ids)}
        return [found_boxes(of_image, record.labels[record.counted], ImageDetections.of(detections, places[record.id]))
                for of_image, record in zip(true, split.images, strict=True)]

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        from pipeline.pose.poses import Poses

        Poses.join([Poses.load(shard.path(POSES)) for shard in shards]).save(workshop.files / POSES)
        return {}
