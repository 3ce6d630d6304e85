"""DeconvNet's way: crops that lie on their labels, the object that is left alone, and scores that are joined over boxes."""

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_inputs import ImageDraw
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.segmentation import boxes as module
from pipeline.segmentation.boxes import OBJECTS, PROPOSALS, BoxExamples, BoxSegmenter, BoxSettings, alone, crop_labels, window_of
from pipeline.segmentation.layout import Layout
from pipeline.segmentation.segment import ImageSegmenter
from pipeline.segmentation.training import SegmenterSettings, train_segmenter

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
VIEW = make_backbone("tiny").view


def after_background(label):
    return label + 1


def examples(labelled, stage, side=32, proposals=None):
    records, pixels, maps = labelled
    return BoxExamples(
        records, lambda record: pixels[int(record.id)], lambda record: maps[int(record.id)],
        boxes=BoxSettings(stage, side, after_background, proposals), view=VIEW, seed=3, images_a_step=1, mirror=True, light=False,
    )


def brightness(example):
    """The grey levels that an example's pixels were made from."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (VIEW.norm.mean, VIEW.norm.std))
    return (example.pixels[0] * std + mean)[0]


class TestWindows:
    def test_by_hand(self):
        """10 x 20 pixels around (15, 30), 1.2 times as large: 12 x 24; cut at the image's edges."""
        box = np.array([10.0, 20, 20, 40])
        assert window_of(box, (100, 100), 1.2) == (9, 18, 21, 42)
        assert window_of(box, (41, 19), 1.2) == (9, 18, 19, 41)

    def test_one_pixel_at_least(self):
        assert window_of(np.array([50.0, 50, 50, 50]), (40, 40)) == (39, 39, 40, 40)

    def test_labels_are_resized_by_nearest_pixels(self):
        labels = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
        assert crop_labels(labels, (1, 0, 3, 2), 4).tolist() == [[2, 2, 3, 3]] * 2 + [[5, 5, 6, 6]] * 2
        assert crop_labels(labels, (0, 0, 3, 2), 1).tolist() == [[5]]

    def test_the_object_is_left_alone(self):
        labels = np.array([[1, 1, 2, 1], [1, 255, 2, 1]], np.uint8)
        assert alone(labels, np.array([0, 0, 3, 2]), 1).tolist() == [[1, 1, 0, 0], [1, 255, 0, 0]]


class TestExamples:
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_labels_lie_on_pixels(self, labelled, mirrored):
        """Bright pixels are of class 1 and dark ones of class 2, but for the edges between them."""
        source = examples(labelled, PROPOSALS, proposals=lambda record: record.boxes[record.counted])
        for place in range(20):
            example = source.example(ImageDraw(0, mirrored, place))
            grey, classes = brightness(example), example.labels[0]
            known = (classes != 255) & ((grey > 245) | (grey < 8))
            wrong = ((grey > 245) != (classes == 1))[known]
            assert wrong.float().mean() < 0.06

    def test_an_object_stands_alone(self, labelled):
        source = examples(labelled, OBJECTS)
        for place in range(20):
            classes = set(source.example(ImageDraw(0, False, place)).labels.unique().tolist()) - {0, 255}
            assert len(classes) == 1

    def test_proposals_overlap_an_object_by_half(self, labelled):
        def proposals(record):
            x1, y1, x2, y2 = record.boxes[0]
            return np.array([[x1, y1, x2, y1 + 0.6 * (y2 - y1)], [x1, y1, x2, y1 + 0.3 * (y2 - y1)], [0, 0, 3, 3]])

        source = examples(labelled, PROPOSALS, proposals=proposals)
        assert len(source.rows) == len(labelled[0])
        assert {label for _, _, label in source.rows} == {1}

    def test_classes_come_equally_often(self, labelled):
        """Ten proposals of class 1 for each one of class 2."""
        source = examples(labelled, PROPOSALS, proposals=lambda record: record.boxes[[0] * 10 + [1]])
        drawn = [source.example(ImageDraw(0, False, place)).labels for place in range(60)]
        share = np.mean([(each == 1).sum() > (each == 2).sum() for each in drawn])
        assert 0.3 < share < 0.7

    def test_no_box_is_an_error(self, labelled):
        with pytest.raises(PipelineError, match="no training image has a box of stage 'proposals'"):
            examples(labelled, PROPOSALS, proposals=lambda record: np.zeros((0, 4)))

    def test_wrong_settings(self):
        with pytest.raises(PipelineError, match="stage 'third' is none of objects, proposals"):
            BoxSettings("third", 32, after_background)
        with pytest.raises(PipelineError, match="needs the proposals"):
            BoxSettings(PROPOSALS, 32, after_background)


