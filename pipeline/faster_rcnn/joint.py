"""Faster R-CNN (Ren et al. 2015): region proposals and detections from one map of an image.

1. The trunk makes a map of the whole image.
2. The region proposal network proposes regions from it.
3. Fast R-CNN pools each of them from the same map and detects. So does R-FCN, from maps of its own of the same map.

Two ways of training (section 3.2): in four steps that alternate between the two networks, which are the functions
`train_rpn` and `train_fast_rcnn`; or both at once, with the four losses together (`train_jointly`). That is approximate, because
no gradient flows through the corners of the proposals. R-FCN is trained jointly, too.

Shape shorthand: D channels, h x w cells of a map, C classes.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.detection.candidates import RELEASE_LIMITS, Candidates, Limits
from pipeline.fast_rcnn.detect import FastRCNNDetector, SeenMap, Views
from pipeline.fast_rcnn.hard_examples import HardExamples, hard_losses
from pipeline.fast_rcnn.losses import LOSSES as DETECTOR_LOSSES
from pipeline.fast_rcnn.losses import fast_rcnn_loss
from pipeline.fast_rcnn.region_network import RegionNetwork
from pipeline.fast_rcnn.sampling import SamplingSettings, all_regions, draw_regions, match
from pipeline.faster_rcnn import rpn as rpn_module
from pipeline.faster_rcnn.rpn import RPN, ProposalSettings, merge_proposals, propose_regions, scored_regions
from pipeline.faster_rcnn.rpn_training import AnchorLayout, AnchorSampler, calibrate_rpn, make_rpn
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import for_inference, mixed_precision
from pipeline.networks.map_inputs import CALIBRATION_STEPS, ImageDraw, Inputs, MapInput, map_of, read_ahead
from pipeline.networks.ranks import part_of_each
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.networks.whole_images import Scaling, mirror_boxes, rois_of
from pipeline.seeding import derive_seed, make_generator

LOSSES = (*rpn_module.LOSSES, *DETECTOR_LOSSES)
# lib/fast_rcnn/config.py and experiments/cfgs/faster_rcnn_end2end.yml of rbgirshick/py-faster-rcnn
DEVIATIONS = (0.1, 0.1, 0.2, 0.2)  # BBOX_NORMALIZE_STDS; the means are 0
SAMPLING = SamplingSettings(images=1, background_overlaps=(0.0, 0.5))  # of one image; BG_THRESH_LO, BG_THRESH_HI
PROPOSALS_IN_TRAINING = ProposalSettings(before_nms=12000, after_nms=2000)  # RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N


class FasterRCNNDetector:
    """Detections of one image from its pixels alone. The networks, `model` being Fast R-CNN or R-FCN, are ready for inference."""

    def __init__(
        self, model: RegionNetwork, rpn: RPN, device: torch.device, shorter: int, longest: int, *, proposals: ProposalSettings,
        limits: Limits = RELEASE_LIMITS, views: Views | None = None,
    ):
        self.rpn, self.proposal_settings = rpn, proposals
        self.detector = FastRCNNDetector(model, device, shorter, longest, limits, views=views)

    def detect(self, pixels: np.ndarray) -> Candidates:
        """The candidates in `pixels`, uint8 RGB [height x width x 3]."""
        height, width, _ = pixels.shape
        with torch.inference_mode():
            seen = self.detector.maps(pixels)
            proposed = [self._propose(view, width) for view in seen]
            proposals = proposed[0][0] if len(seen) == 1 else merge_proposals(proposed, self.proposal_settings)
            return self.detector.detect_in_maps(seen, proposals, height, width)

    def _propose(self, view: SeenMap, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Proposals of one view, in pixels of the image that is not mirrored, and their scores."""
        outputs, cells = self.rpn(view.values), view.values.shape[1:]
        boxes, scores = scored_regions(self.rpn, outputs, cells, view.scaling, self.proposal_settings)
        return mirror_boxes(boxes, width) if view.mirrored else boxes, scores


@dataclass(frozen=True)
class RegionChoice:
    """Which regions of an image the detector is trained on: a sample by `sampling`, or with `hard` the hardest of all.

    They come from what the proposal network proposes by `proposals`, and from the objects themselves. `class_weights` [C + 1] are
    factors of their log loss.
    """

    sampling: SamplingSettings = SAMPLING
    proposals: ProposalSettings = PROPOSALS_IN_TRAINING
    hard: HardExamples | None = None
    class_weights: np.ndarray | None = None


