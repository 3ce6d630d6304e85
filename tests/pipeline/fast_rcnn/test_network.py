"""Fast R-CNN's network: losses by hand, folded and compressed layers, and detections against a slow version."""

import copy
import math

import numpy as np
import pytest
import torch
import torchvision

from pipeline import boxes as box_algebra
from pipeline.detection.candidates import Limits, top_scoring
from pipeline.errors import PipelineError
from pipeline.fast_rcnn.detect import FastRCNNDetector, SeenMap, move_boxes
from pipeline.fast_rcnn.hard_examples import region_losses
from pipeline.fast_rcnn.losses import fast_rcnn_loss
from pipeline.fast_rcnn.network import FastRCNN, compress
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import for_inference
from pipeline.networks.whole_images import Scaling, conv_map, rois_of

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HEIGHT, WIDTH = 96, 128
NUM_CLASSES = 2


def make_model(backbone="tiny", seed=0, std=1.0):
    """A network whose outputs are not near 0."""
    torch.manual_seed(seed)
    model = FastRCNN(make_backbone(backbone), NUM_CLASSES)
    for layer in (model.scores, model.deltas):
        torch.nn.init.normal_(layer.weight, std=std / math.sqrt(layer.in_features))
        torch.nn.init.normal_(layer.bias, std=0.1)
    return model.eval()


def make_pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def make_proposals(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, (WIDTH - 20, HEIGHT - 20), (count, 2))
    return np.hstack([corner, np.minimum(corner + rng.uniform(12, 90, (count, 2)), (WIDTH, HEIGHT))]).astype(np.float32)


def make_detector(model, **settings):
    return FastRCNNDetector(for_inference(copy.deepcopy(model), CPU, "float32"), CPU, 96, 1000, Limits(**settings))


class TestLoss:
    def test_by_hand(self):
        scores = torch.tensor([[0.0, math.log(2), 0.0], [math.log(3), 0.0, 0.0], [0.0, 0.0, 0.0]])
        labels = torch.tensor([1, 0, 2])  # probabilities 2/4, 3/5, 1/3
        deltas = torch.zeros(3, 2, 4)
        deltas[0, 0] = torch.tensor([0.5, -3.0, 0.0, 1.0])  # against 0: 0.125 + 2.5 + 0 + 0.5
        deltas[2, 1] = torch.tensor([2.0, 2.0, 2.0, 2.0])
        targets = torch.zeros(3, 4)
        targets[2] = torch.tensor([2.0, 2.0, 1.8, 4.0])  # 0 + 0 + 0.02 + 1.5
        losses = fast_rcnn_loss(scores, deltas, labels, targets)
        assert losses.tolist() == pytest.approx([math.log(2) + math.log(5 / 3) + math.log(3), 3.125 + 1.52])

    def test_weights_of_classes_multiply_the_log_loss_alone(self):
        scores, labels = torch.tensor([[0.0, math.log(2), 0.0], [0.0, 0.0, 0.0]]), torch.tensor([1, 0])
        deltas, targets = torch.zeros(2, 2, 4), torch.full((2, 4), 2.0)
        losses = fast_rcnn_loss(scores, deltas, labels, targets, torch.tensor([0.5, 3.0, 7.0]))
        assert losses.tolist() == pytest.approx([3 * math.log(2) + 0.5 * math.log(3), 4 * 1.5])
        both = region_losses(scores, deltas, labels, targets, torch.tensor([0.5, 3.0, 7.0]))
        assert both.tolist() == pytest.approx([3 * math.log(2) + 4 * 1.5, 0.5 * math.log(3)])

    def test_boxes_of_other_classes_and_of_the_background_do_not_count(self):
        scores, labels, targets = torch.zeros(2, 3), torch.tensor([0, 2]), torch.ones(2, 4)
        deltas = torch.full((2, 2, 4), 7.0)
        deltas[1, 1] = 1.0
        assert fast_rcnn_loss(scores, deltas, labels, targets)[1] == 0

    def test_without_foreground_the_box_loss_is_zero_and_has_a_gradient(self):
        scores, deltas = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 2, 4, requires_grad=True)
        fast_rcnn_loss(scores, deltas, torch.zeros(2, dtype=torch.int64), torch.ones(2, 4)).sum().backward()
        assert deltas.grad.abs().sum() == 0
        assert scores.grad.abs().sum() > 0


