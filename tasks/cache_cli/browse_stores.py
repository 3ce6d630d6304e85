"""What `browse` shows of a cache: its feature stores, each with its images, annotation files, SVMs and detectors.

Nothing is changed, and no artefact is moved aside as a stage would: a damaged file is an error of the page that needs it.
"""

from collections import OrderedDict
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from tasks.data.splits import INDEX
from tasks.engine.catalogue import Catalogue, Entry, is_plain, name_of
from tasks.engine.digests import digest_file
from tasks.features.stores import FEATURES, MAPS_INPUT, POOL5
from tasks.networks.conv_maps import MAPS

STORES = ("ExtractFeatures", "SpatialPyramidFeatures")
DETECTORS, SVMS_STAGE, SVMS_FILE = "ExportDetector", "TrainSVMs", "svms.npz"
NETWORK = "network"
GIGABYTES = 1.0  # room for the features of `digits` with its default settings, 0.6 GB
OF_THE_SPLIT = ("split", "shard_size")  # settings that do not change the features of a region


def file_of(entry: Entry, name: str) -> Path:
    """The file `name` of an artefact. Raises PipelineError for a link, and for what is no file of the artefact."""
    path = entry.folder / name
    if name not in entry.manifest["files"] or not is_plain(path):
        raise PipelineError(f"{path}: not a file of this artefact; see `rcnn-cache verify`")
    return path


def features_identity(catalogue: Catalogue, entry: Entry) -> tuple:
    """What the features of one region depend on: equal for the stores of several splits whose features can be compared."""
    settings = sorted((name, str(value)) for name, value in entry.manifest["parameters"].items() if name not in OF_THE_SPLIT)
    parts: list = [entry.stage, entry.manifest["version"], settings]
    for name in (NETWORK, POOL5, MAPS_INPUT):
        if source := entry.sources.get(name):
            before = catalogue.get(source)
            parts.append(source["key"] if name == NETWORK or not before else features_identity(catalogue, before))
    return tuple(parts)


