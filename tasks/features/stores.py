"""Features of every region of a split, in the feature store: R-CNN's from warped crops, SPP-net's from the map of the image."""

from pipeline.errors import PipelineError
from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.conv_maps import LONGEST_SIDE, ConvFeatures, open_maps
from tasks.networks.finetune import LAYERS, FineTune, NetworkTask, first_weights, load_backbone, padding_setting, trained_network
from tasks.proposals.regions import RegionProposals, load_proposals

FEATURES = "features.h5"
POOL5 = "pool5"
RELEASE_SCALES = (688,)  # SPP-net, section 4.2
# Ours. No layer is trained on SqueezeNet's maps, so that objects have to be about as large in them as in the crops that it knows:
# mAP 43 on validation photographs with these scales, 37 with 360, 34 with 688. `tiny` was made for smaller objects.
SPP_SCALES = {"squeezenet1_0": (240, 360, 540, 800), "tiny": (240,)}


@parameters.inherits(RegionProposals, FineTune)
class ExtractFeatures(NetworkTask, ShardedTask):
    """One layer's features of every ground-truth box and proposal of a split, in HDF5.

    `pool5` is computed from the pixels; deeper layers from the cached `pool5`, as in the release.
    """

    version = 2
    resolved = (*NetworkTask.resolved, *ShardedTask.resolved)

    layer = parameters.text(POOL5, "features", "layer", "layer of the features: pool5, fc6 or fc7, if the backbone has it")
    context_padding = padding_setting()
    memory_settings = ("extract_batch", "threads")
    extract_batch = parameters.integer(32, "features", "batch_size", "crops per batch", minimum=1)

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def upstream(self) -> dict[str, CachedTask]:
        if self.layer not in LAYERS[self.backbone]:
            raise PipelineError(f"--layer {self.layer}: backbone {self.backbone} has {', '.join(LAYERS[self.backbone])}")
        network = {"network": self.network_task()}
        if self.layer == POOL5:
            return {"proposals": self.clone(RegionProposals), **network}
        return {"pool5": self.clone(ExtractFeatures, layer=POOL5), **network}

    def record_key(self, split, record) -> dict:
        return {"record": {**record.to_json(), "path": None}, "classes": split.classes}

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
        with FeatureWriter(workshop.files / FEATURES, backbone.sizes[self.layer], split.classes, attributes) as writer:
            rows = fill(writer, backbone, split, device)
        return {"images": len(split.images), "regions": rows}

    def _fill_from_pixels(self, writer, backbone, split, device) -> int:
        from pipeline.images.reading import ImageCache
        from pipeline.rcnn.features import join_regions, region_features, write_features

        proposals = load_proposals(self.inputs()["proposals"])
        regions = [join_regions(image, boxes) for image, boxes in zip(split.images, proposals, strict=True)]
        images = ImageCache(self.index_task().root, 0)
        settings = self.arithmetic, self.context_padding, self.extract_batch, device
        features = region_features(regions, images.read, backbone, POOL5, *settings)
        return write_features(regions, self.progress()(features, len(regions)), writer, len(split.classes))

    def _fill_from_pool5(self, writer, backbone, split, device) -> int:
        from pipeline.rcnn.features import deeper_features

        rows = 0
        store = open_features(self.inputs()["pool5"])
        found = deeper_features(store, backbone, self.layer, device)
        for image, values in zip(split.images, self.progress()(found, len(split.images)), strict=True):
            writer.append(image.id, values)
            rows += len(values.boxes)
        return rows

    def network_task(self) -> CachedTask:
        """The stage whose backbone makes the features."""
        return trained_network(self)

    def detector_settings(self) -> dict:
        """What R-CNN's detector has to be told of its features."""
        return {
            "backbone": self.backbone, "precision": self.arithmetic, "layer": self.layer,
            "context_padding": self.context_padding, "batch_size": self.extract_batch,
        }


