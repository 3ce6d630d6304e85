"""The HDF5 feature store: features of every region of every image, written image by image, read image by image.

One layout for R-CNN's features and SPP-net's. Rows of one image lie together, ground truth first:

    features      [N x D]  float16   values of the layer, not scaled
    boxes         [N x 4]  float32   x1, y1, x2, y2 in pixels, 0-based, x2 and y2 exclusive
    image_index   [N]      int32     row of image_ids
    image_ids     [M]      UTF-8
    image_offsets [M + 1]  int64     rows of image i: image_offsets[i] to image_offsets[i + 1]
    overlaps      [N x C]  float32   largest IoU with a ground-truth box of each class; -1 on a region to ignore
    max_overlap   [N]      float32   the largest of these
    gt_labels     [N]      int32     class of a ground-truth box, -1 for a proposal
    difficult     [N]      bool      whether it is a ground-truth box marked difficult
    repeated      [N]      bool      SPP-net's alone: whether an earlier region of its image is pooled from the same cells

Root attributes: classes, backbone, layer and how the crops were made. A store may be spread over several files (shards) of
consecutive images. Each chunk of features bears a checksum, so that damage is an error and never a wrong number.

Compression changes no bit of a feature. `gzip` is HDF5's own filter, which every tool reads. `sparse` leaves the zeros out: in
place of `features` the file has the root attribute `num_features`, D, and four data sets (`pipeline.sparse_features`):

    nonzero       [N x B]  uint8     a bit for each value, the first one's the highest: whether it is kept; B = D / 8, rounded up
    values        [V]      float16   the values that are kept, row by row; compressed by gzip
    value_ends    [N]      int64     where each row ends in values
    norm          [N]      float64   L2 norm of the row: what scales features is known without reading them

SPP-net's pyramid has no `features` in its file: they are pooled from cached maps when they are read, so a subclass reads such
files (`pipeline.spp_net.pooled_store`). There the root attribute `num_features` is D, and one data set more says how large the
images are:

    image_size    [M x 2]  int32     height and width in pixels

Shape shorthand: N regions, M images, D features, C classes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from pipeline.files.hdf5 import StoreWriter, enter_writer, exit_writer, explained, opened
from pipeline.half_floats import row_norms
from pipeline.sparse_features import pack, unpack

NO_COMPRESSION, GZIP, SPARSE = COMPRESSIONS = "none", "gzip", "sparse"
CHUNK_BYTES = 1 << 20
COMPRESSED_CHUNK_BYTES = 1 << 17  # before compression: to read an image, only the chunks at its ends are read in vain
SPARSE_COLUMNS = {"nonzero": np.uint8, "values": np.float16, "value_ends": np.int64, "norm": np.float64}
COLUMNS = {"boxes": np.float32, "overlaps": np.float32, "gt_labels": np.int32, "difficult": np.bool_}
REPEATED = "repeated"
NUM_FEATURES, IMAGE_SIZE = "num_features", "image_size"  # attribute and data set of files without features
PROPOSAL = -1
NOT_TRAINED = -1  # the overlaps of a proposal on a region to ignore, such as a crowd: no linear model is trained on it


@dataclass(frozen=True)
class Annotations:
    """The rows of one image without their features: the columns of the store. `repeated` is None where the store has none."""

    boxes: np.ndarray
    overlaps: np.ndarray
    gt_labels: np.ndarray
    difficult: np.ndarray
    repeated: np.ndarray | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ImageFeatures(Annotations):
    """The rows of one image with their `features` float16 [n x D]."""

    features: np.ndarray


class FeatureWriter:
    """Writes one new file of a store: `with FeatureWriter(...) as writer`. `attributes` become root attributes.

    `repeats` says whether the rows have the column `repeated`. With `image_sizes`, the (height, width) of all images, the file
    has no features: see above. `compression` is one of `COMPRESSIONS`.
    Every method raises PipelineError, naming the file, when it cannot be written; the file is gone then.
    """

    def __init__(
        self, path: Path, num_features: int, classes: Sequence[str], attributes: dict, *, repeats: bool = False,
        image_sizes: Sequence[tuple[int, int]] | None = None, compression: str = NO_COMPRESSION,
    ):
        convention = "x1, y1, x2, y2 in pixels; 0-based; x2, y2 exclusive"
        self._has_features, self._compression = image_sizes is None, compression
        counted = {} if self._has_features and compression != SPARSE else {NUM_FEATURES: num_features}
        self._file = StoreWriter(path, {"classes": list(classes), "box_convention": convention, **counted, **attributes})
        self._ids: list[str] = []
        self._offsets = [0]
        self._num_values = 0
        self._columns = {**COLUMNS, REPEATED: np.bool_} if repeats else COLUMNS
        self._image_sizes = image_sizes
        if self._has_features:
            self._add_features(num_features)
        for name, dtype in self._columns.items():
            self._add(name, dtype, {"boxes": (4,), "overlaps": (len(classes),)}.get(name, ()))
        self._add("image_index", np.int32, ())
        self._add("max_overlap", np.float32, ())

    def _add_features(self, num_features: int) -> None:
        if self._compression == SPARSE:
            self._add("nonzero", np.uint8, (-(-num_features // 8),))
            self._add("values", np.float16, (), COMPRESSED_CHUNK_BYTES, is_compressed=True)
            self._add("value_ends", np.int64, ())
            self._add("norm", np.float64, ())
        elif self._compression == GZIP:
            self._add("features", np.float16, (num_features,), COMPRESSED_CHUNK_BYTES, is_compressed=True)
        else:
            self._add("features", np.float16, (num_features,), CHUNK_BYTES)

    def _add(
        self, name: str, dtype, shape: tuple[int, ...], chunk_bytes: int = CHUNK_BYTES // 16, is_compressed: bool = False
    ) -> None:
        row = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=int))
        self._file.add(name, dtype, shape, max(1, chunk_bytes // max(row, 1)), is_compressed)

    def append(self, image_id: str, rows: Annotations) -> None:
        """Adds one image's rows: ImageFeatures where the file has features."""
        columns = {name: getattr(rows, name) for name in self._columns}
        if self._has_features:
            assert isinstance(rows, ImageFeatures)
            columns |= self._packed(rows.features) if self._compression == SPARSE else {"features": rows.features}
        columns["image_index"] = np.full(len(rows.boxes), len(self._ids), np.int32)
        columns["max_overlap"] = rows.overlaps.max(axis=1, initial=0)
        for name, values in columns.items():
            self._file.append(name, values)
        self._ids.append(image_id)
        self._offsets.append(self._offsets[-1] + len(rows.boxes))

    def _packed(self, features: np.ndarray) -> dict[str, np.ndarray]:
        nonzero, values, counts = pack(features)
        ends = self._num_values + np.cumsum(counts, dtype=np.int64)
        self._num_values += len(values)
        return dict(zip(SPARSE_COLUMNS, (nonzero, values, ends, row_norms(features)), strict=True))

    def close(self) -> None:
        """Completes the file, and compares it with what was given."""
        self._file.put_texts("image_ids", self._ids)
        self._file.put("image_offsets", np.array(self._offsets, np.int64))
        if self._image_sizes is not None:
            self._file.put(IMAGE_SIZE, np.array(self._image_sizes, np.int32).reshape(-1, 2), checksum=True)
        self._file.close()

    def abandon(self) -> None:
        """Removes the unfinished file."""
        self._file.abandon()

    __enter__, __exit__ = enter_writer, exit_writer


