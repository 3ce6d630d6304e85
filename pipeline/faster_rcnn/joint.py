"""Faster R-CNN (Ren et al. 2015): region proposals and detections from one map of an image.

1. The trunk makes a map of the whole image.
2. The region proposal network proposes regions from it.
3. Fast R-CNN pools each of them from the same map and detects.

Two ways of training (section 3.2): in four steps that alternate between the two networks, which are the functions
`train_rpn` and `train_fast_rcnn`; or both at once, with the four losses together (`train_jointly`). That is approximate, because
no gradient flows through the corners of the proposals.

Shape shorthand: D channels, h x w cells of a map, C classes.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.detection.candidates import RELEASE_LIMITS, Candidates, Limits
from pipeline.fast_rcnn.network import LOSSES as DETECTOR_LOSSES
from pipeline.fast_rcnn.network import FastRCNN, FastRCNNDetector, fast_rcnn_loss
from pipeline.fast_rcnn.sampling import SamplingSettings, draw_regions, match
from pipeline.faster_rcnn import rpn as rpn_module
from pipeline.faster_rcnn.rpn import RPN, ProposalSettings, propose_regions
from pipeline.faster_rcnn.rpn_training import AnchorLayout, AnchorSampler, calibrate_rpn, make_rpn
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.map_inputs import CALIBRATION_STEPS, ImageDraw, Inputs, MapInput, map_of, read_ahead
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.networks.whole_images import Scaling, conv_map, rois_of
from pipeline.seeding import derive_seed, make_generator

LOSSES = (*rpn_module.LOSSES, *DETECTOR_LOSSES)
# lib/fast_rcnn/config.py and experiments/cfgs/faster_rcnn_end2end.yml of rbgirshick/py-faster-rcnn
DEVIATIONS = (0.1, 0.1, 0.2, 0.2)  # BBOX_NORMALIZE_STDS; the means are 0
SAMPLING = SamplingSettings(images=1, background_overlaps=(0.0, 0.5))  # of one image; BG_THRESH_LO, BG_THRESH_HI
PROPOSALS_IN_TRAINING = ProposalSettings(before_nms=12000, after_nms=2000)  # RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N


class FasterRCNNDetector:
    """Detections of one image from its pixels alone. The networks are ready for inference."""

    def __init__(
        self, model: FastRCNN, rpn: RPN, device: torch.device, shorter: int, longest: int, *, proposals: ProposalSettings,
        limits: Limits = RELEASE_LIMITS,
    ):
        self.rpn, self.proposal_settings, self.device = rpn, proposals, device
        self.detector = FastRCNNDetector(model, device, shorter, longest, limits)

    def detect(self, pixels: np.ndarray) -> Candidates:
        """The candidates in `pixels`, uint8 RGB [height x width x 3]."""
        height, width, _ = pixels.shape
        scaling = Scaling.of(height, width, self.detector.shorter, self.detector.longest)
        with torch.inference_mode():
            values = conv_map(self.detector.model.backbone, pixels, scaling, self.device)
            proposals = propose_regions(self.rpn, self.rpn(values), values.shape[1:], scaling, self.proposal_settings)
            return self.detector.detect_in_map(values, scaling, proposals, height, width)


def train_jointly(
    backbone: Backbone, run: TrainingRun, *, sampler: AnchorSampler, classes: Sequence[str], layout: AnchorLayout, inputs: Inputs,
    rate: float = 1.0, rpn_rate: float = 1.0, sampling: SamplingSettings = SAMPLING, light: bool = False,
) -> tuple[FastRCNN, RPN, np.ndarray]:
    """Trains both networks and `backbone` together, in place; returns them and the losses of each step, float32 [iterations x 4].

    Every image of a step gives a sample of its anchors, and by `sampling` one of its objects and of the regions that the proposal
    network proposes just then. The output layers learn `rate` times as fast as the rest, the proposal network `rpn_rate` times.
    With `light` the trunk sees images in changing light.
    """
    device, precision = run.device, run.precision
    torch.manual_seed(derive_seed(run.seed, "output layers"))
    rpn, detector = make_rpn(backbone, layout), FastRCNN(backbone, len(classes))
    model = nn.ModuleDict({"rpn": rpn, "detector": detector}).to(device).to(memory_format=torch.channels_last)
    images_a_step = sampler.order.images_a_step
    means, deviations = np.zeros((len(classes), 4)), np.tile(DEVIATIONS, (len(classes), 1))
    batches = read_ahead(sampler.order.draw, inputs, images_a_step, run.seed if light else None)

    def drawn_regions(turn: ImageDraw, outputs: tuple, cells: tuple, scaling: Scaling) -> tuple:
        proposals = propose_regions(rpn, outputs, cells, scaling, PROPOSALS_IN_TRAINING)
        matches = match(sampler.record(turn), proposals, sampling.foreground_overlap)
        return draw_regions(matches, sampling, make_generator(run.seed, "regions", turn.place), means, deviations)

    def losses_of(batch: list[tuple[ImageDraw, MapInput]]) -> Iterator[Tensor]:
        for turn, made_from in batch:
            scaling = made_from.scaling
            with mixed_precision(device, precision):
                values = map_of(backbone, made_from, turn.mirrored, device, precision)
                outputs, cells = rpn(values), values.shape[1:]
                boxes, labels, targets = drawn_regions(turn, outputs, cells, scaling)
                scores, deltas = detector(detector.pool(values, rois_of(boxes, scaling)))
            labels, targets = torch.from_numpy(labels).to(device), torch.from_numpy(targets).to(device)
            proposal_losses = sampler.losses(rpn, outputs, turn, scaling, cells)
            detector_losses = fast_rcnn_loss(scores.float(), deltas.float(), labels, targets) / max(1, len(labels))
            yield torch.cat([proposal_losses, detector_losses]) / len(batch)

    if backbone.view.standardise:
        calibrate_rpn(rpn, backbone, batches, device, precision)
    if detector.starts_on_pool5:
        with torch.no_grad(), mixed_precision(device, precision):
            pooled = []
            for turn, made_from in chain.from_iterable(islice(batches(0), CALIBRATION_STEPS)):
                values = map_of(backbone, made_from, turn.mirrored, device, precision)
                boxes = drawn_regions(turn, rpn(values), values.shape[1:], made_from.scaling)[0]
                pooled.append(detector.pool(values, rois_of(boxes, made_from.scaling)))
            detector.calibrate(torch.cat(pooled))
    new = parameter_groups(rpn, rpn_rate) + parameter_groups(detector.scores, rate) + parameter_groups(detector.deltas, rate)
    losses = train(
        model, run, groups=parameter_groups(backbone) + new, batches=batches, losses_of=losses_of, names=LOSSES,
        images_a_step=images_a_step,
    )
    detector.fold(means, deviations)
    return detector, rpn, losses
