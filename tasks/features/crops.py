"""R-CNN's features of every region of a split: one layer of the network on warped crops."""

from collections.abc import Callable

from pipeline.errors import PipelineError
from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.features.stores import FEATURES, POOL5, compression_key, compression_setting, open_features, region_bytes
from tasks.networks.base import NetworkTask, load_backbone, padding_setting, readers_setting
from tasks.networks.defaults import defaults_of
from tasks.networks.finetune import FineTune, trained_network
from tasks.proposals.regions import RegionProposals, load_proposals


@parameters.inherits(RegionProposals, FineTune)
class ExtractFeatures(NetworkTask, ShardedTask):
    """One layer's features for every ground-truth box and proposal of a split, in HDF5.

    `pool5` is computed from the pixels, deeper layers from the cached `pool5`, as in the release.
    """

    version = 2
    resolved = (*NetworkTask.resolved, *ShardedTask.resolved, "feature_compression")

    layer = parameters.text(POOL5, "features", "layer", "layer of the features: pool5, fc6, fc7 or head, if the backbone has it")
    context_padding = padding_setting()
    feature_compression = compression_setting()
    memory_settings = ("extract_batch", "threads")
    readers = readers_setting()
    extract_batch = parameters.integer(32, "features", "batch_size", "crops per batch", minimum=1)

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def resolve(self) -> dict:
        return {**super().resolve(), **compression_key(self)}

    def upstream(self) -> dict[str, CachedTask]:
        layers = defaults_of(self.backbone).layers
        if self.layer not in layers:
            raise PipelineError(f"--layer {self.layer}: backbone {self.backbone} has only {', '.join(layers)}")
        network = {"network": self.network_task()}
        if self.layer == POOL5:
            return {"proposals": self.clone(RegionProposals), **network}
        return {"pool5": self.clone(ExtractFeatures, layer=POOL5), **network}

    def record_key(self, split, record) -> dict:
        return {"record": {**record.to_json(), "path": None}, "classes": split.classes}

    def image_bytes(self) -> Callable:
        num_classes, proposals = len(load_split(self.index_task().artefact).classes), self.clone(RegionProposals).boxes_per_image
        of_region = region_bytes(self, self.layer, num_classes)
        return lambda shape: (shape.objects + proposals) * of_region

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.feature_store import FeatureWriter
        from pipeline.networks.compute import for_inference

        device = self.prepare()
        backbone = load_backbone(self.inputs()["network"], self.backbone)
        backbone.check_layer(self.layer)
        backbone = for_inference(backbone, device, self.arithmetic)
        attributes = {
            "backbone": self.backbone, "layer": self.layer, "crop_size": backbone.crop_size, "precision": self.arithmetic,
        }
        fill = self._fill_from_pixels if self.layer == POOL5 else self._fill_from_pool5
        with FeatureWriter(
            workshop.files / FEATURES, backbone.sizes[self.layer], split.classes, attributes,
            compression=self.feature_compression,
        ) as writer:
            rows = fill(writer, backbone, split, device)
        return {"images": len(split.images), "regions": rows}

    def _fill_from_pixels(self, writer, backbone, split, device) -> int:
        from pipeline.images.reading import ImageCache
        from pipeline.rcnn.features import Extraction, join_regions, region_features, write_features

        proposals = load_proposals(self.inputs()["proposals"])
        regions = [join_regions(image, boxes) for image, boxes in zip(split.images, proposals, strict=True)]
        images = ImageCache(self.index_task().root, 0)
        extraction = Extraction(self.arithmetic, self.context_padding, self.extract_batch, device, self.readers)
        features = region_features(regions, images.read, backbone, POOL5, extraction)
        return write_features(regions, self.progress()(features, len(regions)), writer, len(split.classes))

    def _fill_from_pool5(self, writer, backbone, split, device) -> int:
        from pipeline.rcnn.features import deeper_features

        rows = 0
        store = open_features(self.inputs()["pool5"])
        by_image = deeper_features(store, backbone, self.layer, device)
        for image, values in zip(split.images, self.progress()(by_image, len(split.images)), strict=True):
            writer.append(image.id, values)
            rows += len(values.boxes)
        return rows

    def network_task(self) -> CachedTask:
        """The stage whose backbone makes the features."""
        return trained_network(self)

    def detector_settings(self) -> dict:
        """The settings of R-CNN's detector that concern the features."""
        return {
            "backbone": self.backbone, "precision": self.arithmetic, "layer": self.layer,
            "context_padding": self.context_padding, "batch_size": self.extract_batch,
        }
