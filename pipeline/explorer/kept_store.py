"""A feature store whose images stay in memory once they were read, as far as there is room: the next search is quicker."""

from pipeline.feature_store import FeatureStore, ImageFeatures


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
        self._kept: dict[int, ImageFeatures] = {}

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    def read(self, image: int, rows=None) -> ImageFeatures:
        if rows is not None:
            return self._store.read(image, rows)
        if image in self._kept:
            return self._kept[image]
        regions = self._store.read(image)
        if self._room.take(regions.features.nbytes):
            self._kept[image] = regions
        return regions
