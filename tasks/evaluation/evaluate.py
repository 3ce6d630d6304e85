"""Average precision of a chain's detections, and the time that detection takes."""

import logging
from collections.abc import Callable

from pipeline.later_detectors.names import ARCHITECTURES, is_later
from pipeline.text import printable
from tasks.data.first import IndexesFirst
from tasks.data.index import IndexDataset
from tasks.data.instances import drawn_indexes, drawn_masks
from tasks.data.splits import load_split
from tasks.detection import DETECTIONS, DetectSplit
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, show_table, tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.timing import TimePrediction
from tasks.fast_rcnn import DetectFastRCNN
from tasks.faster_rcnn.detect import DetectFasterRCNN
from tasks.features.stores import CROPS, PYRAMID
from tasks.later_detectors.detect import DetectWithNetwork
from tasks.later_detectors.evaluate import mask_text, masks_of
from tasks.proposals.regions import RegionProposals, load_proposals
from tasks.r_fcn import DetectRFCN
from tasks.rcnn import DetectRCNN
from tasks.sliding_window.detect import DetectSlidingWindow
from tasks.stage import Stage

logger = logging.getLogger("stages")

# The stage that makes each chain's detections, and the settings that distinguish chains with the same stage.
DETECT: dict[str, tuple[type[DetectSplit], dict]] = {
    "rcnn": (DetectRCNN, {"region_features": CROPS}), "spp-net": (DetectRCNN, {"region_features": PYRAMID}),
    "fast-rcnn": (DetectFastRCNN, {}), "faster-rcnn": (DetectFasterRCNN, {}),
    "r-fcn": (DetectRFCN, {}), "sliding-window": (DetectSlidingWindow, {}),
    **{chain: (DetectWithNetwork, {"architecture": chain}) for chain in ARCHITECTURES},
}
CHAINS = tuple(DETECT)
LOCALISATION = "localisation"  # a chain with an evaluation of its own, which can be exported as a detector
DEFAULT_CHAINS = ("rcnn", "spp-net", "fast-rcnn", "faster-rcnn")
STAGES = (DetectRCNN, DetectFastRCNN, DetectFasterRCNN, DetectRFCN, DetectSlidingWindow, DetectWithNetwork)
OF_ONE_CHAIN = ("region_features", "architecture")  # settings that distinguish chains with the same stage
EVALUATION, ERRORS, CONFUSION = "evaluation.json", "errors.json", "confusion.txt"
SHARED = "also_in_training"  # the figure about test images that are also training images
METRIC = "07"  # VOC 2007's eleven-point AP, which the papers report


class ChainName(parameters.Choice):
    """One of `CHAINS`, or one of torchvision's models."""

    def normalize(self, value) -> str:
        return value if is_later(value) else super().normalize(value)


def chain_setting(choices: tuple[str, ...] = CHAINS):
    names = f"{', '.join(CHAINS)}, or torchvision: and the name of one of its models; to export also {LOCALISATION}"
    description = f"the chain to evaluate, time or export ({names})"
    place = {"section": "evaluate", "name": "chain"}
    return ChainName(default="rcnn", choices=choices, config_path=place, description=description)


def iou_threshold_setting():
    return parameters.number(
        0.5, "evaluate", "iou_threshold", "IoU above which a detection is a hit", minimum=0, maximum=1
    )


class OfOneChain(Stage):
    """A stage that reads the detections or the detector of one chain."""

    chain = chain_setting()

    def detection(self) -> DetectSplit:
        stage, settings = DETECT.get(self.chain, (DetectWithNetwork, {"architecture": self.chain}))
        return self.clone(stage, **settings)


