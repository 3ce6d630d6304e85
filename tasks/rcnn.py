"""R-CNN: features of every region, one SVM and one box regressor a class, detections."""

import logging
from collections.abc import Iterator

from pipeline.errors import PipelineError
from tasks import parameters
from tasks.artefacts import Artefact, Workshop
from tasks.cache import CachedTask, ShardedTask
from tasks.data import IndexDataset
from tasks.networks import LAYERS, FineTune, NetworkTask, load_backbone, padding_setting, trained_network
from tasks.proposals import RegionProposals, load_proposals

logger = logging.getLogger("rcnn")

FEATURES = "features.h5"
SVMS = "svms.npz"
REGRESSORS = "regressors.npz"
CANDIDATES = "candidates.npz"
DETECTIONS = "detections.npz"
POOL5 = "pool5"


@parameters.inherits(RegionProposals, FineTune)
class ExtractFeatures(NetworkTask, ShardedTask):
    """One layer's features of every ground-truth box and proposal of a split, in HDF5.

    `pool5` is computed from the pixels; deeper layers from the cached `pool5`, as in the release.
    """

    outside = (*NetworkTask.outside, *ShardedTask.outside)

    layer = parameters.text(POOL5, "features", "layer", "pool5, fc6 or fc7, whatever the backbone has")
    context_padding = padding_setting()
    extract_batch = parameters.integer(32, "features", "batch_size", "crops a batch", minimum=1)

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def upstream(self) -> dict[str, CachedTask]:
        if self.layer not in LAYERS[self.backbone]:
            raise PipelineError(f"--layer {self.layer}: backbone {self.backbone} has {', '.join(LAYERS[self.backbone])}")
        network = {"network": trained_network(self)}
        if self.layer == POOL5:
            return {"proposals": self.clone(RegionProposals), **network}
        return {"pool5": self.clone(ExtractFeatures, layer=POOL5), **network}

    def record_key(self, split, record) -> dict:
        return {"record": {**record.to_json(), "path": None}, "classes": split.classes}

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.feature_store import FeatureWriter
        from pipeline.networks.compute import for_inference

        device = self.prepare()
        backbone = load_backbone(self.inputs()["network"], self.backbone)
        backbone.check_layer(self.layer)
        backbone = for_inference(backbone, device, self.arithmetic)
        attributes = {
            "backbone": self.backbone, "layer": self.layer, "crop_size": backbone.crop_size, "precision": self.arithmetic,
        }
        writer = FeatureWriter(workshop.files / FEATURES, backbone.sizes[self.layer], split.classes, attributes)
        fill = self._fill_from_pixels if self.layer == POOL5 else self._fill_from_pool5
        rows = fill(writer, backbone, split, device)
        writer.close()
        return {"images": len(split.images), "regions": rows}

    def _fill_from_pixels(self, writer, backbone, split, device) -> int:
        from pipeline.images import ImageCache
        from pipeline.rcnn.features import join_regions, region_features, write_features

        proposals = load_proposals(self.inputs()["proposals"])
        regions = [join_regions(image, boxes) for image, boxes in zip(split.images, proposals, strict=True)]
        images = ImageCache(self.index_task().root, 0)
        settings = self.arithmetic, self.context_padding, self.extract_batch, device
        features = region_features(regions, images.read, backbone, POOL5, *settings)
        return write_features(regions, self.progress()(features, len(regions)), writer, len(split.classes))

    def _fill_from_pool5(self, writer, backbone, split, device) -> int:
        from pipeline.rcnn.features import deeper_features

        rows = 0
        store = open_features(self.inputs()["pool5"])
        found = deeper_features(store, backbone, self.layer, device)
        for image, values in zip(split.images, self.progress()(found, len(split.images)), strict=True):
            writer.append(image.id, values)
            rows += len(values.boxes)
        return rows


