"""Conv maps in HDF5: one a scale, and one a mirror image, for every image of a shard; written and read image by image.

    cells        [K x D]  float16   a map's cells, row by row
    offsets      [m + 1]  int64     cells of map i: offsets[i] to offsets[i + 1]
    map_size     [m x 2]  int32     its height and width in cells
    scaled_size  [m x 2]  int32     height and width of the scaled image, in pixels
    image_index  [m]      int32     row of image_ids
    scale        [m]      int32     the shorter side that was asked for
    mirrored     [m]      bool      whether the image was mirrored
    image_ids    [M]      UTF-8

Root attributes hold the backbone and its precision. Everything but the ids has checksums.

Shape shorthand: M images, m maps, K cells of all maps, D channels, h x w cells of one map.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.feature_store import CHUNK_BYTES
from pipeline.files.hdf5 import StoreWriter, enter_writer, exit_writer, explained, opened
from pipeline.networks.whole_images import Scaling

COLUMNS = {"map_size": np.int32, "scaled_size": np.int32, "image_index": np.int32, "scale": np.int32, "mirrored": np.bool_}


@dataclass(frozen=True)
class StoredMap:
    """`cells` float16 [h x w x D], made from an image that `scaling` scaled."""

    cells: np.ndarray
    scaling: Scaling


class MapWriter:
    """Writes one new file of maps, one at least: `with MapWriter(...) as writer`. `attributes` become root attributes.

    Every method raises PipelineError, naming the file, when it cannot be written; the file is gone then.
    """

    def __init__(self, path: Path, channels: int, attributes: dict):
        self._file = StoreWriter(path, attributes)
        self._file.add("cells", np.float16, (channels,), max(1, CHUNK_BYTES // (2 * channels)))
        self._columns: dict[str, list] = {name: [] for name in COLUMNS}
        self._offsets = [0]
        self._ids: list[str] = []

    def append(self, image_id: str, scale: int, mirrored: bool, scaling: Scaling, cells: np.ndarray) -> None:
        """Adds the map `cells` [h x w x D] of one image, after those of the images before it."""
        if self._ids[-1:] != [image_id]:
            self._ids.append(image_id)
        height, width, channels = cells.shape
        self._file.append("cells", cells.reshape(-1, channels), flush=False)
        self._offsets.append(self._offsets[-1] + height * width)
        values = (height, width), scaling.size, len(self._ids) - 1, scale, mirrored
        for name, value in zip(COLUMNS, values, strict=True):
            self._columns[name].append(value)

    def close(self) -> None:
        """Completes the file, and compares it with what was given."""
        columns: dict[str, np.ndarray] = {name: np.array(self._columns[name], dtype) for name, dtype in COLUMNS.items()}
        for name, values in {**columns, "offsets": np.array(self._offsets, np.int64)}.items():
            self._file.put(name, values, checksum=True)
        self._file.put_texts("image_ids", self._ids)
        self._file.close()

    def abandon(self) -> None:
        """Removes the unfinished file."""
        self._file.abandon()

    __enter__, __exit__ = enter_writer, exit_writer


class MapStore:
    """Reads the files of maps of a split as one; `sizes` are the (height, width) of its images, in order."""

    def __init__(self, paths: Iterable[Path], sizes: Iterable[tuple[int, int]]):
        self._paths = [Path(path) for path in paths]
        self._sizes = list(sizes)
        self._where: dict[tuple[int, int, bool], tuple[int, int]] = {}  # (image, scale, mirrored) -> (file, map)
        images = 0
        for number, path in enumerate(self._paths):
            with explained(path):
                file = opened(path)
                columns = zip(*(file[name][:].tolist() for name in ("image_index", "scale", "mirrored")))
                for row, (image, scale, mirrored) in enumerate(columns):
                    self._where[images + image, scale, mirrored] = number, row
                images += len(file["image_ids"])
        if images != len(self._sizes):
            raise PipelineError(f"{self._paths[0]}: maps of {images} images, expected {len(self._sizes)}; make them anew")

    def read(self, image: int, scale: int, mirrored: bool = False) -> StoredMap:
        """The map of image number `image`. Raises PipelineError when that scale is missing or damaged."""
        if (image, scale, mirrored) not in self._where:
            raise PipelineError(f"{self._paths[0]}: no map of image {image} at scale {scale}, mirrored: {mirrored}")
        number, row = self._where[image, scale, mirrored]
        with explained(self._paths[number]):
            file = opened(self._paths[number])
            (first, end), size = file["offsets"][row : row + 2], file["scaled_size"][row].tolist()
            cells = file["cells"][first:end].reshape(*file["map_size"][row], -1)
        height, width = self._sizes[image]
        return StoredMap(cells, Scaling(tuple(size), (size[1] / width, size[0] / height)))
