"""R-CNN's linear models: one SVM and one box regressor per class on the features of regions, and detection with them.

SPP-net has the same models on the features of its pyramid (`--region-features pyramid`).
"""

import logging

from pipeline.errors import PipelineError
from pipeline.rcnn.svm_settings import SOLVERS, WARM_START, SvmSettings
from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.detection import DetectSplit
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.features.crops import ExtractFeatures
from tasks.features.pyramid import SpatialPyramidFeatures
from tasks.features.stores import CROPS, POOL5, PYRAMID, open_features
from tasks.file_checks import read_arrays, read_tensors
from tasks.networks.base import BACKBONE, CLASSIFIER
from tasks.networks.defaults import defaults_of
from tasks.networks.finetune import FineTune
from tasks.networks.finetune_pyramid import layer_of
from tasks.stage import Stage

logger = logging.getLogger("stages")

SVMS, SOFTMAX_FILE = "svms.npz", "softmax.npz"
SVM, SOFTMAX = "svm", "softmax"  # what scores R-CNN's regions
REGRESSORS = "regressors.npz"


# Ridge and least IoU of the box regressors. R-CNN's: `rcnn_train_bbox_regressor.m`. SPP-net's: lambda and min_overlap in
# experiments/spp_exp_bbox_reg_train_and_test_voc.m of ShaoqingRen/SPP_net.
BOX_SETTINGS = {CROPS: (1000.0, 0.6), PYRAMID: (4000.0, 0.5)}


def features_of(task: CachedTask, split: str) -> ExtractFeatures | SpatialPyramidFeatures:
    """The stage that makes the region features of the SVMs of `task`."""
    return task.clone(SpatialPyramidFeatures if task.region_features == PYRAMID else ExtractFeatures, split=split)


def pool5_of(task: CachedTask, split: str) -> ExtractFeatures | SpatialPyramidFeatures:
    """The stage that makes the region features of the box regressors of `task`."""
    if task.region_features == PYRAMID:
        return task.clone(SpatialPyramidFeatures, split=split, spp_layer=POOL5)
    return task.clone(ExtractFeatures, split=split, layer=POOL5)


class LinearModels(Stage):
    """A stage that trains on the features of regions, of R-CNN or of SPP-net."""

    resolved = ("region_features",)  # the key of the features' stage says which

    region_features = parameters.choice(
        CROPS, (CROPS, PYRAMID), "features", "region_features", "features of the linear models: R-CNN's crops, SPP-net's pyramid"
    )


@parameters.inherits(ExtractFeatures, SpatialPyramidFeatures, without=("split",))
class TrainSVMs(LinearModels):
    """Trains one linear SVM per class, with hard negative mining over the feature store."""

    version = 2
    resolved = (*LinearModels.resolved, "svm_solver")

    memory_settings = ("svm_gigabytes",)

    svm_c = parameters.number(1e-3, "svm", "c", "cost C of the hinge losses", minimum=1e-12)
    svm_positive_weight = parameters.number(
        2.0, "svm", "positive_weight", "cost of a positive divided by that of a negative", minimum=1e-12
    )
    svm_bias = parameters.number(10.0, "svm", "bias", "value of the constant feature for the bias", minimum=1e-12)
    svm_negative_overlap = parameters.number(
        0.3, "svm", "negative_overlap", "IoU with the class's objects below which a region is a negative", minimum=0, maximum=1
    )
    svm_retrain_limit = parameters.integer(2000, "svm", "retrain_limit", "more new negatives than this start another training")
    svm_tolerance = parameters.number(
        1e-4, "svm", "tolerance", "the solver stops when the range of the slopes is smaller", minimum=1e-12
    )
    svm_solver = parameters.choice(
        WARM_START, SOLVERS, "svm", "solver", "warm-start: ours, starts from the class's last SVM; liblinear: scikit-learn's"
    )
    svm_gigabytes = parameters.number(2.0, "svm", "gigabytes", "memory for cached examples", minimum=0.01)
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {"features": features_of(self, self.train_split)}

    def resolve(self) -> dict:
        # The default stays out of keys, so that older keys stay valid.
        return {} if self.svm_solver == WARM_START else {"svm_solver": self.svm_solver}

    @property
    def svm_settings(self) -> SvmSettings:
        return SvmSettings(
            cost=self.svm_c, positive_weight=self.svm_positive_weight, bias_multiplier=self.svm_bias,
            negative_overlap=self.svm_negative_overlap, retrain_limit=self.svm_retrain_limit, tolerance=self.svm_tolerance,
            cache_gigabytes=self.svm_gigabytes, solver=self.svm_solver,
        )

    def build(self, workshop: Workshop) -> dict:
        from pipeline.rcnn.svm import train_svms
        from pipeline.seeding import make_generator

        store = open_features(self.inputs()["features"])
        generator = make_generator(self.seed, "svm")
        svms = train_svms(store, scale_of(store, self.seed), generator, self.svm_settings, self.progress())
        save_arrays(workshop, SVMS, svms)
        if svms.num_crowded_out.any():
            logger.warning(
                "%s: --svm-gigabytes %g left no room for %d negatives, those with the lowest scores; the SVMs are trained "
                "without them. Raise it to use them", self.label, self.svm_gigabytes, svms.num_crowded_out.sum(),
            )
        return {
            "positives": int(svms.num_positives.sum()), "negatives": int(svms.num_negatives.sum()),
            "crowded_out": int(svms.num_crowded_out.sum()), "trainings": len(svms.events),
        }