@parameters.inherits(ExtractFeatures, without=("split",))
class TrainSVMs(CachedTask):
    """One linear SVM a class, with hard negative mining over the feature store."""

    svm_c = parameters.number(1e-3, "svm", "c", "cost C of liblinear", minimum=1e-12)
    svm_positive_weight = parameters.number(
        2.0, "svm", "positive_weight", "cost of a positive over that of a negative", minimum=1e-12
    )
    svm_bias = parameters.number(10.0, "svm", "bias", "value of the constant feature that carries the bias", minimum=1e-12)
    svm_negative_overlap = parameters.number(0.3, "svm", "negative_overlap", "negatives: IoU < this", minimum=0, maximum=1)
    svm_retrain_limit = parameters.integer(2000, "svm", "retrain_limit", "train again after more new negatives than this")
    svm_tolerance = parameters.number(1e-4, "svm", "tolerance", "stopping tolerance of liblinear", minimum=1e-12)
    svm_gigabytes = parameters.number(1.0, "svm", "gigabytes", "memory for cached examples", minimum=0.01)
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {"features": self.clone(ExtractFeatures, split=self.train_split)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.rcnn.svm import SvmSettings, train_svms
        from pipeline.seeding import make_generator

        store = open_features(self.inputs()["features"])
        settings = SvmSettings(
            cost=self.svm_c, positive_weight=self.svm_positive_weight, bias_multiplier=self.svm_bias,
            negative_overlap=self.svm_negative_overlap, retrain_limit=self.svm_retrain_limit, tolerance=self.svm_tolerance,
            cache_gigabytes=self.svm_gigabytes,
        )
        svms = train_svms(store, scale_of(store, self.seed), make_generator(self.seed, "svm"), settings, self.progress())
        save_arrays(workshop, SVMS, svms)
        if svms.num_crowded_out.any():
            logger.warning("%s: no room for %d negatives; raise --svm-gigabytes", self.label, svms.num_crowded_out.sum())
        return {
            "positives": int(svms.num_positives.sum()), "negatives": int(svms.num_negatives.sum()),
            "crowded_out": int(svms.num_crowded_out.sum()), "trainings": len(svms.events),
        }


@parameters.inherits(ExtractFeatures, without=("split", "layer"))
class TrainBoxRegressors(CachedTask):
    """One ridge regression a class from `pool5` features to box corrections."""

    box_ridge = parameters.number(1000.0, "boxes", "ridge", "lambda of the ridge regression", minimum=1e-12)
    box_min_overlap = parameters.number(0.6, "boxes", "min_overlap", "examples have IoU above this", minimum=0, maximum=1)
    box_gigabytes = parameters.number(1.5, "boxes", "gigabytes", "memory for the regression's matrices", minimum=0.01)
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {"features": self.clone(ExtractFeatures, split=self.train_split, layer=POOL5)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.rcnn.box_regression import RegressorSettings, train_box_regressors
        from pipeline.seeding import make_generator

        store = open_features(self.inputs()["features"])
        settings = RegressorSettings(self.box_min_overlap, self.box_ridge, self.box_gigabytes)
        generator = make_generator(self.seed, "box regression")
        regressors = train_box_regressors(store, scale_of(store, self.seed), generator, settings, self.progress())
        save_arrays(workshop, REGRESSORS, regressors)
        return {"examples": int(regressors.num_examples.sum()), "left_out": int(regressors.num_left_out.sum())}


@parameters.inherits(TrainSVMs, TrainBoxRegressors, ExtractFeatures, without=("split",))
class DetectRCNN(ShardedTask):
    """Detections of the test split: scores, moved boxes, suppression, and the split's score thresholds.

    A shard holds each image's best candidates; the whole stage the detections, also as VOC and COCO result files.
    """

    test_split = parameters.text("test", "dataset", "test_split", "split to detect in")
    box_regression = parameters.switch(True, "boxes", "apply", "whether the box regressors are trained and applied")
    nms_threshold = parameters.number(0.3, "detect", "nms_threshold", "IoU above which the worse box goes", minimum=0, maximum=1)
    max_per_image = parameters.integer(100, "detect", "max_per_image", "candidates of a class in an image", minimum=1)

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset, split=self.test_split)

    def upstream(self) -> dict[str, CachedTask]:
        tasks = {"svms": self.clone(TrainSVMs), "features": self.clone(ExtractFeatures, split=self.test_split)}
        if self.box_regression:
            tasks["regressors"] = self.clone(TrainBoxRegressors)
            if self.layer != POOL5:
                tasks["pool5"] = self.clone(ExtractFeatures, split=self.test_split, layer=POOL5)
        return tasks

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "width": record.width, "height": record.height}

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.detections import save_candidates
        from pipeline.rcnn.detect import detect_in_store

        stores = [open_features(self.inputs()[name]) for name in ("features", "pool5") if name in self.inputs()]
        svms, regressors = load_models(self.inputs())
        limits = self.max_per_image, self.nms_threshold
        found = detect_in_store(stores[0], stores[-1], split.images, svms, regressors, *limits)
        candidates = list(self.progress()(found, len(split.images)))
        save_candidates(workshop.files / CANDIDATES, candidates)
        return {"images": len(candidates), "candidates": sum(len(image.score) for image in candidates)}

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        from pipeline.detections import select_detections, write_coco, write_voc

        split = self.load_split()
        detections = select_detections(StoredCandidates(shards), [image.id for image in split.images], split.classes)
        detections.save(workshop.files / DETECTIONS)
        (workshop.files / "voc").mkdir()
        write_voc(workshop.files / "voc", split.name, detections)
        write_coco(workshop.files / "coco.json", detections)
        return {"detections": len(detections)}


class StoredCandidates:
    """The candidates of every image of a split, read from the shards' files each time that they are gone through."""

    def __init__(self, shards: list[Artefact]):
        self.paths = [shard.path(CANDIDATES) for shard in shards]

    def __iter__(self) -> Iterator:
        from pipeline.detections import load_candidates

        return (image for path in self.paths for image in load_candidates(path))


def scale_of(store, seed: int) -> float:
    """The factor that brings a store's features to the mean norm that the SVMs and regressors expect."""
    from pipeline.rcnn.scaling import feature_scale
    from pipeline.seeding import make_generator

    return feature_scale(store, make_generator(seed, "feature scale"))


def open_features(artefact: Artefact):
    """The feature store in the artefact of one shard of `ExtractFeatures`, or of the whole stage."""
    from pipeline.feature_store import FeatureStore

    parts = [artefact] if FEATURES in artefact.manifest["files"] else artefact.shards()
    return FeatureStore([part.path(FEATURES) for part in parts])


def save_arrays(workshop: Workshop, name: str, model) -> None:
    import numpy as np

    np.savez(workshop.files / name, **model.to_arrays())


def load_models(inputs: dict[str, Artefact]) -> tuple:
    """The SVMs and the box regressors (None without) among a task's inputs."""
    from pipeline.rcnn.box_regression import BoxRegressors
    from pipeline.rcnn.svm import LinearSVMs

    regressors = inputs.get("regressors")
    svms = LinearSVMs.from_arrays(inputs["svms"].arrays(SVMS))
    return svms, regressors and BoxRegressors.from_arrays(regressors.arrays(REGRESSORS))
