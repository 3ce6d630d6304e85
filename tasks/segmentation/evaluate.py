"""Semantic segmentation: the figures of one method on the test split, and the time that an image takes."""

import logging
from collections.abc import Callable

from tasks.data.index_masks import IndexMasks
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, show_table
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.chapter import ChainEvaluation
from tasks.evaluation.evaluate import EVALUATION, Evaluate, shared_figures
from tasks.evaluation.timing import TimePrediction
from tasks.file_checks import read_arrays
from tasks.segmentation.base import CHAINS, FIGURES
from tasks.segmentation.segment import SegmentImages

logger = logging.getLogger("stages")

HISTOGRAMS = "histograms.npz"


@parameters.inherits(SegmentImages)
class EvaluateSegmentation(ChainEvaluation):
    """Pixel accuracy, mean accuracy, mean IU and frequency-weighted IU of one method, with bootstrap intervals over the images.

    The label maps are compared at the images' own size. The histograms of all images are kept, so that methods can be compared
    in pairs.
    """

    title = "Semantic segmentation"

    bootstrap_resamples = Evaluate.bootstrap_resamples
    seed = parameters.seed()

    @classmethod
    def chains(cls) -> dict[str, dict]:
        return {chain: {"segment_method": chain} for chain in CHAINS}

    @property
    def chain(self) -> str:
        return self.segment_method

    def splits(self) -> dict[str, IndexMasks]:
        return {name: self.clone(IndexMasks, split=getattr(self, f"{name}_split")) for name in ("train", "test")}

    def requires(self) -> dict[str, CachedTask]:
        return {**self.splits(), "maps": self.maps()}

    def maps(self) -> SegmentImages:
        return self.clone(SegmentImages)

    def build(self, workshop: Workshop) -> dict:
        from pipeline.files.writing import write_arrays
        from pipeline.seeding import make_generator
        from pipeline.segmentation.evaluation import evaluate_segmentation, left_out, segmentation_table
        from pipeline.segmentation.label_maps import label_names

        test = load_split(self.inputs()["test"])
        histograms, without = self._histograms(test)
        result = evaluate_segmentation(
            histograms, label_names(test).names, without_mask=without, resamples=self.bootstrap_resamples,
            generator=make_generator(self.seed, "bootstrap"),
        )
        for line in left_out(result):
            logger.warning("%s: %s", self.label, line)
        workshop.write(EVALUATION, canonical_json(result) + "\n")
        workshop.write(TABLE, segmentation_table(result))
        write_arrays(workshop.files / HISTOGRAMS, {"histograms": histograms})
        return {**shared_figures(self, test), **{name: result[name] for name in FIGURES}}

    def _histograms(self, test):
        """The confusion of each image that has a mask, int64 [N x K x K], and the number of those without."""
        import numpy as np

        from pipeline.errors import PipelineError
        from pipeline.segmentation.label_maps import LabelMaps, label_names, usable
        from pipeline.segmentation.scores import confusion

        numbers, names = usable(test), label_names(test)
        if not numbers:
            raise PipelineError(f"split '{test.name}': none of its images has a class mask; add masks to SegmentationClass")
        part = test.select(numbers)
        truths, count = LabelMaps(self.splits()["test"].mask_root, names), len(names.names)
        histograms = [confusion(truths.read(record), labels, count)
                      for record, labels in zip(part.images, self.maps().label_maps(part), strict=True)]
        return np.stack(histograms), len(test.images) - len(numbers)

    def histograms(self):
        """The confusion of each test image that has a mask, int64 [N x K x K]."""
        return read_arrays(self.artefact, HISTOGRAMS)["histograms"]

    def show(self) -> None:
        show_table(self.artefact, EVALUATION, TABLE)

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self.maps().network()}

    def timing(self) -> CachedTask:
        return self.clone(TimeSegmentation)

    def summary(self, evaluation: dict) -> dict:
        intervals = {name: evaluation["interval_95"][name] for name in FIGURES}
        classes = {name: values["iu"] for name, values in evaluation["classes"].items()}
        return {**{name: evaluation[name] for name in FIGURES}, "interval_95": intervals, "class_iu": classes,
                "one_class_mean_iu": evaluation["one_class"]["mean_iu"]}

    def section(self, album, number: int) -> dict:
        from tasks.segmentation.report import segmentation_section

        return segmentation_section({self.chain: self}, album=album, number=number)


@parameters.inherits(SegmentImages)
class TimeSegmentation(TimePrediction):
    """Seconds per image from pixels to the label map: one image at a time, after a warm-up."""

    def test_index(self) -> IndexMasks:
        return self.clone(IndexMasks, split=self.test_split)

    def requires(self) -> dict[str, CachedTask]:
        maps = self.clone(SegmentImages)
        return {"test": self.test_index(), "maps": maps, "network": maps.network()}

    def predictor(self, split) -> Callable:
        segmenter = self.clone(SegmentImages).load_segmenter()
        return lambda number, record, pixels: segmenter.segment(pixels)