def train_jointly(
    backbone: Backbone, run: TrainingRun, *, make_detector: Callable[[Backbone], RegionNetwork], sampler: AnchorSampler,
    layout: AnchorLayout, inputs: Inputs, rate: float = 1.0, rpn_rate: float = 1.0, choice: RegionChoice = RegionChoice(),
    light: bool = False,
) -> tuple[RegionNetwork, RPN, np.ndarray]:
    """Trains both networks and `backbone` together, in place; returns them and the losses of each step, float32 [iterations x 4].

    Every image of a step gives a sample of its anchors, and by `choice` regions from the proposals of just then. The output
    layers learn `rate` times as fast as the rest, the proposal network `rpn_rate` times. With `light` the trunk sees images
    in changing light. What is validated is the pair of networks, ready for inference.
    """
    device, precision = run.device, run.precision
    torch.manual_seed(derive_seed(run.seed, "output layers"))
    rpn, detector = make_rpn(backbone, layout), make_detector(backbone)
    assert isinstance(detector, nn.Module)
    images_a_step = sampler.order.images_a_step
    regions = ImageRegions(sampler, detector.num_classes, run.seed, choice)
    if run.start:
        run.start.load("rpn", rpn)
        run.start.load("network", detector)
        detector.unfold(regions.means, regions.deviations)
    model = nn.ModuleDict({"rpn": rpn, "detector": detector}).to(device).to(memory_format=torch.channels_last)
    batches = read_ahead(sampler.order.draw, inputs, images_a_step, run.seed if light else None)

    def losses_of_image(turn: ImageDraw, map_input: MapInput) -> Tensor:
        scaling = map_input.scaling
        with mixed_precision(device, precision):
            values = map_of(backbone, map_input, turn.mirrored, device, precision)
            outputs, cells, maps = rpn(values), values.shape[1:], detector.maps(values)

        def of_regions(rois: np.ndarray) -> tuple[Tensor, Tensor]:
            with mixed_precision(device, precision):
                scores, deltas = detector.of_regions(maps, rois)
            return scores.float(), deltas.float()
        proposals = propose_regions(rpn, outputs, cells, scaling, choice.proposals)
        detector_losses = regions.losses(of_regions, turn, proposals, scaling, device)
        return torch.cat([sampler.losses(rpn, outputs, turn, scaling, cells), detector_losses]) / images_a_step

    def examples() -> Iterator[tuple[Tensor, np.ndarray]]:
        for turn, map_input in chain.from_iterable(islice(batches(0), CALIBRATION_STEPS)):
            values = map_of(backbone, map_input, turn.mirrored, device, precision)
            proposals = propose_regions(rpn, rpn(values), values.shape[1:], map_input.scaling, choice.proposals)
            yield values, rois_of(regions.candidates(turn, proposals)[0], map_input.scaling)

    if backbone.view.standardise and not run.start:
        calibrate_rpn(rpn, backbone, batches, device, precision)
    with torch.no_grad(), mixed_precision(device, precision):
        detector.calibrate_on(examples())
    groups = parameter_groups(backbone) + parameter_groups(rpn, rpn_rate) + detector.new_groups(rate)
    losses = train(
        model, run, groups=groups, batches=partial(batches, ranks=run.ranks), losses_of=part_of_each(losses_of_image),
        names=LOSSES, images_a_step=images_a_step, finished=lambda: _finished(model, regions, run),
    )
    detector.fold(regions.means, regions.deviations)
    return detector, rpn, losses


def _finished(model: nn.ModuleDict, regions: "ImageRegions", run: TrainingRun) -> tuple[RegionNetwork, RPN]:
    """A copy of both networks, ready for inference."""
    networks = copy.deepcopy(model)
    networks["detector"].fold(regions.means, regions.deviations)  # type: ignore[operator]  # torch types every attribute alike
    networks = for_inference(networks, run.device, run.precision)
    return networks["detector"], networks["rpn"]  # type: ignore[return-value]


class ImageRegions:
    """The regions of each image to train on, and the detector's losses of them."""

    def __init__(self, sampler: AnchorSampler, num_classes: int, seed: int, choice: RegionChoice):
        self.sampler, self.seed, self.choice = sampler, seed, choice
        self.means, self.deviations = np.zeros((num_classes, 4)), np.tile(DEVIATIONS, (num_classes, 1))

    def candidates(self, turn: ImageDraw, proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes, labels and targets of the sample or, with `hard`, of all regions that are chosen from."""
        sampling = self.choice.sampling
        matches = match(self.sampler.record(turn), proposals, sampling.foreground_overlap)
        if self.choice.hard:
            return all_regions(matches, self.means, self.deviations)
        return draw_regions(matches, sampling, make_generator(self.seed, "regions", turn.place), self.means, self.deviations)

    def losses(
        self, of_regions: Callable, turn: ImageDraw, proposals: np.ndarray, scaling: Scaling, device: torch.device
    ) -> Tensor:
        """The two losses [2] of an image per region; `of_regions(rois)` gives scores and deltas."""
        boxes, *arrays = self.candidates(turn, proposals)
        labels, targets = (torch.from_numpy(array).to(device) for array in arrays)
        rois, hard, weights = rois_of(boxes, scaling), self.choice.hard, self.choice.class_weights
        on_device = None if weights is None else torch.from_numpy(weights).to(device)
        if hard:
            return hard_losses(of_regions, rois, labels, targets, hard.regions, class_weights=on_device)
        scores, deltas = of_regions(rois)
        return fast_rcnn_loss(scores, deltas, labels, targets, on_device) / max(1, len(labels))
