"""Semantic segmentation: the label maps of the test images."""

from collections.abc import Iterator

from tasks.data.index_masks import IndexMasks
from tasks.data.sharded import ShardedTask
from tasks.detection import DetectSplit
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask
from tasks.segmentation.training import TrainSegmenter


@parameters.inherits(TrainSegmenter)
class SegmentImages(ShardedTask, NetworkTask):
    """The label map of each image of the test split, of the image's own size, as a palette PNG in VOC's layout of results."""

    resolved = (*ShardedTask.resolved, *NetworkTask.resolved)

    test_split = DetectSplit.test_split

    def index_task(self) -> IndexMasks:
        return self.clone(IndexMasks, split=self.test_split)

    def upstream(self) -> dict[str, CachedTask]:
        return {"network": self.network()}

    def network(self) -> TrainSegmenter:
        return self.clone(TrainSegmenter)

    def record_key(self, split, record) -> dict:
        return {"id": record.id, **record.pixels_key()}

    def load_segmenter(self):
        """The trained network for single images: `segment(pixels)`."""
        from pipeline.segmentation.segment import ImageSegmenter

        return ImageSegmenter(self.network().load_network(), self.prepare(), self.arithmetic)

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.prefetch import prefetch
        from pipeline.segmentation.results import comp6_folder, write_label_map

        segmenter = self.load_segmenter()
        pixels = prefetch(map(ImageCache(self.index_task().root, 0).read, split.images))
        for record, image in zip(split.images, self.progress()(pixels, len(split.images)), strict=True):
            write_label_map(workshop.files / comp6_folder(self.test_split), record.id, segmenter.segment(image))
        return {"images": len(split.images)}

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        """Puts the label maps of all shards into one folder."""
        from pipeline.files.writing import copy_file

        for shard in shards:
            for name in shard.manifest["files"]:
                target = workshop.files / name
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_file(shard.path(name), target)
        return {}

    def label_maps(self, split) -> Iterator:
        """The label map of each image of `split`, uint8 [H x W]."""
        from pipeline.segmentation.results import comp6_folder, read_label_map

        folder = self.artefact.check() / comp6_folder(self.test_split)
        return (read_label_map(folder, record.id, (record.height, record.width)) for record in split.images)
