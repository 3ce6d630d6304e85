"""Conv maps of whole images from frozen layers: SPP-net pools them, Fast R-CNN with `--freeze all` trains on them."""

import abc
from collections.abc import Callable

from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask, load_backbone
from tasks.networks.sizes import STRIDE, map_channels
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights

MAPS = "maps.h5"
LONGEST_SIDE = 2000  # pixels; for several scales, from lib/fast_rcnn/config.py of rbgirshick/fast-rcnn


class ImageMaps(NetworkTask, ShardedTask):
    """The conv maps of all images of a split, at each scale, in HDF5."""

    version = 4
    resolved = (*NetworkTask.resolved, *ShardedTask.resolved, "map_originals")

    map_scales = parameters.integers((688,), "maps", "scales", "shorter sides that images are scaled to, in pixels", minimum=1)
    map_longest_side = parameters.integer(LONGEST_SIDE, "maps", "longest_side", "limit of the longer side", minimum=1)
    map_mirrored = parameters.switch(False, "maps", "mirrored", "whether to map mirrored images as well")
    map_originals = parameters.switch(True, "maps", "originals", "whether to map images as they are; false: mirrored ones alone")

    def resolve(self) -> dict:
        # The default stays out of keys, so that older keys stay valid.
        return {**super().resolve(), **({} if self.map_originals else {"originals": False})}

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    @abc.abstractmethod
    def load_layers(self):
        """The backbone whose conv layers make the maps, in float32 on the CPU."""

    def record_key(self, split, record) -> dict:
        return {"id": record.id, **record.pixels_key()}

    def image_bytes(self) -> Callable:
        of_cell = 2 * map_channels(self.backbone) * (self.map_originals + self.map_mirrored)

        def of_image(shape) -> float:
            shorter, longer = sorted((shape.width, shape.height))
            scales = (min(scale / shorter, self.map_longest_side / longer) for scale in self.map_scales)
            return of_cell * sum(shorter * longer * (scale / STRIDE) ** 2 for scale in scales)

        return of_image

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.networks.compute import for_inference
        from pipeline.networks.map_store import MapWriter
        from pipeline.prefetch import prefetch
        from pipeline.spp_net.spatial_pyramid import stored_map

        device = self.prepare()
        backbone = for_inference(self.load_layers(), device, self.arithmetic)
        attributes = {"backbone": self.backbone, "precision": self.arithmetic}
        pixels = prefetch(map(ImageCache(self.index_task().root, 0).read, split.images))
        flips = [mirrored for mirrored, wanted in ((False, self.map_originals), (True, self.map_mirrored)) if wanted]
        with MapWriter(workshop.files / MAPS, backbone.view.channels, attributes) as writer:
            for record, image in zip(split.images, self.progress()(pixels, len(split.images)), strict=True):
                for mirrored in flips:
                    for scale in self.map_scales:
                        conv_map = stored_map(backbone, image, scale, self.map_longest_side, device, mirror=mirrored)
                        writer.append(record.id, scale, mirrored, conv_map.scaling, conv_map.cells)
        return {"images": len(split.images), "maps": len(split.images) * len(self.map_scales) * len(flips)}


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier)
class ConvFeatures(ImageMaps):
    """The maps of the layers with their first weights, before any fine-tuning."""

    def upstream(self) -> dict[str, CachedTask]:
        return {"network": first_weights(self)}

    def load_layers(self):
        return load_backbone(self.inputs()["network"], self.backbone)


def open_maps(artefact: Artefact, images):
    """The maps of `images`; `artefact` is that of a shard of `ConvFeatures` or of the whole stage."""
    from pipeline.networks.map_store import MapStore

    parts = [artefact] if MAPS in artefact.manifest["files"] else artefact.shards()
    return MapStore([part.path(MAPS) for part in parts], [(image.height, image.width) for image in images])
