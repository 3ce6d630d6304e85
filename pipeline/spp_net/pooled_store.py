"""SPP-net's feature store: what a store holds but for the features, which are pooled from cached maps when they are read.

So does the release: its cache has the maps alone. A region of AlexNet has 12800 values in the pyramid, its box four.

The file's root attributes say how regions are pooled: `backbone`, `levels` and `scales`.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from pipeline.feature_store import IMAGE_SIZE, NUM_FEATURES, Annotations, FeatureStore
from pipeline.files.hdf5 import explained
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_store import MapStore
from pipeline.networks.without_weights import without_weights
from pipeline.spp_net.spatial_pyramid import pyramid_features


class PooledStore(FeatureStore):
    """Reads the files of a store without features; they are pooled from the maps of the same images in the files `maps`."""

    def __init__(self, paths: Sequence[Path], maps: Sequence[Path]):
        super().__init__(paths)
        sizes: list[tuple[int, int]] = []
        for number, path in enumerate(self.paths):
            with explained(path):
                sizes += map(tuple, self._open(number)[IMAGE_SIZE][:].tolist())
        self.maps = MapStore(maps, sizes)
        with explained(self.paths[0]):
            attributes = self._open(0).attrs
            self.scales, self.levels = (tuple(map(int, attributes[name])) for name in ("scales", "levels"))
            with without_weights():
                backbone = make_backbone(attributes["backbone"])
        self.crop_size, self.view = backbone.crop_size, backbone.view

    def _size(self, file: h5py.File) -> int:
        return int(file.attrs[NUM_FEATURES])

    def _features(self, image: int, chosen: Annotations | None, rows: np.ndarray | None) -> np.ndarray:
        chosen = chosen or self.annotations(image)
        if not len(chosen.boxes):
            return np.zeros((0, self.num_features), np.float16)
        maps = [self.maps.read(image, scale) for scale in self.scales]
        return pyramid_features(maps, chosen.boxes, self.crop_size, self.view, self.levels)
