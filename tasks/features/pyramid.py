"""SPP-net's features of every region of a split, pooled from bins of the region's window in the image's map."""

from collections.abc import Callable, Iterator

from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.features.stores import (
    FEATURES,
    MAPS_INPUT,
    POOL5,
    PYRAMID,
    column_bytes,
    compression_key,
    compression_setting,
    open_features,
    region_bytes,
)
from tasks.networks.base import BACKBONE
from tasks.networks.conv_maps import ConvFeatures, open_maps
from tasks.networks.finetune_pyramid import AUTO, FineTuneSPP, Pyramid, layer_of
from tasks.networks.weights import first_weights
from tasks.proposals.regions import RegionProposals, load_proposals


@parameters.inherits(RegionProposals, FineTuneSPP)
class SpatialPyramidFeatures(ShardedTask, Pyramid):
    """SPP-net's features for every ground-truth box and proposal of a split, in HDF5.

    `pool5` is the pyramid itself. As in the release, no file holds it: it is pooled from the cached maps when it is read. Deeper
    layers are computed from it by layers that were fine-tuned on it.
    """

    version = 4
    resolved = (*ShardedTask.resolved, "spp_layer", "feature_compression")

    spp_layer = parameters.choice(
        AUTO, (AUTO, POOL5, "fc6", "fc7"), "spp", "layer",
        "layer of SPP-net's SVMs; pool5: the pyramid itself; auto: the last fully connected layer, pool5 if there is none",
    )

    feature_compression = compression_setting()

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    @property
    def layer_name(self) -> str:
        return layer_of(self)

    def resolve(self) -> dict:
        # No file holds the pyramid, so there is nothing to compress.
        compression = {} if self.layer_name == POOL5 else compression_key(self)
        return {**super().resolve(), "layer": self.layer_name, **compression}

    def upstream(self) -> dict[str, CachedTask]:
        if self.layer_name == POOL5:
            return {"proposals": self.clone(RegionProposals), MAPS_INPUT: self.maps_of(self.split)}
        return {"pool5": self.clone(SpatialPyramidFeatures, spp_layer=POOL5), "network": self.clone(FineTuneSPP)}

    def complete(self) -> bool:
        # What reads the pyramid reads the maps.
        return super().complete() and (self.layer_name != POOL5 or self.maps_of(self.split).complete())

    def record_key(self, split, record) -> dict:
        return {"record": {**record.to_json(), "path": None}, "classes": split.classes}

    def image_bytes(self) -> Callable:
        num_classes, proposals = len(load_split(self.index_task().artefact).classes), self.clone(RegionProposals).boxes_per_image
        is_pooled = self.layer_name == POOL5
        of_region = column_bytes(num_classes) if is_pooled else region_bytes(self, self.layer_name, num_classes)
        return lambda shape: (shape.objects + proposals) * of_region

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.feature_store import FeatureWriter
        from pipeline.rcnn.features import write_rows

        is_pooled = self.layer_name == POOL5
        size, rows = self._of_pyramid(split) if is_pooled else self._from_pool5()
        attributes = {
            "backbone": self.backbone, "layer": PYRAMID if is_pooled else self.layer_name,
            "levels": self.pyramid_levels, "scales": self.scales,
        }
        sizes = [(image.height, image.width) for image in split.images] if is_pooled else None
        by_image = zip(split.images, self.progress()(rows, len(split.images)), strict=True)
        with FeatureWriter(
            workshop.files / FEATURES, size, split.classes, attributes, repeats=True, image_sizes=sizes,
            compression=self.feature_compression,
        ) as writer:
            count = write_rows(((image.id, of_image) for image, of_image in by_image), writer)
        return {"images": len(split.images), "regions": count}

    def _of_pyramid(self, split) -> tuple[int, Iterator]:
        """How many values a region has, and the rows of each image without them."""
        from pipeline.networks.backbones import make_backbone
        from pipeline.networks.without_weights import without_weights
        from pipeline.prefetch import prefetch
        from pipeline.rcnn.features import join_regions
        from pipeline.spp_net.spatial_pyramid import pyramid_size, repeated_regions

        store = open_maps(self.inputs()[MAPS_INPUT], split.images)
        proposals = load_proposals(self.inputs()["proposals"])
        with without_weights():
            backbone = make_backbone(self.backbone)
        crop_size, view = backbone.crop_size, backbone.view
        maps_by_image = prefetch([store.read(number, scale) for scale in self.scales] for number in range(len(split.images)))

        def rows() -> Iterator:
            for image, boxes, maps in zip(split.images, proposals, maps_by_image, strict=True):
                regions = join_regions(image, boxes)
                repeated = repeated_regions(maps, regions.boxes, crop_size, view)
                yield regions.annotations(len(split.classes), repeated)

        return pyramid_size(view.channels, self.pyramid_levels), rows()

    def _from_pool5(self) -> tuple[int, Iterator]:
        """How many values a region has, and the rows of each image: computed from the pyramid by the fine-tuned layers."""
        from pipeline.networks.compute import for_inference, prepare
        from pipeline.rcnn.features import deeper_features
        from pipeline.spp_net.pyramid_layers import pyramid_backbone
        from tasks.file_checks import read_tensors

        device, network = prepare(self.device, self.num_threads), self.inputs()["network"]
        backbone = pyramid_backbone(self.backbone, self.pyramid_levels, read_tensors(network, BACKBONE), repr(network))
        backbone = for_inference(backbone, device, self.clone(ConvFeatures).arithmetic)
        store = open_features(self.inputs()["pool5"])
        return backbone.sizes[self.layer_name], deeper_features(store, backbone, self.layer_name, device)

    def network_task(self) -> CachedTask:
        """The stage whose backbone makes the features."""
        return first_weights(self) if self.layer_name == POOL5 else self.clone(FineTuneSPP)

    def detector_settings(self) -> dict:
        """The settings of SPP-net's detector that concern the features."""
        return {
            "backbone": self.backbone, "precision": self.clone(ConvFeatures).arithmetic, "scales": self.scales,
            "longest_side": self.spp_longest_side, "levels": self.pyramid_levels, "layer": self.layer_name,
        }