class TestFold:
    @pytest.mark.parametrize("backbone", ["tiny", "squeezenet1_0"])
    def test_plain_deltas_are_the_normalised_ones_times_deviation_plus_mean(self, backbone):
        model, rng = make_model(backbone), np.random.default_rng(0)
        pool5 = torch.rand(5, model.backbone.sizes["pool5"]) * 30
        model.calibrate(pool5)
        means, deviations = rng.normal(size=(NUM_CLASSES, 4)), rng.uniform(0.1, 0.3, (NUM_CLASSES, 4))
        with torch.no_grad():
            scores, deltas = model(pool5)
            model.fold(means, deviations)
            folded_scores, folded_deltas = model(pool5)
        expected = deltas.numpy() * deviations + means
        np.testing.assert_allclose(folded_scores, scores, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(folded_deltas, expected, rtol=1e-3, atol=1e-4)


class TestCompress:
    def test_of_full_rank_changes_nothing(self):
        model, pool5 = make_model(), torch.rand(4, 2048)
        before = model(pool5)
        compress(model, {"fc6": 256})
        for output, expected in zip(model(pool5), before, strict=True):
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)

    def test_is_the_truncated_svd(self):
        model, pool5 = make_model(), torch.rand(4, 2048)
        layer = model.backbone.fc["fc6"]
        left, values, right = np.linalg.svd(layer.weight.detach().numpy().astype(np.float64), full_matrices=False)
        expected = pool5.numpy() @ (left[:, :5] * values[:5] @ right[:5]).T + layer.bias.detach().numpy()
        compress(model, {"fc6": 5})
        np.testing.assert_allclose(model.eval().backbone.fc["fc6"](pool5).detach(), np.maximum(expected, 0), rtol=1e-4, atol=1e-4)
        assert sum(value.numel() for value in model.backbone.fc.parameters()) == 5 * 2048 + 256 * 5 + 256

    def test_shapes_alone_take_the_weights_of_a_compressed_network(self):
        model, restored = make_model(), make_model(seed=1)
        compress(model, {"fc6": 7})
        compress(restored, {"fc6": 7}, decompose=False)
        restored.load_state_dict(model.state_dict())
        pool5 = torch.rand(3, 2048)
        torch.testing.assert_close(restored(pool5), model(pool5), rtol=0, atol=0)

    def test_refuses_a_rank_above_the_layers_own_and_a_layer_that_is_not_there(self):
        with pytest.raises(PipelineError, match=r"rank 257 for fc6: the layer is \(256, 2048\); give 256 at most"):
            compress(make_model(), {"fc6": 257})
        with pytest.raises(PipelineError, match="backbone tiny has no layer 'fc7'"):
            compress(make_model(), {"fc7": 3})