@parameters.inherits(RegionProposals, ConvFeatures, without=("map_scales", "map_longest_side", "map_mirrored"))
class SpatialPyramidFeatures(ShardedTask):
    """SPP-net's features of every ground-truth box and proposal of a split: bins of the region's window of the map, in HDF5."""

    version = 2

    pyramid_levels = parameters.integers((1, 2, 3, 6), "spp", "levels", "bins a side of each level of the pyramid", minimum=1)
    spp_scales = parameters.integers(
        (), "spp", "scales", "shorter sides of images; empty: 688, or what suits the backbone", minimum=1
    )
    spp_longest_side = parameters.integer(LONGEST_SIDE, "spp", "longest_side", "limit of the longer side", minimum=1)

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def upstream(self) -> dict[str, CachedTask]:
        maps = self.clone(ConvFeatures, map_scales=self.scales, map_longest_side=self.spp_longest_side, map_mirrored=False)
        return {"proposals": self.clone(RegionProposals), "maps": maps}

    @property
    def scales(self) -> tuple[int, ...]:
        return self.spp_scales or SPP_SCALES.get(self.backbone, RELEASE_SCALES)

    def record_key(self, split, record) -> dict:
        return {"record": {**record.to_json(), "path": None}, "classes": split.classes}

    def build_shard(self, workshop: Workshop, split) -> dict:
        import torch

        from pipeline.feature_store import FeatureWriter
        from pipeline.networks.backbones import make_backbone
        from pipeline.prefetch import prefetch
        from pipeline.rcnn.features import join_regions, write_features
        from pipeline.spp_net.spatial_pyramid import pyramid_features, pyramid_size

        maps = open_maps(self.inputs()["maps"], split.images)
        proposals = load_proposals(self.inputs()["proposals"])
        regions = [join_regions(image, boxes) for image, boxes in zip(split.images, proposals, strict=True)]
        torch.set_num_threads(self.num_threads)
        with torch.device("meta"):  # for its sizes alone
            backbone = make_backbone(self.backbone)
        size = pyramid_size(backbone.channels, self.pyramid_levels)
        read = prefetch([maps.read(number, scale) for scale in self.scales] for number in range(len(regions)))
        features = (
            pyramid_features(found, item.boxes, backbone.crop_size, self.pyramid_levels, backbone.centre)
            for item, found in zip(regions, read, strict=True)
        )
        attributes = {"backbone": self.backbone, "layer": "pyramid", "levels": self.pyramid_levels, "scales": self.scales}
        with FeatureWriter(workshop.files / FEATURES, size, split.classes, attributes) as writer:
            rows = write_features(regions, self.progress()(features, len(regions)), writer, len(split.classes))
        return {"images": len(split.images), "regions": rows}

    def network_task(self) -> CachedTask:
        """The stage whose backbone makes the features."""
        return first_weights(self)

    def detector_settings(self) -> dict:
        """What SPP-net's detector has to be told of its features."""
        return {
            "backbone": self.backbone, "precision": self.clone(ConvFeatures).arithmetic, "scales": self.scales,
            "longest_side": self.spp_longest_side, "levels": self.pyramid_levels,
        }


# Whose features the SVMs and box regressors are trained on.
CROPS, PYRAMID = "crops", "pyramid"


def features_of(task: CachedTask, split: str, **settings) -> ExtractFeatures | SpatialPyramidFeatures:
    """The stage that makes the region features that `task` reads; `settings` are R-CNN's."""
    if task.region_features == PYRAMID:
        return task.clone(SpatialPyramidFeatures, split=split)
    return task.clone(ExtractFeatures, split=split, **settings)


def open_features(artefact: Artefact):
    """The feature store in the artefact of one shard of `ExtractFeatures`, or of the whole stage."""
    from pipeline.feature_store import FeatureStore

    parts = [artefact] if FEATURES in artefact.manifest["files"] else artefact.shards()
    return FeatureStore([part.path(FEATURES) for part in parts])