class Source:
    """One feature store with what belongs to it. Files are opened when they are first needed; `room` is for features."""

    def __init__(self, catalogue: Catalogue, entry: Entry, room):
        self.catalogue, self.entry, self._room = catalogue, entry, room
        self.key = entry.folder.name  # as addresses of pages have it: not a path
        self.identity = features_identity(catalogue, entry)
        settings = entry.manifest["settings"]
        self.split, self.dataset, self.backbone = (settings.get(name, "") for name in ("split", "dataset", "backbone"))
        self.is_crops = entry.stage == STORES[0]
        self.layer = settings["layer"] if self.is_crops else settings.get("spp_layer", "")
        self.padding = int(settings.get("context_padding", 0))

    @property
    def figures(self) -> dict:
        """How many images and regions it has, as the manifest says."""
        return self.entry.manifest["figures"]

    @property
    def is_pool5(self) -> bool:
        """Whether its features are R-CNN's `pool5`, whose units have a place in the crop."""
        return self.is_crops and self.layer == POOL5

    @cached_property
    def store(self):
        """The feature store. Raises PipelineError when a part is missing or damaged."""
        from pipeline.explorer.kept_store import KeptStore

        return KeptStore(self._opened(), self._room)

    def _opened(self):
        from pipeline.feature_store import FeatureStore
        from pipeline.spp_net.pooled_store import PooledStore

        entry, catalogue = self.entry, self.catalogue
        shards = catalogue.shards(entry)
        expected = sum(name.startswith("shard ") for name in entry.manifest["inputs"])
        if len(shards) < expected:
            raise PipelineError(f"{entry.name}: {expected - len(shards)} of {expected} shards are not in the cache; run it again")
        parts = [entry] if FEATURES in entry.manifest["files"] else list(shards.values())
        files = [file_of(part, FEATURES) for part in parts]
        if not any(MAPS_INPUT in part.sources for part in parts):
            return FeatureStore(files)
        maps = [catalogue.get(part.sources[MAPS_INPUT]) for part in parts]
        if None in maps:
            raise PipelineError(f"{entry.name}: the maps that its features are pooled from are not in the cache; run it again")
        return PooledStore(files, [file_of(part, MAPS) for part in maps])

    @cached_property
    def index(self) -> Entry:
        """The artefact of the split's index. Raises PipelineError when it is not in the cache."""
        source = self.entry.sources.get("index")
        if not source or not (entry := self.catalogue.get(source)):
            raise PipelineError(f"{self.entry.name}: the index of its images is not in the cache; run it again")
        return entry

    @cached_property
    def records(self) -> dict:
        """The image records of the split, by id."""
        import json

        from pipeline.datasets.records import ImageTable, Split

        path, images = file_of(self.index, INDEX), ImageTable()
        if digest_file(path) != self.index.manifest["files"][INDEX]["sha256"]:
            raise PipelineError(f"{path}: changed since it was written; see `rcnn-cache verify`")
        split = Split.from_json(json.loads(path.read_text(), object_hook=images.take), images)
        return {record.id: record for record in split.images}

    @cached_property
    def root(self) -> Path:
        """The folder of the data set: in the cache, or the user's own."""
        dataset = self.index.manifest["settings"]["dataset"]
        if source := self.index.sources.get(dataset):
            if entry := self.catalogue.get(source):
                return entry.folder / dataset
            raise PipelineError(f"{name_of(source)}: the images of {dataset} are not in the cache; run it again")
        in_data_dir = Path(self.index.manifest["settings"].get("data_dir", "data")) / dataset
        return in_data_dir if in_data_dir.is_dir() and not Path(dataset).is_dir() else Path(dataset)

    @cached_property
    def annotation_files(self) -> dict[str, str]:
        """The annotation file of each image, below `root`, by the image's id; with one file for all images by the id ''."""
        from pipeline.datasets.formats import split_files

        fraction = float(self.index.manifest["settings"].get("test_fraction", 0))
        names = [name for name in split_files(self.root, self.split, fraction) if name.endswith((".xml", ".txt", ".json"))]
        by_id = {PurePosixPath(name).stem: name for name in names}
        return {"": next((name for name in names if name.endswith(".json")), ""), **by_id}

    def annotation_file(self, record) -> str:
        """Where the annotation of an image is, as a text for the user; empty if it is not found."""
        stem = PurePosixPath(record.path).stem
        name = self.annotation_files.get(record.id) or self.annotation_files.get(stem) or self.annotation_files[""]
        return str(self.root / name) if name else ""

    @cached_property
    def svms(self):
        """The SVMs trained on such features: those that the latest results use, or the newest; None if there are none."""
        from pipeline.files.npz import load_arrays
        from pipeline.rcnn.svm import LinearSVMs

        entry = self.svm_entry
        return LinearSVMs.from_arrays(load_arrays(file_of(entry, SVMS_FILE))) if entry else None

    @cached_property
    def svm_entry(self) -> Entry | None:
        def fits(entry: Entry) -> bool:
            trained_on = self.catalogue.get(entry.sources["features"]) if "features" in entry.sources else None
            return trained_on is not None and features_identity(self.catalogue, trained_on) == self.identity

        return self._newest(SVMS_STAGE, fits)

    @cached_property
    def detector_entry(self) -> Entry | None:
        """The exported R-CNN detector whose network made these features; None if there is none."""
        from pipeline.detector_folder import read_settings

        if not self.is_crops:
            return None
        networks = {source["key"] for source in self._networks()}

        def fits(entry: Entry) -> bool:
            if entry.sources.get("backbone", {}).get("key") not in networks:
                return False
            described = read_settings(entry.folder)
            settings = described["settings"]
            return described["chain"] == "rcnn" and (settings["layer"], settings["context_padding"]) == (self.layer, self.padding)

        return self._newest(DETECTORS, fits)

    def _networks(self):
        entry = self.entry
        while entry and NETWORK not in entry.sources:
            entry = self.catalogue.get(entry.sources[POOL5]) if POOL5 in entry.sources else None
        return [entry.sources[NETWORK]] if entry else []

    def _newest(self, stage: str, fits) -> Entry | None:
        entries = [entry for entry in self.catalogue.entries.values() if entry.stage == stage and fits(entry)]
        return max(entries, key=lambda entry: (entry.name in self.catalogue.needed, entry.started), default=None)


class Stores:
    """All feature stores of a cache by key, newest first. Their features may take `gigabytes` of memory."""

    def __init__(self, catalogue: Catalogue, gigabytes: float = GIGABYTES):
        from pipeline.explorer.kept_store import Room

        room = Room(gigabytes)
        entries = [entry for entry in catalogue.entries.values() if entry.stage in STORES and not entry.is_shard]
        entries.sort(key=lambda entry: (entry.name not in catalogue.needed, -entry.started))
        self.by_key = OrderedDict((entry.folder.name, Source(catalogue, entry, room)) for entry in entries)

    def comparable(self, source: Source) -> list[Source]:
        """The stores whose features can be compared with those of `source`, itself first."""
        peers = [peer for peer in self.by_key.values() if peer is not source and peer.identity == source.identity]
        return [source, *peers]