class TestBoxesFromTheLastMap:
    """EfficientNet-Lite0's head is small, so boxes are linear in its last map: 320 channels of 4 x 4 cells."""

    def make(self):
        model = make_model("efficientnet_lite0")
        return model, torch.randn(6, model.backbone.sizes["pool5"], generator=torch.Generator().manual_seed(1))

    def test_boxes_know_left_from_right_and_scores_do_not(self):
        model, _ = self.make()
        assert model.deltas.in_features == 320 * 4 * 4
        maps = torch.randn(1, 320, 4, 4)
        head = model.backbone.region_head
        head.convolve = lambda rows: maps if rows.sum() > 0 else maps.flip(3)
        scores, deltas = model(torch.ones(1, head.channels * head.grid**2))
        mirrored_scores, mirrored_deltas = model(-torch.ones(1, head.channels * head.grid**2))
        assert torch.allclose(scores, mirrored_scores, atol=1e-5)
        assert (deltas - mirrored_deltas).abs().max() > 0.1

    def test_of_a_resnet_both_are_linear_in_the_mean(self):
        model = make_model("resnet18")
        assert model.deltas.in_features == model.scores.in_features == 512
        assert not model.is_calibrated

    def test_what_both_layers_see_is_standardised(self):
        model, pool5 = self.make()
        model.calibrate(pool5)
        features, maps = model.backbone.region_head.with_map(pool5)
        of_channels = model.delta_standard(maps).unflatten(1, (320, 16))
        assert model.score_standard(features).mean(0).abs().max() < 1e-4
        assert of_channels.mean((0, 2)).abs().max() < 1e-4
        assert of_channels.std((0, 2)).max() <= 20 / (320 * 16) ** 0.5

    def test_folded_it_is_the_same_function(self):
        model, pool5 = self.make()
        model.calibrate(pool5)
        before = model(pool5)
        model.fold(np.zeros((NUM_CLASSES, 4)), np.ones((NUM_CLASSES, 4)))
        assert model.score_standard is None
        for values, folded in zip(before, model(pool5), strict=True):
            assert torch.allclose(values, folded, rtol=1e-4, atol=1e-4)

    def test_a_training_that_goes_on_begins_with_the_same_function(self):
        model, pool5 = self.make()
        model.calibrate(pool5)
        normalisation = np.full((NUM_CLASSES, 4), 0.5), np.full((NUM_CLASSES, 4), 2.0)
        before = model(pool5)
        model.fold(*normalisation)
        model.unfold(*normalisation)
        model.calibrate(pool5)
        for values, again in zip(before, model(pool5), strict=True):
            assert torch.allclose(values, again, rtol=1e-4, atol=1e-4)

    def test_many_regions_are_as_few(self):
        """Without gradients regions go through in parts."""
        model, pool5 = self.make()
        rows = pool5.repeat(12, 1)
        with torch.no_grad():
            many = model(rows)
        for values, few in zip(many, model(pool5), strict=True):
            assert torch.allclose(values[-6:], few, atol=1e-5)


def test_scores_of_a_network_in_bfloat16_are_distinct():
    model = for_inference(make_model(), CPU, "bfloat16")
    pool5 = torch.randn(600, model.backbone.sizes["pool5"]).relu().bfloat16()
    with torch.inference_mode():
        scores, deltas = model(pool5)
    assert (scores.dtype, deltas.dtype) == (torch.float32, torch.bfloat16)
    assert all(len(column.unique()) > 0.98 * len(column) for column in scores.T)
    assert all(len(column.bfloat16().unique()) < 0.9 * len(column) for column in scores.T)


class TestDetector:
    def test_equals_a_slow_version(self):
        """Each region alone, through torchvision's pooling; the sides scale by 3/4."""
        model, pixels, proposals = make_model(std=4.0), make_pixels(), make_proposals(12)
        detector = FastRCNNDetector(for_inference(copy.deepcopy(model), CPU, "float32"), CPU, 72, 1000)
        candidates = detector.detect(pixels, proposals)
        scaling = Scaling((72, 96), (0.75, 0.75))
        scores, boxes = [], []
        with torch.no_grad():
            values = conv_map(model.backbone, pixels, scaling, CPU)
            for box in proposals:
                corners = torch.tensor([[0, *(box[:2] * 0.75), *((box[2:] - 1) * 0.75)]], dtype=torch.float32)
                pool5 = torchvision.ops.roi_pool(values[None].contiguous(), corners, 4, 1 / 16).flatten(1)
                score, delta = model(pool5)
                exponents = np.exp(score[0].numpy().astype(np.float64))
                scores.append(exponents[1:] / exponents.sum())
                boxes.append([box_algebra.decode(box[None], delta[0, label].numpy()[None])[0] for label in range(NUM_CLASSES)])
        boxes = np.clip(np.array(boxes), 0, np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]))
        expected = top_scoring(np.array(scores), boxes)
        np.testing.assert_array_equal(candidates.class_index, expected.class_index)
        np.testing.assert_allclose(candidates.score, expected.score, rtol=1e-4)
        np.testing.assert_allclose(candidates.boxes, expected.boxes, rtol=1e-3, atol=1e-2)
        np.testing.assert_array_equal(candidates.survives, expected.survives)

    def test_of_regions_that_pool_the_same_the_first_stays(self):
        detector, pixels = make_detector(make_model(), nms_threshold=1.0), make_pixels()
        proposals = np.float32([[0, 0, 64, 64], [30, 20, 100, 90], [1, 1, 65, 65]])
        candidates, alone = detector.detect(pixels, proposals), detector.detect(pixels, proposals[:2])
        assert len(candidates.score) == 2 * NUM_CLASSES
        np.testing.assert_array_equal(candidates.boxes, alone.boxes)

    def test_of_regions_that_roi_align_pools_equal_ones_alone_are_one(self):
        detector, pixels = make_detector(make_model(backbone="tiny+align"), nms_threshold=1.0), make_pixels()
        proposals = np.float32([[0, 0, 64, 64], [30, 20, 100, 90], [1, 1, 65, 65], [0, 0, 64, 64]])
        assert len(detector.detect(pixels, proposals).score) == 3 * NUM_CLASSES

    def test_the_way_over_the_map_is_the_same(self):
        detector, pixels, proposals = make_detector(make_model()), make_pixels(), make_proposals(9)
        scaling = Scaling.of(HEIGHT, WIDTH, 96, 1000)
        with torch.inference_mode():
            values = conv_map(detector.model.backbone, pixels, scaling, CPU)
            candidates = detector.detect_in_maps([SeenMap(values, scaling)], proposals, HEIGHT, WIDTH)
        expected = detector.detect(pixels, proposals)
        for name in ("class_index", "score", "boxes", "survives"):
            np.testing.assert_array_equal(getattr(candidates, name), getattr(expected, name))

    def test_no_region(self):
        candidates = make_detector(make_model()).detect(make_pixels(), np.zeros((0, 4), np.float32))
        assert candidates.boxes.shape == (0, 4)
        assert len(candidates.score) == 0

    def test_boxes_end_at_the_image_even_where_regions_do_not(self):
        model = make_model()
        torch.nn.init.constant_(model.deltas.bias, 1.0)
        candidates = make_detector(model).detect(make_pixels(), np.float32([[-20, -20, WIDTH + 50, 40], [0, 0, WIDTH, HEIGHT]]))
        assert candidates.boxes.min() >= 0
        assert candidates.boxes[:, 2].max() == WIDTH
        assert candidates.boxes[:, 3].max() == HEIGHT

    def test_limits_reach_the_selection(self):
        candidates = make_detector(make_model(), max_per_image=3).detect(make_pixels(), make_proposals(30))
        assert np.bincount(candidates.class_index).tolist() == [3] * NUM_CLASSES


