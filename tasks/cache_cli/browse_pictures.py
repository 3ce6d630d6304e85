"""The pictures of `browse`: photographs of a data set and regions cut out of them, as JPEG."""

from pathlib import PurePosixPath

from pipeline.errors import PipelineError
from tasks.cache_cli.browse_requests import Refused, a_count, a_key, one_of, read_fields
from tasks.cache_cli.browse_stores import Source, Stores

LONGEST_SIDE = {"small": 200, "large": 1200}
CROP_SIDE = 128
CACHED_MEGABYTES = 64.0
PLAIN, WARPED = "plain", "warped"
FIELDS: dict[str, dict] = {
    "photo": {"store": (a_key, ...), "image": (a_count, ...), "size": (one_of(*LONGEST_SIDE), "small")},
    "crop": {"store": (a_key, ...), "image": (a_count, ...), "row": (a_count, ...), "kind": (one_of(PLAIN, WARPED), PLAIN)},
}


class Pictures:
    """Makes pictures. Only image files with the digest that was indexed are read."""

    def __init__(self, stores: Stores):
        self.stores = stores
        self._caches: dict = {}

    def record(self, source: Source, image: int):
        """The record of image number `image`. Raises PipelineError if the index does not have it."""
        image_id = source.store.image_ids[image]
        if image_id not in source.records:
            raise PipelineError(f"{source.entry.name}: its index has no image {image_id!r}; run it again")
        return source.records[image_id]

    def pixels(self, source: Source, image: int):
        """uint8 RGB [height x width x 3]. Raises PipelineError, naming the file, if it is gone or changed."""
        from pipeline.images.reading import ImageCache

        record = self.record(source, image)
        path = PurePosixPath(record.path)
        if path.is_absolute() or ".." in path.parts:
            raise PipelineError(f"{source.index.name}: the path {record.path!r} of an image leads out of its data set")
        if source.root not in self._caches:
            self._caches = {source.root: ImageCache(source.root, CACHED_MEGABYTES)}
        return self._caches[source.root].read(record)

    def picture(self, name: str, query: dict[str, str]) -> bytes:
        """The JPEG `name`: `photo`, or `crop`, a region. Raises Refused for wrong parameters."""
        from pipeline.explorer.pictures import crop_jpeg, photo_jpeg, warped_jpeg

        fields = read_fields(query, FIELDS[name])
        source = self.stores.by_key.get(fields["store"])
        if source is None or fields["image"] >= source.store.num_images:
            raise Refused(404, "no such picture")
        image = fields["image"]
        if name == "photo":
            return photo_jpeg(self.pixels(source, image), LONGEST_SIDE[fields["size"]])
        if fields["row"] >= source.store.num_rows(image):
            raise Refused(404, "no such picture")
        box = source.store.annotations(image).boxes[fields["row"]]
        if fields["kind"] == WARPED:
            return warped_jpeg(self.pixels(source, image), box, source.backbone, source.padding)
        return crop_jpeg(self.pixels(source, image), box, CROP_SIDE)
