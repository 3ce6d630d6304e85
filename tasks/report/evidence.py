"""Stages that search feature stores for the report: the regions that excite units, and the regions that SVMs get most wrong."""

from tasks.detection import DetectSplit
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.features.crops import POOL5, ExtractFeatures
from tasks.features.stores import CROPS, open_features
from tasks.rcnn import TrainSVMs, load_models
from tasks.report.sections import NEGATIVES, UNITS
from tasks.stage import Stage


@parameters.inherits(ExtractFeatures, without=("split", "layer"))
class TopRegions(Stage):
    """What units of `pool5` look for: the proposals of the test split with the largest values, for units that fit a class."""

    test_split = DetectSplit.test_split
    report_units = parameters.integer(8, "report", "units", "units of pool5 shown", minimum=1)
    report_unit_regions = parameters.integer(10, "report", "unit_regions", "regions shown per unit", minimum=1)

    def requires(self) -> dict[str, CachedTask]:
        return {"features": self.clone(ExtractFeatures, split=self.test_split, layer=POOL5)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.report.units import choose_units, top_regions, unit_record

        store = open_features(self.inputs()["features"])
        top = top_regions(store, self.report_unit_regions, self.progress())
        records = [unit_record(top, store, *chosen) for chosen in choose_units(top, self.report_units)]
        workshop.write(UNITS, canonical_json(records) + "\n")
        return {"units": len(records)}


@parameters.inherits(TrainSVMs, without=("region_features",))
class HardNegatives(Stage):
    """For each class, the training regions with the highest SVM scores among those that overlap no object of the class enough."""

    report_negatives = parameters.integer(8, "report", "negatives", "hard negatives shown per class", minimum=1)

    def requires(self) -> dict[str, CachedTask]:
        features = self.clone(ExtractFeatures, split=self.train_split)
        return {"features": features, "svms": self.clone(TrainSVMs, region_features=CROPS)}

    def build(self, workshop: Workshop) -> dict:
        from dataclasses import asdict

        from pipeline.report.negatives import hardest_negatives

        store = open_features(self.inputs()["features"])
        svms, _ = load_models(self.inputs())
        by_class = hardest_negatives(store, svms, self.svm_negative_overlap, self.report_negatives, self.progress())
        records = {name: [asdict(negative) for negative in negatives] for name, negatives in zip(store.classes, by_class)}
        workshop.write(NEGATIVES, canonical_json(records) + "\n")
        return {"negatives": sum(map(len, by_class))}