class TestLabelMaps:
    def segmenter(self, scores_of):
        """A segmenter whose scores of box number n are `scores_of(n)`, and the list of its inputs."""
        model = train(None, steps=0)
        segmenter, seen = ImageSegmenter(model, CPU, "float32"), []

        def answer(values):
            seen.append(values)
            return scores_of(len(seen) - 1)

        segmenter.scores_of = answer
        return BoxSegmenter(segmenter, 8), seen

    def test_the_largest_score_over_boxes_wins(self):
        """Class 1 scores 2 in the first box and class 2 scores 3 in the second; outside there is background."""
        scores = torch.zeros(2, 1, 3, 8, 8)
        scores[0, 0, 1], scores[0, 0, 2], scores[1, 0, 2] = 2, -5, 3
        segmenter, _ = self.segmenter(lambda number: scores[number])
        labels = segmenter.segment(np.zeros((20, 30, 3), np.uint8), np.array([[0, 0, 10, 20], [5, 0, 20, 10]]))
        expected = np.zeros((20, 30), np.uint8)
        expected[:, :10], expected[:10, 5:20] = 1, 2
        assert np.array_equal(labels, expected)

    def test_small_boxes_and_those_after_the_first_are_left_out(self, monkeypatch):
        segmenter, seen = self.segmenter(lambda number: torch.ones(1, 3, 8, 8))
        segmenter.boxes = 3
        segmenter.segment(np.zeros((20, 30, 3), np.uint8), np.array([[0, 0, 3, 20], [0, 0, 4, 20], [0, 0, 9, 9], [0, 0, 20, 20]]))
        assert len(seen) == 2

    def test_no_box_is_background(self):
        segmenter, _ = self.segmenter(lambda number: None)
        assert not segmenter.segment(np.zeros((5, 6, 3), np.uint8), np.zeros((0, 4))).any()


def train(labelled, steps, stage=OBJECTS, first=None):
    torch.manual_seed(0)
    backbone, layout = make_backbone("tiny"), Layout("tiny", 3, "unpooling", "unpool")
    if labelled is None:
        from pipeline.segmentation.network import SegmentationNetwork

        return SegmentationNetwork(backbone, layout)
    records, pixels, maps = labelled
    boxes = BoxSettings(stage, 32, after_background, lambda record: record.boxes)
    model, losses = train_segmenter(
        backbone, layout, TrainingRun(Schedule(steps, 0.03, steps), 5, CPU), images=records,
        read=lambda record: pixels[int(record.id)], read_labels=lambda record: maps[int(record.id)],
        settings=SegmenterSettings(boxes=boxes, first=first),
    )
    assert np.isfinite(losses).all()
    return model, losses


def test_two_stages_learn(labelled):
    """A box shows an object half the time of each class: the loss falls from that of a guess, ln 3."""
    model, losses = train(labelled, 80)
    assert losses[-16:].mean() < 0.6 * np.log(3)
    model, losses = train(labelled, 10, PROPOSALS, {name: value.clone() for name, value in model.state_dict().items()})
    records, pixels, _ = labelled
    labels = BoxSegmenter(ImageSegmenter(model, CPU, "float32"), 32).segment(pixels[0], records[0].boxes)
    assert labels.shape == pixels[0].shape[:2]


def test_constants_are_the_papers():
    assert (module.ENLARGED, module.OVERLAP, module.BOXES, module.LEAST_SIDE * 224) == (1.2, 0.5, 50, 112)
