"""Average precision of a chain's detections, and how long it takes to detect."""

import time

from tasks import parameters
from tasks.artefacts import Workshop
from tasks.cache import CachedTask, load_split
from tasks.data import IndexDataset
from tasks.digests import canonical_json
from tasks.networks import NetworkTask, load_backbone, trained_network
from tasks.proposals import RegionProposals, load_proposals
from tasks.rcnn import DETECTIONS, DetectRCNN, TrainBoxRegressors, TrainSVMs, load_models

# The stage that makes each chain's detections.
DETECT = {"rcnn": DetectRCNN}
CHAINS = tuple(DETECT)
METRIC = "07"  # VOC 2007's eleven-point AP is the one that the papers report


@parameters.inherits(*DETECT.values())
class Evaluate(CachedTask):
    """VOC average precision of one chain on the test split, with bootstrap intervals over its images."""

    chain = parameters.choice("rcnn", CHAINS, "evaluate", "chain", "whose detections")
    iou_threshold = parameters.number(0.5, "evaluate", "iou_threshold", "a hit has IoU above this", minimum=0, maximum=1)
    bootstrap_resamples = parameters.integer(1000, "evaluate", "bootstrap_resamples", "resamples of the test images", minimum=1)
    seed = parameters.seed()

    def requires(self) -> dict[str, CachedTask]:
        return {"test": self.clone(IndexDataset, split=self.test_split), "detections": self.clone(DETECT[self.chain])}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.detections import Detections
        from pipeline.evaluation.bootstrap import bootstrap, interval
        from pipeline.evaluation.table import ap_table
        from pipeline.evaluation.voc_ap import evaluate, json_number
        from pipeline.seeding import make_generator

        split = load_split(self.inputs()["test"])
        detections = Detections.load(self.inputs()["detections"].path(DETECTIONS))
        result = evaluate(detections, split.images, split.classes, self.iou_threshold)
        samples = bootstrap(result.matches, self.bootstrap_resamples, make_generator(self.seed, "bootstrap"), METRIC)
        ends = interval(samples)
        low, high = ({**dict(zip(split.classes, side)), "mean": side[-1]} for side in ends.tolist())
        intervals = {name: [json_number(low[name]), json_number(high[name])] for name in low}
        (workshop.files / "evaluation.json").write_text(canonical_json({**result.to_json(), "interval_07": intervals}) + "\n")
        (workshop.files / "table.txt").write_text(ap_table(result, ends, METRIC) + "\n")
        return {"map": json_number(result.mean_ap_07), "map_area": json_number(result.mean_ap_area)}


@parameters.inherits(DetectRCNN)
class TimeRCNN(NetworkTask):
    """Seconds that one image takes from pixels to detections, its proposals given: one image at a time, after a warm-up.

    The seconds are in the manifest; the file only names the images, so that the artefact's digest is the same every time.
    """

    timed_images = parameters.integer(10, "evaluate", "timed_images", "test images that are timed", minimum=1)

    def requires(self) -> dict[str, CachedTask]:
        tasks = {
            "test": self.clone(IndexDataset, split=self.test_split), "network": trained_network(self),
            "proposals": self.clone(RegionProposals, split=self.test_split), "svms": self.clone(TrainSVMs),
            "detections": self.clone(DetectRCNN),  # what is timed, with its settings
        }
        return {**tasks, "regressors": self.clone(TrainBoxRegressors)} if self.box_regression else tasks

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images import read_image
        from pipeline.networks.compute import for_inference
        from pipeline.rcnn.detect import detect_in_image

        device = self.prepare()
        backbone = for_inference(load_backbone(self.inputs()["network"], self.backbone), device, self.arithmetic)
        models, root = load_models(self.inputs()), self.requires()["test"].root
        images = load_split(self.inputs()["test"]).images
        proposals = load_proposals(self.inputs()["proposals"])
        chosen = range(0, len(images), max(1, len(images) // self.timed_images))[: self.timed_images]
        seconds = []
        for number in [chosen[0], *chosen]:  # the first one warms up
            start = time.perf_counter()
            detect_in_image(
                images[number], lambda image: read_image(root / image.path), proposals[number], backbone, self.layer,
                self.arithmetic, self.context_padding, self.extract_batch, device, *models, self.max_per_image,
                self.nms_threshold,
            )
            seconds.append(time.perf_counter() - start)
        (workshop.files / "images.json").write_text(canonical_json([images[number].id for number in chosen]) + "\n")
        return {"test_seconds_per_image": sum(seconds[1:]) / len(chosen), "images": len(chosen)}
