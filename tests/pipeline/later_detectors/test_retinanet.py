"""RetinaNet's anchors, matching and losses: by hand, and as in the paper."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from pipeline.later_detectors.network import Design, LaterDetector
from pipeline.later_detectors.retinanet import match, paper_anchors


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return LaterDetector(Design("retinanet", "tiny", 128, 16), 4).network


class TestAnchors:
    def test_of_the_first_level_by_hand(self):
        anchors = paper_anchors().cell_anchors[0]
        assert len(anchors) == 9
        side = 32 * 2 ** (1 / 3)
        np.testing.assert_allclose(anchors[4], [-side / 2, -side / 2, side / 2, side / 2], rtol=1e-6)  # ratio 1
        width, height = 32 * 2**0.5, 32 / 2**0.5
        np.testing.assert_allclose(anchors[0], [-width / 2, -height / 2, width / 2, height / 2], rtol=1e-6)

    def test_as_the_paper(self, oracle):
        expected = oracle("retinanet.npz")["anchors_exact"]
        anchors = torch.cat(paper_anchors().cell_anchors).numpy()
        np.testing.assert_allclose(anchors[:, 2:] - anchors[:, :2], expected[:, 3:], rtol=1e-6)

    def test_levels_of_our_trunk_have_the_strides_of_the_paper(self, network):
        with torch.no_grad():
            levels = network.backbone(torch.zeros(1, 3, 128, 128))
        assert [values.shape[-1] for values in levels.values()] == [16, 8, 4, 2, 1]


class TestMatching:
    def test_as_detectron(self, network, oracle):
        values = oracle("retinanet.npz")
        boxes, anchors = (torch.from_numpy(values[f"match_{name}"]) for name in ("gt", "anchors"))
        np.testing.assert_array_equal(match(network.proposal_matcher, boxes, anchors), values["match_low_quality"])

    def test_without_objects(self, network):
        assert match(network.proposal_matcher, torch.zeros(0, 4), torch.ones(3, 4)).tolist() == [-1, -1, -1]


class TestLosses:
    @pytest.mark.parametrize(("gamma", "alpha"), [("2", "0.25"), ("0.5", "0.5"), ("0", "0.75")])
    def test_focal_loss_as_the_paper(self, oracle, gamma, alpha):
        values = oracle("retinanet.npz")
        logits = torch.from_numpy(values["logits"]).requires_grad_()
        losses = sigmoid_focal_loss(logits, torch.from_numpy(values["targets"]).double(), float(alpha), float(gamma))
        np.testing.assert_allclose(losses.detach(), values[f"loss_g{gamma}_a{alpha}"], atol=1e-9)
        losses.sum().backward()
        np.testing.assert_allclose(logits.grad, values[f"grad_g{gamma}_a{alpha}"], atol=1e-9)

    def test_first_scores(self, network, oracle):
        bias = network.head.classification_head.cls_logits.bias.detach()
        np.testing.assert_allclose(bias, float(oracle("retinanet.npz")["prior_bias"]), rtol=1e-6)

    def test_by_hand(self, network):
        """One anchor on the object, one between, one far off; logits 0. The sum over the batch, by all its positives."""
        anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 22], [50, 50, 60, 60]])
        object_ = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([2])}
        nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        outputs = {"cls_logits": torch.zeros(2, 3, 4), "bbox_regression": torch.zeros(2, 3, 4)}
        outputs["bbox_regression"][0, 0, 0] = 1.0
        losses = network.compute_loss([object_, nothing], outputs, [anchors, anchors])
        cell = 0.25 * math.log(2)  # (1 - 0.5)^2 log 2; a quarter of it for objects, three for background
        # The first image: one score of class 2, 3 + 4 of background, the middle anchor (IoU 0.45) ignored. The second: 12.
        assert float(losses["classification"]) == pytest.approx(cell * (0.25 + 0.75 * (3 + 4 + 12)), rel=1e-5)
        assert float(losses["bbox_regression"]) == pytest.approx(1 - 0.11 / 2, rel=1e-5)  # smooth L1 of 1

    def test_images_without_objects(self, network):
        nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        outputs = {"cls_logits": torch.zeros(1, 1, 4), "bbox_regression": torch.zeros(1, 1, 4)}
        losses = network.compute_loss([nothing], outputs, [torch.tensor([[0.0, 0, 1, 1]])])
        assert float(losses["bbox_regression"]) == 0
        assert float(losses["classification"]) == pytest.approx(0.75 * 0.25 * math.log(2) * 4, rel=1e-5)