def test_move_boxes_decodes_class_by_class():
    boxes, deltas = np.float32([[0, 0, 10, 20], [5, 5, 15, 25]]), np.zeros((2, 2, 4), np.float32)
    deltas[0, 1] = [0.5, 0, math.log(2), 0]
    deltas[1, 0] = [0, -0.25, 0, 0]
    expected = [[[0, 0, 10, 20], [0, 0, 20, 20]], [[5, 0, 15, 20], [5, 5, 15, 25]]]
    np.testing.assert_allclose(move_boxes(boxes, deltas), expected, atol=1e-5)
    assert move_boxes(np.zeros((0, 4)), np.zeros((0, 3, 4))).shape == (0, 3, 4)


def test_roi_align_gets_the_places_of_the_cells():
    values, rois = torch.rand(128, 6, 8), np.float32([[16, 32, 80, 96], [3.5, 7, 60, 50]])
    pooled = make_model(backbone="tiny+align").pool(values, rois)
    theirs = torch.from_numpy(rois) + torch.tensor([-0.5, -0.5, 0.5, 0.5]) + 8
    expected = torchvision.ops.roi_align(values[None], [theirs], 4, 1 / 16, sampling_ratio=2, aligned=True)
    torch.testing.assert_close(pooled, expected.flatten(1))
    with torch.device("meta"):
        vgg = make_backbone("vgg16+align")
    values, theirs = torch.rand(2, 6, 8), theirs - 7.5  # whose cells look 7.5 pixels further
    expected = torchvision.ops.roi_align(values[None], [theirs], 7, 1 / 16, sampling_ratio=2, aligned=True)
    torch.testing.assert_close(vgg.roi_pool(values, rois), expected.flatten(1))


def test_rois_reach_the_pooling_at_a_sixteenth():
    model, values = make_model(), torch.rand(128, 6, 8)
    boxes = np.float32([[16, 32, 80, 96]])
    rois = rois_of(boxes, Scaling((HEIGHT, WIDTH), (1.0, 1.0)))
    expected = torchvision.ops.roi_pool(values[None], [torch.from_numpy(rois)], 4, 1 / 16).flatten(1)
    torch.testing.assert_close(model.pool(values, rois), expected, rtol=0, atol=0)
