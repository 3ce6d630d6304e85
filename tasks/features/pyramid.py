"""SPP-net's features of every region of a split, pooled from bins of the region's window in the image's map."""

from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.features.stores import FEATURES
from tasks.networks.conv_maps import LONGEST_SIDE, ConvFeatures, open_maps
from tasks.networks.weights import first_weights
from tasks.proposals.regions import RegionProposals, load_proposals

RELEASE_SCALES = (688,)  # SPP-net, section 4.2
# Ours. No layer is trained on SqueezeNet's maps. So objects must be about as large in them as in the crops of its own training:
# mAP 43 on validation photographs with these scales, 37 with 360, 34 with 688. `tiny` is made for smaller objects.
SPP_SCALES = {
    "squeezenet1_0": (240, 360, 540, 800), "efficientnet_lite0": (240, 360, 540, 800), "tiny": (240,),
}


@parameters.inherits(RegionProposals, ConvFeatures, without=("map_scales", "map_longest_side", "map_mirrored"))
class SpatialPyramidFeatures(ShardedTask):
    """SPP-net's features for every ground-truth box and proposal of a split, in HDF5."""

    version = 2

    pyramid_levels = parameters.integers((1, 2, 3, 6), "spp", "levels", "bins per side in each level of the pyramid", minimum=1)
    spp_scales = parameters.integers(
        (), "spp", "scales", "shorter sides of images; empty: 688, or the backbone's default", minimum=1
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
        with torch.device("meta"):  # only its sizes are needed, so its weights take no memory
            backbone = make_backbone(self.backbone)
        size = pyramid_size(backbone.view.channels, self.pyramid_levels)
        maps_by_image = prefetch([maps.read(number, scale) for scale in self.scales] for number in range(len(regions)))
        features = (
            pyramid_features(image_maps, of_image.boxes, backbone.crop_size, backbone.view, self.pyramid_levels)
            for of_image, image_maps in zip(regions, maps_by_image, strict=True)
        )
        attributes = {"backbone": self.backbone, "layer": "pyramid", "levels": self.pyramid_levels, "scales": self.scales}
        with FeatureWriter(workshop.files / FEATURES, size, split.classes, attributes) as writer:
            rows = write_features(regions, self.progress()(features, len(regions)), writer, len(split.classes))
        return {"images": len(split.images), "regions": rows}

    def network_task(self) -> CachedTask:
        """The stage whose backbone makes the features."""
        return first_weights(self)

    def detector_settings(self) -> dict:
        """The settings of SPP-net's detector that concern the features."""
        return {
            "backbone": self.backbone, "precision": self.clone(ConvFeatures).arithmetic, "scales": self.scales,
            "longest_side": self.spp_longest_side, "levels": self.pyramid_levels,
        }