@parameters.inherits(ExtractFeatures, SpatialPyramidFeatures, without=("split", "layer", "spp_layer"))
class TrainBoxRegressors(LinearModels):
    """Trains one ridge regression per class, from `pool5` features or those of the pyramid to box corrections."""

    memory_settings = ("box_gigabytes",)

    box_ridge = parameters.number(
        0, "boxes", "ridge", "lambda of the ridge regression; 0: 1000 in R-CNN, 4000 in SPP-net", minimum=0
    )
    box_min_overlap = parameters.number(
        0, "boxes", "min_overlap", "IoU with an object above which a region is an example; 0: 0.6 in R-CNN, 0.5 in SPP-net",
        minimum=0, maximum=1,
    )
    box_gigabytes = parameters.number(1.5, "boxes", "gigabytes", "memory for the regression's matrices", minimum=0.01)
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {"features": pool5_of(self, self.train_split)}

    @property
    def chosen(self) -> tuple[float, float]:
        """The ridge, and the IoU above which a region is an example."""
        ridge, overlap = BOX_SETTINGS[self.region_features]
        return self.box_ridge or ridge, self.box_min_overlap or overlap

    def key_inputs(self) -> dict:
        # As if the chosen values had been given, so that older keys stay valid.
        inputs, (ridge, overlap) = super().key_inputs(), self.chosen
        return {**inputs, "parameters": {**inputs["parameters"], "box_ridge": ridge, "box_min_overlap": overlap}}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.rcnn.box_regression import RegressorSettings, train_box_regressors
        from pipeline.seeding import make_generator

        store = open_features(self.inputs()["features"])
        ridge, overlap = self.chosen
        settings = RegressorSettings(overlap, ridge, self.box_gigabytes)
        generator = make_generator(self.seed, "box regression")
        regressors = train_box_regressors(store, scale_of(store, self.seed), generator, settings, self.progress())
        save_arrays(workshop, REGRESSORS, regressors)
        if left_out := int(regressors.num_left_out.sum()):
            logger.warning(
                "%s: --box-gigabytes %g holds %d of %d examples, drawn at random; the regressors are trained without the other "
                "%d. Raise it to use them", self.label, self.box_gigabytes, regressors.num_examples.sum(),
                regressors.num_examples.sum() + left_out, left_out,
            )
        return {"examples": int(regressors.num_examples.sum()), "left_out": int(regressors.num_left_out.sum())}


