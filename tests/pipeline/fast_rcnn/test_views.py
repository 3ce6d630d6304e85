"""Detection in several views: each region at its scale, mirror images averaged."""

import numpy as np
import pytest
import torch

from pipeline.detection.candidates import Limits
from pipeline.fast_rcnn.detect import FastRCNNDetector, Views
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.faster_rcnn.joint import FasterRCNNDetector
from pipeline.faster_rcnn.rpn import ProposalSettings, merge_proposals
from pipeline.faster_rcnn.rpn_training import AnchorLayout, make_rpn
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import for_inference
from pipeline.networks.whole_images import mirror_boxes

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HEIGHT, WIDTH = 96, 96
SMALL, LARGE = [8, 8, 40, 40], [4, 8, 84, 88]  # at 1.5 times its size the smaller has 48 pixels; the crops of `tiny` have 64
BOXES = np.float32([SMALL, LARGE, [50, 6, 82, 38], [10, 10, 90, 90]])
ALL = Limits(0, 1.0, 0)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(1)
    backbone = make_backbone("tiny")
    model, rpn = FastRCNN(backbone, 2), make_rpn(backbone, AnchorLayout((1.0, 2.0, 3.0), (1.0,)))
    for layer, std in ((model.scores, 0.3), (model.deltas, 0.01), (rpn.hidden, 0.02), (rpn.scores, 0.1), (rpn.deltas, 0.02)):
        torch.nn.init.normal_(layer.weight, std=std)
    return for_inference(model, CPU, "float32"), for_inference(rpn, CPU, "float32")


def detector(networks, scales, mirror=False):
    return FastRCNNDetector(networks[0], CPU, 7, 7, ALL, views=Views(scales, 1000, mirror))


def rows(candidates):
    """Class, score and box of each candidate, in an order that does not depend on that of the regions."""
    table = np.column_stack([candidates.class_index, candidates.score, candidates.boxes])
    return table[np.lexsort((table[:, 1], table[:, 0]))]


def test_each_region_is_seen_at_the_scale_nearest_to_the_crops(networks, pixels):
    """64 pixels: the small ones have 64 at scale 192, the large ones 80 at scale 96."""
    candidates = detector(networks, (96, 192)).detect(pixels, BOXES)
    small, large = (detector(networks, (scale,)).detect(pixels, BOXES[part]) for scale, part in ((192, [0, 2]), (96, [1, 3])))
    expected = np.concatenate([rows(small), rows(large)])
    np.testing.assert_allclose(rows(candidates), expected[np.lexsort((expected[:, 1], expected[:, 0]))], rtol=1e-5)
    assert not np.allclose(rows(candidates)[:, 1], rows(detector(networks, (96,)).detect(pixels, BOXES))[:, 1])


def test_one_scale_is_as_without_views(networks, pixels):
    plain = FastRCNNDetector(networks[0], CPU, 144, 1000, ALL).detect(pixels, BOXES)
    np.testing.assert_array_equal(rows(detector(networks, (144,)).detect(pixels, BOXES)), rows(plain))


def test_scores_and_boxes_of_the_mirror_image_are_averaged(networks, pixels):
    candidates = detector(networks, (144,), mirror=True).detect(pixels, BOXES[:1])
    plain = detector(networks, (144,)).detect(pixels, BOXES[:1])
    mirrored = detector(networks, (144,)).detect(pixels[:, ::-1].copy(), mirror_boxes(BOXES[:1], WIDTH))
    np.testing.assert_allclose(candidates.score, (plain.score + mirrored.score) / 2, rtol=1e-5)
    np.testing.assert_allclose(candidates.boxes, (plain.boxes + mirror_boxes(mirrored.boxes, WIDTH)) / 2, atol=1e-3)
    assert not np.allclose(plain.score, mirrored.score)


def test_a_mirrored_image_has_the_mirrored_detections(networks, pixels):
    candidates = detector(networks, (144,), mirror=True).detect(pixels, BOXES)
    mirrored = detector(networks, (144,), mirror=True).detect(pixels[:, ::-1].copy(), mirror_boxes(BOXES, WIDTH))
    np.testing.assert_allclose(mirrored.score, candidates.score, rtol=1e-5)
    np.testing.assert_allclose(mirror_boxes(mirrored.boxes, WIDTH), candidates.boxes, atol=1e-3)


def test_nothing_is_found_in_no_region(networks, pixels):
    assert len(detector(networks, (96, 192), mirror=True).detect(pixels, np.zeros((0, 4), np.float32)).score) == 0


def test_proposals_of_all_views_are_merged():
    first = np.float32([[0, 0, 10, 10], [50, 50, 60, 60]]), np.float32([0.9, 0.2])
    second = np.float32([[0, 0, 10, 9], [20, 20, 30, 30]]), np.float32([0.95, 0.5])
    merged = merge_proposals([first, second], ProposalSettings(after_nms=9))
    assert merged.tolist() == [[0, 0, 10, 9], [20, 20, 30, 30], [50, 50, 60, 60]]
    assert len(merge_proposals([first, second], ProposalSettings(after_nms=2))) == 2


def test_faster_rcnn_proposes_in_each_view(networks, pixels):
    """The mirror image of the image has the mirrored detections; its proposals come from both views."""
    def find(image, scales, mirror):
        proposals = ProposalSettings(0, 40, min_side=4.0)
        views = Views(scales, 1000, mirror)
        return FasterRCNNDetector(*networks, CPU, 7, 7, proposals=proposals, limits=Limits(5, 0.3, 0), views=views).detect(image)

    candidates, mirrored = (find(image, (96, 144), True) for image in (pixels, pixels[:, ::-1].copy()))
    np.testing.assert_allclose(mirrored.score, candidates.score, rtol=1e-4)
    np.testing.assert_allclose(mirror_boxes(mirrored.boxes, WIDTH), candidates.boxes, atol=1e-2)
    assert not np.array_equal(find(pixels, (96,), False).score, candidates.score)