@parameters.inherits(*STAGES, without=OF_ONE_CHAIN)
class Evaluate(OfOneChain, IndexesFirst):
    """Average precision of one chain on the test split, VOC's and COCO's, and the chain's errors.

    VOC's average precision has bootstrap intervals over the test images. The confusions of classes are those at each class's best
    F1 on the test split itself.
    """

    version = 3

    iou_threshold = iou_threshold_setting()
    bootstrap_resamples = parameters.integer(1000, "evaluate", "bootstrap_resamples", "resamples of the test images", minimum=1)
    similar_classes = parameters.names(
        (), "evaluate", "similar_classes", "groups of similar classes: cat+dog,bus+car; empty: the paper's for VOC's classes"
    )
    seed = parameters.seed()

    def deps(self) -> list[CachedTask]:
        return [*super().deps(), *drawn_indexes(self, [self.chain])]

    def requires(self) -> dict[str, CachedTask]:
        masks = drawn_masks(self, self.chain, self.test_split)
        return {"test": self.clone(IndexDataset, split=self.test_split), **masks, "detections": self.detection()}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.detection.detections import Detections
        from pipeline.evaluation.bootstrap import bootstrap, interval
        from pipeline.evaluation.coco_ap import MOST, coco_table, evaluate_coco, too_crowded
        from pipeline.evaluation.confusion import confusion_matrix, confusion_table
        from pipeline.evaluation.errors import analyse_errors, similar_groups
        from pipeline.evaluation.table import ap_table
        from pipeline.evaluation.voc_ap import evaluate, json_number
        from pipeline.seeding import make_generator

        split = load_split(self.inputs()["test"])
        detections = Detections.load(self.inputs()["detections"].path(DETECTIONS))
        result = evaluate(detections, split.images, split.classes, self.iou_threshold)
        samples = bootstrap(result.matches, self.bootstrap_resamples, make_generator(self.seed, "bootstrap"), METRIC)
        bounds = interval(samples)
        low, high = ({**dict(zip(split.classes, values)), "mean": values[-1]} for values in bounds.tolist())
        intervals = {name: [json_number(low[name]), json_number(high[name])] for name in low}
        coco = evaluate_coco(detections, split.images, split.classes)
        crowded, beyond = too_crowded(split.images, len(split.classes))
        if crowded:
            logger.warning(
                "%s: COCO's metrics count at most %d detections per class and image; %d of %d images have more objects of a "
                "class, so that %d objects count as missed. VOC's AP counts all",
                self.label, MOST, crowded, len(split.images), beyond,
            )
        confusion = confusion_matrix(result.matches, split.images)
        evaluation = {
            **result.to_json(), "interval_07": intervals, "coco": coco.to_json(), "confusion": confusion.to_json(),
        }
        masks = masks_of(self, split, detections)
        evaluation |= {"masks": masks} if masks else {}
        errors = analyse_errors(result.matches, split.images, similar_groups(split.classes, self.similar_classes))
        workshop.write(EVALUATION, canonical_json(evaluation) + "\n")
        workshop.write(ERRORS, canonical_json(errors.to_json()) + "\n")
        workshop.write(CONFUSION, confusion_table(confusion) + "\n")
        workshop.write(TABLE, f"{ap_table(result, bounds, METRIC)}\n\n{coco_table(coco)}\n{mask_text(masks)}")
        return {
            **shared_figures(self, split),
            "map": json_number(result.mean_ap_07), "map_area": json_number(result.mean_ap_area),
            "coco_ap": json_number(coco.metrics["ap"]), **({"beyond_coco": beyond} if beyond else {}),
            **({"mask_ap": masks["metrics"]["ap"]} if masks else {}),
        }

    def show(self) -> None:
        tell(f"\n{self.artefact.path(CONFUSION).read_text()}")
        show_table(self.artefact, EVALUATION, ERRORS, CONFUSION, TABLE)
        if shared := shared_text(self.artefact):
            tell(f"\n{shared}")


def shared_figures(stage: IndexesFirst, split) -> dict:
    """Figures of an evaluation about test images that are also training images."""
    from pipeline.datasets.overlap import shared_images

    shared = shared_images(split, load_split(stage.splits()["train"].artefact))
    return {SHARED: shared.to_json()} if shared else {}


def shared_text(evaluation: Artefact) -> str:
    """What an evaluation has to say of test images that are also training images; empty if there are none."""
    from pipeline.datasets.faults import Remark

    shared = evaluation.manifest["figures"].get(SHARED)
    return printable(Remark.from_json(shared)) if shared else ""


@parameters.inherits(*STAGES, without=OF_ONE_CHAIN)
class TimeDetection(OfOneChain, IndexesFirst, TimePrediction):
    """Seconds per image from pixels to detections: one image at a time, after a warm-up, without the time of proposals."""

    def requires(self) -> dict[str, CachedTask]:
        detection = self.detection()
        parts = {part: task for part, (task, _) in detection.detector_parts().items()}
        required = {"test": self.test_index(), "detections": detection, **parts}
        if detection.needs_proposals:
            required["proposals"] = self.clone(RegionProposals, split=self.test_split)
        return required

    def predictor(self, split) -> Callable:
        detector = self.detection().load_detector()
        proposals = load_proposals(self.inputs()["proposals"]) if "proposals" in self.inputs() else None

        def detect(number: int, record, pixels) -> None:
            detector.detect(pixels, *([proposals[number]] if proposals else []))

        return detect
