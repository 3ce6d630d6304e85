"""FullPipeline: runs all chains on one data set and makes one table and one report."""

import logging

from tasks.data.first import IndexesFirst
from tasks.data.index import IndexDataset
from tasks.engine import parameters
from tasks.engine.lineage import with_inputs
from tasks.engine.printing import TABLE
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.evaluate import Evaluate
from tasks.evaluation.results import REPORT, SUMMARY, show_results
from tasks.evaluation.summary import Summarise
from tasks.faster_rcnn.detect import ALTERNATING
from tasks.proposals.quality import SEARCH, ProposalQuality
from tasks.proposals.regions import method_name
from tasks.report.evidence import HardNegatives, TopRegions
from tasks.report.sections import sections
from tasks.segmentation.of_run import indexes_of, splits_of
from tasks.stage import Stage

logger = logging.getLogger("stages")

RPN3 = "rpn3"


@parameters.inherits(Summarise, TopRegions, HardNegatives)
class FullPipeline(IndexesFirst):
    """The table of all chains, and the report about them."""

    version = 8

    report = parameters.switch(
        True, "report", "make", "whether FullPipeline makes the HTML report; the table is always made", significant=False
    )
    report_images = parameters.integer(12, "report", "images", "test images shown per chain", minimum=1)
    report_image = parameters.text(
        "", "report", "image", "test image for the steps of R-CNN in the report; empty: an image with good detections"
    )

    def splits(self) -> dict[str, IndexDataset]:
        return splits_of(self)

    def deps(self) -> list[CachedTask]:
        return indexes_of(self)

    def resolve(self) -> dict:
        return {"method": method_name(self)}

    def requires(self) -> dict[str, CachedTask]:
        required: dict[str, CachedTask] = {"summary": self.summary(), **self.splits()}
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
        return self.clone(ProposalQuality, source=source, split=self.test_split)

    def detection(self, chain: str):
        return self.clone(Evaluate, chain=chain).detection()

    def run(self):
        if self.classes and not self.summary().complete():
            self.warn_of_shared_images()
        yield from super().run()

    def build(self, workshop: Workshop) -> dict:
        from pipeline.files.writing import copy_file
        from pipeline.report.page import render

        summary = self.inputs()["summary"]
        for name in (SUMMARY, TABLE):
            copy_file(summary.path(name), workshop.files / name)
        try:
            page = render(sections(self, with_inputs(list(self.inputs().values()))))
        except Exception:
            logger.error("%s: the report failed; the table is in %s. `--report false` makes only the table",
                         self.label, summary.path(TABLE))
            raise
        workshop.write(REPORT, page)
        return {"megabytes": round(len(page) / 1e6, 2)}

    def shown_stage(self) -> Stage:
        return self if self.report else self.summary()

    def show(self) -> None:
        show_results(self.artefact)
