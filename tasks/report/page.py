"""The report: one HTML page of all results, and the stages that go through feature stores for it."""

import logging

from tasks.data.index import IndexDataset
from tasks.detection import DetectSplit
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.lineage import with_inputs
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.evaluate import MeasurePrecision
from tasks.evaluation.summary import SUMMARY, TABLE, Summarise
from tasks.faster_rcnn.four_steps import ALTERNATING
from tasks.features.stores import CROPS, POOL5, ExtractFeatures, open_features
from tasks.proposals.quality import SEARCH, MeasureProposals
from tasks.proposals.regions import method_name
from tasks.rcnn import TrainSVMs, load_models
from tasks.report.sections import NEGATIVES, UNITS, sections
from tasks.stage import Stage

logger = logging.getLogger("stages")

REPORT = "report.html"
RPN3 = "rpn3"


@parameters.inherits(ExtractFeatures, without=("split", "layer"))
class TopRegions(Stage):
    """What units of `pool5` look for: the proposals of the test split that excite each most, of units that stand for a class."""

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
    """The training regions off a class's objects that its SVM scores highest."""

    report_negatives = parameters.integer(8, "report", "negatives", "hard negatives shown per class", minimum=1)

    def requires(self) -> dict[str, CachedTask]:
        features = self.clone(ExtractFeatures, split=self.train_split)
        return {"features": features, "svms": self.clone(TrainSVMs, region_features=CROPS)}

    def build(self, workshop: Workshop) -> dict:
        from dataclasses import asdict

        from pipeline.report.negatives import hardest_negatives

        store = open_features(self.inputs()["features"])
        svms, _ = load_models(self.inputs())
        found = hardest_negatives(store, svms, self.svm_negative_overlap, self.report_negatives, self.progress())
        records = {name: [asdict(negative) for negative in negatives] for name, negatives in zip(store.classes, found)}
        workshop.write(NEGATIVES, canonical_json(records) + "\n")
        return {"negatives": sum(map(len, found))}


@parameters.inherits(Summarise, TopRegions, HardNegatives)
class Report(Stage):
    """The table of all chains, and the page that shows what is behind it."""

    stage = "FullPipeline"
    version = 2

    report = parameters.switch(
        True, "report", "make", "whether FullPipeline makes the HTML report; the table is always made", significant=False
    )
    report_images = parameters.integer(12, "report", "images", "test images shown per chain", minimum=1)
    report_image = parameters.text(
        "", "report", "image", "test image for the way through R-CNN; empty: an image with good detections"
    )

    def resolve(self) -> dict:
        return {"method": method_name(self)}

    def requires(self) -> dict[str, CachedTask]:
        required: dict[str, CachedTask] = {"summary": self.summary()}
        for name, split in ("train", self.train_split), ("test", self.test_split):
            required[name] = self.clone(IndexDataset, split=split)
        if "proposals" in self.summary().requires():
            required["quality search"] = self._quality(SEARCH)
        if "faster-rcnn" in self.chains and self.faster_training == ALTERNATING:
            required["quality rpn"] = self._quality(RPN3)
        if "rcnn" in self.chains:
            required |= {"units": self.clone(TopRegions), "negatives": self.clone(HardNegatives)}
        return required

    def summary(self) -> Summarise:
        return self.clone(Summarise)

    def _quality(self, source: str) -> CachedTask:
        return self.clone(MeasureProposals, source=source, split=self.test_split)

    def detection(self, chain: str):
        return self.clone(MeasurePrecision, chain=chain).detection()

    def build(self, workshop: Workshop) -> dict:
        from pipeline.files.writing import copy_file
        from pipeline.report.page import render

        summary = self.inputs()["summary"]
        for name in (SUMMARY, TABLE):
            copy_file(summary.path(name), workshop.files / name)
        try:
            page = render(sections(self, with_inputs(list(self.inputs().values()))))
        except Exception:
            logger.error("%s: no report; the table is %s, `--report false` leaves it at that", self.label, summary.path(TABLE))
            raise
        workshop.write(REPORT, page)
        return {"megabytes": round(len(page) / 1e6, 2)}
