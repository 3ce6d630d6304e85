"""Classification + localisation: the network's predictions for the test images."""

from pipeline.errors import PipelineError
from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.data.sources import EMBEDDED
from tasks.detection import NMS_THRESHOLD, DetectSplit
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.localisation.training import MODEL, TrainLocaliser
from tasks.networks.base import NetworkTask
from tasks.networks.defaults import defaults_of

PREDICTIONS = "predictions.npz"


@parameters.inherits(TrainLocaliser)
class Localise(ShardedTask, NetworkTask):
    """Scores of all classes, and one box or a box for each class, for each image of the test split."""

    resolved = (*ShardedTask.resolved, *NetworkTask.resolved, "localise_mirror", "localise_looks")

    needs_proposals = False

    localise_mirror = parameters.switch(
        False, "localisation", "test_mirror", "whether test images are seen mirrored too; probabilities and boxes are averaged"
    )
    localise_looks = parameters.integer(
        0, "localisation", "looks",
        "looks at a test image: each after the first is at a window around the box of the one before; 0: the backbone's default",
        minimum=0, maximum=10,
    )

    test_split = DetectSplit.test_split

    def resolve(self) -> dict:
        if self.localise_mirror and self.dataset in EMBEDDED:
            raise PipelineError(f"--localise-mirror true: a mirrored digit is another sign; not for --dataset {self.dataset}")
        return {**super().resolve(), **self.views()}

    @property
    def looks(self) -> int:
        return self.localise_looks or defaults_of(self.backbone).localise_looks

    def views(self) -> dict:
        """What is seen of an image but the whole; what is not stays out of keys, so that older keys stay valid."""
        return ({"mirror": True} if self.localise_mirror else {}) | ({"looks": self.looks} if self.looks > 1 else {})

    def index_task(self) -> IndexDataset:
        return self.network().index(self.test_split)

    def upstream(self) -> dict[str, CachedTask]:
        return {"network": self.network()}

    def network(self) -> TrainLocaliser:
        return self.clone(TrainLocaliser)

    def train_index(self) -> IndexDataset:
        return self.network().index(self.train_split)

    # As a detector of one object an image, for `ExportDetector`

    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        return {"network": (self.network(), MODEL)}

    def detector_settings(self) -> dict:
        limits = {"max_per_image": 0, "nms_threshold": NMS_THRESHOLD, "max_detections": 0}  # an image has one detection
        network = {"side": self.network().side, "box_head": self.box_head, "head_after": self.head_after}
        return {**limits, "backbone": self.backbone, "precision": self.arithmetic, **network, **self.views()}

    def record_key(self, split, record) -> dict:
        return {"id": record.id, **record.pixels_key()}

    def load_localiser(self, num_classes: int):
        """The trained network for single images: `predict(pixels)`."""
        from pipeline.localisation.localise import ImageLocaliser
        from pipeline.localisation.network import restore_localiser

        network = self.network()
        layout = network.layout(num_classes)
        model = restore_localiser(read_tensors(network.artefact, MODEL), layout, repr(network.artefact))
        return ImageLocaliser(model, self.prepare(), self.arithmetic, mirror=self.localise_mirror, looks=self.looks)

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.localisation.localise import Predictions
        from pipeline.prefetch import prefetch

        localiser = self.load_localiser(len(split.classes))
        pixels = prefetch(map(ImageCache(self.index_task().root, 0).read, split.images))
        parts = [localiser.predict(image) for image in self.progress()(pixels, len(split.images))]
        Predictions.join(parts).save(workshop.files / PREDICTIONS)
        return {"images": len(parts)}

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        from pipeline.localisation.localise import Predictions

        Predictions.join([Predictions.load(shard.path(PREDICTIONS)) for shard in shards]).save(workshop.files / PREDICTIONS)
        return {}
