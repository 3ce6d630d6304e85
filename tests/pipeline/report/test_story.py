from types import SimpleNamespace

import numpy as np
import torch

from pipeline.detection.candidates import Limits
from pipeline.networks.backbones import IMAGENET, make_backbone
from pipeline.rcnn.box_regression import BoxRegressors
from pipeline.rcnn.detect import LinearModels
from pipeline.report.story import choose_image, segmentation_mode, segmentation_picture, tell_story, warped_crops

A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (40, 40, 50, 50)


def test_most_hits_then_fewest_false_alarms_then_the_first(make_record, make_matches):
    images = [make_record(name, [A, B], [0, 0]) for name in "wxyz"]
    hits = [(image, 0, 0.9, box) for image in (1, 2, 3) for box in (A, B)]
    false_alarms = [(image, 0, 0.9, FAR) for image in (1, 1, 2, 3)]
    unsure = [(2, 0, 0.1, FAR)]
    matches = make_matches(images, ("a",), [(0, 0, 0.9, A), *hits, *false_alarms, *unsure])
    assert choose_image(matches, np.array([0.5])) == 2
    assert choose_image(make_matches(images, ("a",), []), np.array([0.5])) == 0


def rows_of(features, boxes, gt_labels):
    return SimpleNamespace(
        features=np.array(features, np.float16).reshape(-1, 2), boxes=np.array(boxes, np.float32).reshape(-1, 4),
        gt_labels=np.array(gt_labels),
    )


def test_scores_and_moves(svms):
    """The ground-truth row takes no part; the regressors shift a box by its width of pixels (release: side - 1), then clip."""
    eyes, mu = np.tile(np.eye(4), (2, 1, 1)), np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    regressors = BoxRegressors(("a", "b"), mu, eyes, eyes, np.zeros((2, 3, 4)), 1.0, 1.0, np.zeros(2), np.zeros(2))
    rows = rows_of([[9, 9], [2, 1], [1, 3], [0, 0.5]], [FAR, (0, 0, 11, 11), B, FAR], [0, -1, -1, -1])
    story = tell_story(rows, rows.features, (60, 18), LinearModels(svms, regressors), Limits(), strip=2, best=9)
    assert [(region.label, region.score) for region in story.best] == [(1, 3), (0, 2), (1, 0.5)]
    assert story.best[1].box == (0, 0, 11, 11)
    assert story.best[1].moved == (10, 0, 18, 11)
    assert [region.score for region in story.strip] == [3, 0.5]
    assert len(story.candidates.score) == 6
    assert tell_story(rows, rows.features, (60, 80), LinearModels(svms, None), Limits(), strip=2, best=1).best[0].moved is None


def test_no_proposals(svms):
    rows = rows_of([[9, 9]], [FAR], [0])
    story = tell_story(rows, rows.features, (60, 80), LinearModels(svms, None), Limits(), strip=12, best=8)
    assert (len(story.proposals), story.strip, story.best, len(story.candidates.score)) == (0, [], [], 0)


def test_segmentation_has_the_colours_of_its_regions():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30], image[:, 30:] = (250, 0, 0), (0, 0, 250)
    picture = segmentation_picture(image, "fast")
    assert picture[5, 5].tolist() == [250, 0, 0]
    assert picture[5, 50].tolist() == [0, 0, 250]
    assert picture[5, 29].tolist() == [255, 255, 255]
    assert segmentation_picture(image, "fast", 30).shape == (20, 30, 3)
    assert [segmentation_mode(method) for method in ("single", "opencv")] == ["single", "balanced"]


def test_crops_are_what_the_network_sees():
    """Padding 16 of 227 is 5 of 64: on a box at the corner, as much is the mean colour; the rest is the image."""
    for name, mean in (("tiny", np.round(IMAGENET.mean)), ("efficientnet_lite0", np.full(3, 127))):
        with torch.device("meta"):
            backbone = make_backbone(name)
        (crop,) = warped_crops(np.full((40, 40, 3), 7, np.uint8), np.float32([[0, 0, 49, 49]]), backbone, 16)
        assert (crop.dtype, crop.shape) == (np.uint8, (backbone.crop_size, backbone.crop_size, 3))
        assert crop[0, 0].tolist() == mean.tolist()
        assert crop[crop.shape[0] // 2, crop.shape[0] // 2].tolist() == [7, 7, 7]
