"""A feature store whose features stay in memory once they were read, as far as there is room: the next search is quicker."""

import numpy as np

from pipeline.feature_store import Annotations, FeatureStore, ImageFeatures


class Room:
    """The bytes of memory that several stores share."""

    def __init__(self, gigabytes: float):
        self._left = int(gigabytes * 1e9)

    def take(self, size: int) -> bool:
        """Whether there were `size` bytes left; then they are taken."""
        if size > self._left:
            return False
        self._left -= size
        return True


class KeptStore:
    """Reads as `store` does. Whole images are kept while there is `room`; the others are read from the file each time.

    None makes way for another: a search goes through all images, so that the oldest is always the next to be needed.
    """

    def __init__(self, store: FeatureStore, room: Room):
        self._store, self._room = store, room
        self._features: dict[int, np.ndarray] = {}
        self._annotations: dict[int, Annotations] = {}  # of images in `_features`; they are small

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    def features(self, image: int) -> np.ndarray:
        if image in self._features:
            return self._features[image]
        features = self._store.features(image)
        if self._room.take(features.nbytes):
            self._features[image] = features
        return features

    def annotations(self, image: int) -> Annotations:
        if image in self._annotations:
            return self._annotations[image]
        annotations = self._store.annotations(image)
        if image in self._features:
            self._annotations[image] = annotations
        return annotations

    def read(self, image: int, rows=None) -> ImageFeatures:
        if rows is not None:
            return self._store.read(image, rows)
        features = self.features(image)
        return ImageFeatures(**vars(self.annotations(image)), features=features)