@parameters.inherits(FineTune)
class SoftmaxClassifier(Stage):
    """Takes the classifier out of the fine-tuned network, so that its softmax scores regions in place of SVMs (appendix B)."""

    computes = False

    def requires(self) -> dict[str, CachedTask]:
        return {"train": self.clone(IndexDataset, split=self.train_split), "network": self.clone(FineTune)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.rcnn.softmax import SoftmaxScores

        classes = load_split(self.inputs()["train"]).classes
        layer = {name: tensor.numpy() for name, tensor in read_tensors(self.inputs()["network"], CLASSIFIER).items()}
        save_arrays(workshop, SOFTMAX_FILE, SoftmaxScores.of_classifier(classes, layer["weight"], layer["bias"]))
        return {"classes": len(classes)}


@parameters.inherits(TrainSVMs, TrainBoxRegressors, ExtractFeatures, SpatialPyramidFeatures, without=("split",))
class DetectRCNN(DetectSplit):
    """Detections of the test split by the SVMs, or by the network's softmax, and box regressors."""

    resolved = (*DetectSplit.resolved, "region_classifier")  # the stage of the SVMs or of the softmax is in the key

    region_classifier = parameters.choice(
        SVM, (SVM, SOFTMAX), "svm", "region_classifier", "what scores R-CNN's regions: SVMs, or the fine-tuned network's softmax"
    )
    box_regression = parameters.switch(True, "boxes", "apply", "whether the box regressors are trained and applied")

    def upstream(self) -> dict[str, CachedTask]:
        tasks = {**self.training_tasks(), "features": features_of(self, self.test_split)}
        layer = layer_of(self) if self.region_features == PYRAMID else self.layer
        if self.box_regression and layer != POOL5:
            tasks["pool5"] = pool5_of(self, self.test_split)
        return tasks

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "width": record.width, "height": record.height}

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.rcnn.detect import detect_in_store

        stores = [open_features(self.inputs()[name]) for name in ("features", "pool5") if name in self.inputs()]
        by_image = detect_in_store(stores[0], stores[-1], split.images, load_models(self.inputs()), self.limits)
        return self.save_candidates(workshop, self.progress()(by_image, len(split.images)))

    def training_tasks(self) -> dict[str, CachedTask]:
        tasks = {"svms": self._scores()}
        return {**tasks, "regressors": self.clone(TrainBoxRegressors)} if self.box_regression else tasks

    def _scores(self) -> CachedTask:
        """The stage that makes what scores the regions. SPP-net always has SVMs."""
        if self.region_classifier == SVM or self.region_features == PYRAMID:
            return self.clone(TrainSVMs)
        if not self.finetune_iterations:
            raise PipelineError("--region-classifier softmax: only a fine-tuned network has one; raise --finetune-iterations")
        if self.layer != (last := defaults_of(self.backbone).layers[-1]):
            raise PipelineError(f"--region-classifier softmax: reads the last layer; found --layer {self.layer}, expected {last}")
        return self.clone(SoftmaxClassifier)

    @property
    def chain(self) -> str:
        return "rcnn" if self.region_features == CROPS else "spp-net"

    def detector_parts(self) -> dict[str, tuple[CachedTask, str]]:
        files = {SoftmaxClassifier: SOFTMAX_FILE, TrainSVMs: SVMS, TrainBoxRegressors: REGRESSORS}
        parts = {name: (task, files[type(task)]) for name, task in self.training_tasks().items()}
        return {**parts, "backbone": (features_of(self, self.test_split).network_task(), BACKBONE)}

    def detector_settings(self) -> dict:
        return {**super().detector_settings(), **features_of(self, self.test_split).detector_settings()}


def scale_of(store, seed: int) -> float:
    """The factor that scales a store's features to the mean norm that the SVMs and regressors expect."""
    from pipeline.rcnn.scaling import feature_scale
    from pipeline.seeding import make_generator

    return feature_scale(store, make_generator(seed, "feature scale"))


def save_arrays(workshop: Workshop, name: str, model) -> None:
    from pipeline.files.writing import write_arrays

    write_arrays(workshop.files / name, model.to_arrays())


def load_models(inputs: dict[str, Artefact]):
    """The SVMs (or the softmax) and, if there are any (else None), the box regressors among a task's inputs."""
    from pipeline.rcnn.box_regression import BoxRegressors
    from pipeline.rcnn.detect import LinearModels
    from pipeline.rcnn.softmax import region_scores

    regressors = inputs.get("regressors")
    svms = region_scores(read_arrays(inputs["svms"], SOFTMAX_FILE if inputs["svms"].stage == SoftmaxClassifier.stage else SVMS))
    return LinearModels(svms, regressors and BoxRegressors.from_arrays(read_arrays(regressors, REGRESSORS)))