class FeatureStore:
    """Reads the files of a store as one. Nothing but offsets and image ids is held in memory."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = [Path(path) for path in paths]
        self.image_ids: list[str] = []
        self._where: list[tuple[int, int, int]] = []  # (file, first row, end) of each image
        for number, path in enumerate(self.paths):
            with explained(path):
                file = self._open(number)
                self.image_ids += [image_id.decode() for image_id in file["image_ids"][:]]
                offsets = file["image_offsets"][:]
                # The offsets bear no checksum; the index of every row does.
                if not np.array_equal(np.diff(offsets), np.bincount(file["image_index"][:], minlength=len(offsets) - 1)):
                    raise OSError("image_offsets and image_index disagree")
                self._where += [(number, int(a), int(b)) for a, b in itertools.pairwise(offsets)]
                self.num_features = self._size(file)
                self.classes = tuple(file.attrs["classes"])

    @property
    def num_images(self) -> int:
        return len(self._where)

    def num_rows(self, image: int) -> int:
        """How many regions image number `image` has."""
        _, first, end = self._where[image]
        return end - first

    def read(self, image: int, rows: np.ndarray | None = None) -> ImageFeatures:
        """The rows of image number `image`; with `rows` (ascending indices) only these."""
        annotations = self.annotations(image)
        columns = {name: column for name in (*COLUMNS, REPEATED) if (column := getattr(annotations, name)) is not None}
        chosen = Annotations(**{name: column if rows is None else column[rows] for name, column in columns.items()})
        return ImageFeatures(**vars(chosen), features=self._features(image, chosen, rows))

    def features(self, image: int) -> np.ndarray:
        """The features float16 [n x D] of image number `image` alone, in four fifths of the time of `read`."""
        return self._features(image, None, None)

    def _size(self, file: h5py.File) -> int:
        """D of a file."""
        if "features" in file:
            return file["features"].shape[1]
        size, width = int(file.attrs[NUM_FEATURES]), file["nonzero"].shape[1]
        if width != -(-size // 8):
            raise OSError(f"{width} bytes of bits a row, expected those of {size} features")
        return size

    def _features(self, image: int, chosen: Annotations | None, rows: np.ndarray | None) -> np.ndarray:
        """The features float16 [n x D] of the `chosen` rows of an image, those with the indices `rows`; None: of all rows."""
        number, first, end = self._where[image]
        if rows is not None and len(rows) == 0:
            return np.zeros((0, self.num_features), np.float16)
        with explained(self.paths[number]):
            file = self._open(number)
            if rows is None:
                return self._block(file, first, end)
            # One contiguous read and a selection in memory: HDF5 is slow on scattered rows.
            low, high = int(min(rows)), int(max(rows)) + 1
            return self._block(file, first + low, first + high)[np.asarray(rows) - low]

    def _block(self, file: h5py.File, first: int, end: int) -> np.ndarray:
        """The features of the rows `first` to `end` of a file."""
        if "features" in file:
            return file["features"][first:end]
        if first == end:
            return np.zeros((0, self.num_features), np.float16)
        ends = file["value_ends"][max(first - 1, 0) : end]
        start = ends[0] if first else 0
        values = file["values"][start : ends[-1]]
        return unpack(file["nonzero"][first:end], values, ends[-(end - first) :] - start, self.num_features)

    def norms(self, image: int, rows: np.ndarray) -> np.ndarray:
        """The L2 norms float64 of the features of these rows (ascending indices) of image number `image`."""
        number, first, end = self._where[image]
        with explained(self.paths[number]):
            file = self._open(number)
            if "norm" in file:
                return file["norm"][first:end][rows]
        return row_norms(self.read(image, rows).features)

    def annotations(self, image: int) -> Annotations:
        """As `read`, without the features: cheap."""
        number, first, end = self._where[image]
        with explained(self.paths[number]):
            file = self._open(number)
            return Annotations(**{name: file[name][first:end] for name in (*COLUMNS, REPEATED) if name in file})

    def __iter__(self) -> Iterator[ImageFeatures]:
        return (self.read(image) for image in range(self.num_images))

    def _open(self, number: int) -> h5py.File:
        return opened(self.paths[number])

    def close(self) -> None:
        """Closes the files; a closed store opens them again when it is read."""
        opened.cache_clear()
