"""The region proposal network: its order of outputs against a slow loop, losses by hand, proposals as the release has them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import boxes as box_algebra
from pipeline.faster_rcnn.anchors import generate_anchors, grid_anchors
from pipeline.faster_rcnn.rpn import LARGEST_GROWTH, RPN, ProposalSettings, filter_proposals, propose_regions, rpn_loss
from pipeline.networks.compute import for_inference
from pipeline.networks.whole_images import Scaling
from tests.tiers import examples

pytestmark = pytest.mark.usefixtures("one_thread")
CHANNELS, HIDDEN = 3, 5
ROWS, COLUMNS = 4, 6


def make_rpn(std=0.5, **shapes):
    """A network whose outputs are not near 0."""
    torch.manual_seed(0)
    rpn = RPN(CHANNELS, HIDDEN, **shapes)
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return rpn.eval()


def make_map(seed=0, rows=ROWS, columns=COLUMNS):
    return torch.from_numpy(np.random.default_rng(seed).normal(2, 3, (CHANNELS, rows, columns)).astype(np.float32))


class TestNetwork:
    def test_outputs_are_in_the_order_of_the_anchors(self):
        """Cell by cell and anchor by anchor, in plain numbers."""
        rpn, conv_map = make_rpn(scales=(4.0, 8.0)), make_map()
        weights = {name: value.numpy().astype(np.float64) for name, value in rpn.state_dict().items()}
        framed = np.pad(conv_map.numpy().astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        expected_scores, expected_deltas = [], []
        for row in range(ROWS):
            for column in range(COLUMNS):
                window = framed[:, row : row + 3, column : column + 3]
                hidden = np.maximum([(kernel * window).sum() for kernel in weights["hidden.weight"]] + weights["hidden.bias"], 0)
                for anchor in range(6):
                    kernel = weights["scores.weight"][anchor, :, 0, 0]
                    expected_scores.append(kernel @ hidden + weights["scores.bias"][anchor])
                    four = slice(4 * anchor, 4 * anchor + 4)  # dx, dy, dw, dh of an anchor are neighbours
                    kernels = weights["deltas.weight"][four, :, 0, 0]
                    expected_deltas.append(kernels @ hidden + weights["deltas.bias"][four])
        with torch.no_grad():
            scores, deltas = rpn(conv_map)
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(deltas, expected_deltas, rtol=1e-4, atol=1e-4)

    def test_anchors_are_in_pixels_of_the_scaled_image(self):
        rpn = make_rpn(scales=(2.0,), ratios=(1.0, 4.0))
        base = generate_anchors((2.0,), (1.0, 4.0), 16)
        np.testing.assert_array_equal(rpn.anchors(2, 3), grid_anchors(base, 2, 3, 16))
        assert rpn.anchors(2, 3)[6].tolist() == [-8, 8, 24, 40]  # of the first cell of the second row

    def test_weights_start_as_in_the_release(self):
        torch.manual_seed(0)
        rpn = RPN(256, 256)
        for layer in (rpn.hidden, rpn.scores, rpn.deltas):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert layer.weight.mean().item() == pytest.approx(0, abs=0.001)
            assert (layer.bias == 0).all()
        assert (len(rpn.scores.bias), len(rpn.deltas.bias)) == (9, 36)

    def test_calibrated_it_sees_channels_of_mean_0_and_deviation_1(self):
        rpn, maps = make_rpn(), [make_map(seed, *size) for seed, size in enumerate([(5, 7), (9, 4), (3, 3)])]
        maps = [values * torch.tensor([1.0, 40.0, 0.2])[:, None, None] for values in maps]
        seen = []
        rpn.hidden.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0][0]))
        rpn.calibrate(maps)
        for values in maps:
            rpn(values)
        cells = torch.cat([values.flatten(1) for values in seen], dim=1)
        np.testing.assert_allclose(cells.mean(1), 0, atol=1e-5)
        # A hundredth of the mean deviation is added, so that a channel that is always the same is not divided by 0.
        deviation = torch.cat([values.flatten(1) for values in maps], dim=1).std(1)
        np.testing.assert_allclose(cells.std(1), deviation / (deviation + 0.01 * deviation.mean()), rtol=1e-4)

    @pytest.mark.parametrize("value", [0.0, 7.0])
    def test_calibration_on_maps_that_are_the_same_everywhere_stays_finite(self, value):
        rpn = make_rpn()
        rpn.calibrate([torch.full((CHANNELS, 3, 4), value)])
        assert all(torch.isfinite(output).all() for output in rpn(torch.full((CHANNELS, 3, 4), value)))

    def test_its_calibration_is_part_of_its_weights(self):
        rpn, restored, conv_map = make_rpn(), make_rpn(), make_map()
        rpn.calibrate([conv_map])
        restored.load_state_dict(rpn.state_dict())
        for output, expected in zip(restored(conv_map), rpn(conv_map), strict=True):
            torch.testing.assert_close(output, expected, rtol=0, atol=0)

    @pytest.mark.parametrize("trained", [False, True])
    def test_scores_of_a_network_in_bfloat16_are_distinct(self, trained):
        """Nearly as many as anchors. Computed in bfloat16 there would be only some hundreds."""
        torch.manual_seed(0)
        rpn, values = RPN(32, 64), torch.randn(32, 23, 30).relu()
        if trained:  # under autocast, with weights of float32
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                scores, deltas = rpn(values)
        else:
            with torch.inference_mode():
                scores, deltas = for_inference(rpn, torch.device("cpu"), "bfloat16")(values.bfloat16())
        assert (scores.dtype, deltas.dtype) == (torch.float32, torch.bfloat16)
        assert len(scores) == 23 * 30 * 9
        assert len(scores.unique()) > 0.98 * len(scores)
        assert len(scores.bfloat16().unique()) < 0.3 * len(scores)

    def test_a_map_of_one_cell(self):
        scores, deltas = make_rpn()(make_map(rows=1, columns=1))
        assert (scores.shape, deltas.shape) == ((9,), (9, 4))


class TestLoss:
    def test_by_hand(self):
        """Smooth L1 with sigma 3: 9 x^2 / 2 up to a ninth, |x| - 1/18 beyond."""
        scores = torch.tensor([math.log(3), math.log(3), 0.0])  # probabilities 3/4, 3/4, 1/2
        labels = torch.tensor([True, False, True])
        deltas = torch.tensor([[0.1, 0.0, -0.1, 1.0], [9.0, 9.0, 9.0, 9.0], [1.0, 1.0, -2.0, 0.5]])
        targets = torch.tensor([[0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0], [1.0, 1.0, 1.0, 0.4]])
        box_loss = 2 * (9 * 0.01 / 2) + (1 - 1 / 18) + (3 - 1 / 18) + 9 * 0.01 / 2
        object_loss = -math.log(3 / 4) - math.log(1 / 4) - math.log(1 / 2)
        assert rpn_loss(scores, deltas, labels, targets).tolist() == pytest.approx([object_loss, box_loss])

    def test_the_quadratic_part_ends_at_a_ninth(self):
        ninth = torch.full((1, 4), 1 / 9)
        losses = [rpn_loss(torch.zeros(1), step * ninth, torch.ones(1), torch.zeros(1, 4))[1].item() / 4 for step in (0.5, 1, 2)]
        assert losses == pytest.approx([1 / 72, 1 / 18, 3 / 18])

    def test_gradient_is_that_of_finite_differences(self):
        rng = np.random.default_rng(0)
        scores, deltas, targets = (torch.from_numpy(rng.normal(size=shape)) for shape in (6, (6, 4), (6, 4)))
        labels = torch.tensor([1, 0, 1, 0, 0, 1])
        scores.requires_grad_()
        deltas.requires_grad_()
        assert torch.autograd.gradcheck(lambda *values: rpn_loss(*values, labels, targets), (scores, deltas), eps=1e-6, atol=1e-5)

    def test_without_objects_the_box_loss_is_zero_and_has_a_gradient(self):
        scores, deltas = torch.zeros(2, requires_grad=True), torch.ones(2, 4, requires_grad=True)
        rpn_loss(scores, deltas, torch.zeros(2, dtype=torch.bool), torch.zeros(2, 4)).sum().backward()
        assert deltas.grad.abs().sum() == 0
        assert scores.grad.tolist() == pytest.approx([0.5, 0.5])

    def test_of_no_anchor_is_zero(self):
        losses = rpn_loss(torch.zeros(0), torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool), torch.zeros(0, 4))
        assert losses.tolist() == [0, 0]

    def test_scores_that_are_sure_stay_finite(self):
        losses = rpn_loss(torch.tensor([1e4, -1e4]), torch.zeros(2, 4), torch.tensor([False, True]), torch.zeros(2, 4))
        assert losses.tolist() == [2e4, 0]


def release_inputs(data):
    """Scores, deltas and anchors in the order row, column, anchor; size and least side."""
    scores = data["fg_scores"][0].transpose(1, 2, 0).ravel()
    deltas = data["deltas"][0].reshape(9, 4, 25, 32).transpose(2, 3, 0, 1).reshape(-1, 4)
    anchors = grid_anchors(data["base_anchors"] + [0, 0, 1, 1], 25, 32, int(data["stride"]))
    height, width, scale = data["image_info"][0].tolist()
    return {"scores": scores, "deltas": deltas, "anchors": anchors, "size": (height, width), "min_side": 16 * scale}


class TestProposals:
    def test_are_those_of_the_release_on_exclusive_edges(self, oracle):
        data = oracle("proposal_layer.npz")
        boxes, kept = filter_proposals(**release_inputs(data))
        np.testing.assert_array_equal(kept, data["anchor_index_exclusive"])
        np.testing.assert_allclose(boxes, data["proposals_exclusive"], atol=1e-3)
        assert boxes.dtype == np.float32
        boxes, _ = filter_proposals(**release_inputs(data), settings=ProposalSettings(before_nms=500))
        np.testing.assert_allclose(boxes, data["proposals_pre500_exclusive"], atol=1e-3)

    def test_are_about_those_of_the_release_as_it_is(self, oracle):
        """Its edges are a pixel off, so three of the 300 differ."""
        data = oracle("proposal_layer.npz")
        boxes, kept = filter_proposals(**release_inputs(data))
        both, mine, theirs = np.intersect1d(kept, data["anchor_index_test"], return_indices=True)
        assert len(both) == 297
        np.testing.assert_allclose(boxes[mine], data["proposals_test"][theirs] + [0, 0, 1, 1], atol=1.02)

    def test_by_hand(self):
        """The best first: one moved, one clipped; one too flat, one under the best."""
        anchors = np.array([[0, 0, 20, 20], [40, 40, 60, 60], [10, 10, 30, 30], [0, 0, 20, 20], [70, 0, 90, 20]], float)
        deltas = np.zeros((5, 4))
        deltas[0] = [0.5, 0, 0, math.log(2)]  # to (10, -10, 30, 30), clipped
        deltas[1, 3] = math.log(0.4)  # 8 high
        deltas[3] = [0.5, 0.05, 0, math.log(2)]  # nearly the first
        scores = np.array([0.5, 9, 1, 0.4, 0.8])
        boxes, kept = filter_proposals(scores, deltas, anchors, (60, 80), min_side=10)
        assert kept.tolist() == [2, 4, 0]  # IoU of 2 and 0: 400 / 600
        np.testing.assert_allclose(boxes, [[10, 10, 30, 30], [70, 0, 80, 20], [10, 0, 30, 30]], atol=1e-5)

    def test_least_side_is_of_x_and_y(self):
        anchors = np.array([[0, 0, 20, 40], [30, 0, 50, 39.5], [60, 0, 79.5, 40]])
        kept = [filter_proposals(np.zeros(3), np.zeros((3, 4)), anchors, (60, 80), min_side=side)[1].tolist()
                for side in (np.array([20, 40]), 20, np.array([1, 40]), 41)]
        assert kept == [[0], [0, 1], [0, 2], []]

    def test_limits(self):
        corner = np.arange(6)[:, None] * [30.0, 0]
        anchors = np.concatenate([corner, corner + 20], axis=1)
        anchors = np.concatenate([anchors[:1], anchors])  # the best there twice
        scores = np.arange(7, 0, -1)
        for before, after, expected in ((0, 300, [0, 2, 3, 4, 5, 6]), (4, 300, [0, 2, 3]), (0, 2, [0, 2]), (1, 1, [0])):
            limits = ProposalSettings(before_nms=before, after_nms=after)
            kept = filter_proposals(scores, np.zeros((7, 4)), anchors, (60, 200), min_side=1, settings=limits)[1]
            assert kept.tolist() == expected

    def test_nms_threshold(self):
        anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 7], [0, 0, 10, 6.9]], float)
        for threshold, expected in ((0.7, [0, 1]), (0.69, [0]), (1.0, [0, 1, 2])):
            limits = ProposalSettings(nms_threshold=threshold)
            kept = filter_proposals([3, 2, 1], np.zeros((3, 4)), anchors, (60, 80), min_side=1, settings=limits)[1]
            assert kept.tolist() == expected

    def test_small_ones_do_not_take_the_places_of_others(self):
        """The limit before suppression is of those that are large enough, as in the release."""
        anchors = np.array([[0, 0, 4, 4], [0, 20, 20, 40], [30, 0, 50, 20]], float)
        limits = ProposalSettings(before_nms=1)
        assert filter_proposals([3, 2, 1], np.zeros((3, 4)), anchors, (60, 80), min_side=16, settings=limits)[1].tolist() == [1]

    def test_equal_scores_keep_the_anchors_order(self):
        anchors = np.array([[x, 0, x + 10, 10] for x in range(0, 400, 20)], float)
        settings = ProposalSettings(after_nms=7)
        kept = filter_proposals(np.ones(20), np.zeros((20, 4)), anchors, (60, 400), min_side=1, settings=settings)[1]
        assert kept.tolist() == list(range(7))

    @pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
    def test_wild_deltas_make_boxes_inside_the_image(self, scale):
        rng = np.random.default_rng(0)
        anchors = grid_anchors(generate_anchors(), 4, 5, 16)
        deltas = rng.normal(scale=scale, size=(len(anchors), 4)).astype(np.float32)
        with np.errstate(over="ignore"):
            boxes, _ = filter_proposals(rng.normal(size=len(anchors)), deltas, anchors, (60, 80), min_side=1)
        assert np.isfinite(boxes).all()
        assert boxes.min(initial=0) >= 0
        assert (boxes <= [80, 60, 80, 60]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()

    def test_growth_has_a_limit(self):
        anchors = np.array([[1000.0, 1000, 1016, 1032]])
        boxes, _ = filter_proposals([1.0], [[0, 0, 1e4, 1e4]], anchors, (5000, 5000), min_side=1)
        assert pytest.approx([1000, 2000], rel=1e-5) == (boxes[0, 2:] - boxes[0, :2]).tolist()
        assert LARGEST_GROWTH == 62.5

    def test_none(self):
        boxes, kept = filter_proposals(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 4)), (60, 80), min_side=16)
        assert (boxes.shape, kept.shape) == ((0, 4), (0,))

    # a share within rounding of the threshold may go either way
    @settings(max_examples=examples(40), deadline=None, derandomize=True)
    @given(st.integers(0, 10**6))
    def test_are_those_of_a_slow_version(self, seed):
        rng = np.random.default_rng(seed)
        anchors = grid_anchors(np.array([[-8, -8, 24, 24], [0, -8, 16, 24]], float), 3, 4, 16)
        deltas = rng.normal(scale=0.6, size=(len(anchors), 4)).astype(np.float32)
        scores = rng.integers(0, 8, len(anchors)).astype(np.float32)  # with ties
        limits = ProposalSettings(int(rng.integers(0, 15)), int(rng.integers(1, 12)), float(rng.uniform(0.2, 0.8)))
        boxes, kept = filter_proposals(scores, deltas, anchors, (48, 64), min_side=12.0, settings=limits)
        moved = []
        for (x1, y1, x2, y2), (dx, dy, dw, dh) in zip(anchors.tolist(), deltas.tolist()):
            x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
            width, height = (x2 - x1) * math.exp(dw), (y2 - y1) * math.exp(dh)
            moved.append([
                max(0, min(64, x - width / 2)), max(0, min(48, y - height / 2)),
                max(0, min(64, x + width / 2)), max(0, min(48, y + height / 2)),
            ])
        large = [row for row, (x1, y1, x2, y2) in enumerate(moved) if x2 - x1 >= 12 and y2 - y1 >= 12]
        large = sorted(large, key=lambda row: -scores[row])[: limits.before_nms or len(moved)]
        expected = []
        for row in large:
            shares = box_algebra.iou(np.array([moved[row]]), np.array([moved[earlier] for earlier in expected]).reshape(-1, 4))
            if not (shares > limits.nms_threshold).any():
                expected.append(row)
        assert kept.tolist() == expected[: limits.after_nms]
        np.testing.assert_allclose(boxes, np.array(moved)[kept].reshape(-1, 4), atol=1e-4)


class TestRegions:
    def propose(self, scaling, std=0.5, **settings):
        rpn, values = make_rpn(std, scales=(1.0, 2.0)), make_map()
        with torch.no_grad():
            outputs = rpn(values)
        return rpn, outputs, propose_regions(rpn, outputs, (ROWS, COLUMNS), scaling, ProposalSettings(**settings))

    def test_are_filtered_in_the_scaled_image_and_brought_back(self):
        """The sides scale by 2 and by 1.5."""
        scaling = Scaling((64, 96), (2.0, 1.5))
        rpn, (scores, deltas), proposals = self.propose(scaling, after_nms=10, min_side=9.0)
        boxes, _ = filter_proposals(
            scores.numpy(), deltas.numpy(), rpn.anchors(ROWS, COLUMNS), (64, 96), min_side=np.array([18, 13.5]),
            settings=ProposalSettings(after_nms=10),
        )
        np.testing.assert_allclose(proposals, boxes / [2, 1.5, 2, 1.5], rtol=1e-6)
        assert proposals.dtype == np.float32
        assert len(proposals) > 3
        assert (proposals[:, 2:] - proposals[:, :2]).min() >= 9 - 1e-4

    def test_end_at_the_image(self):
        for height, width in ((37, 53), (61, 47), (59, 99)):
            scaling = Scaling.of(height, width, 64, 96)
            _, _, proposals = self.propose(scaling, std=0.8, after_nms=1000, min_side=1.0)
            assert len(proposals) > 3
            assert (proposals.min(axis=0)[:2] == 0).all()
            np.testing.assert_allclose(proposals.max(axis=0)[2:], [width, height], rtol=1e-6)

    def test_take_any_precision(self):
        rpn, (scores, deltas), _ = self.propose(Scaling((64, 96), (1.0, 1.0)))
        outputs = scores.bfloat16(), deltas.bfloat16()
        proposals = propose_regions(rpn, outputs, (ROWS, COLUMNS), Scaling((64, 96), (1.0, 1.0)), ProposalSettings())
        assert proposals.dtype == np.float32

    def test_no_gradient_flows_through_them(self):
        rpn, values = make_rpn(scales=(1.0, 2.0)), make_map()
        proposals = propose_regions(rpn, rpn(values), (ROWS, COLUMNS), Scaling((64, 96), (1.0, 1.0)), ProposalSettings())
        assert isinstance(proposals, np.ndarray)
