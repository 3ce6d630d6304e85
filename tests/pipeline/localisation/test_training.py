"""Training the localiser: it learns, keeps frozen what is to be kept, and runs that are killed go on to the same bytes."""

import numpy as np
import pytest
import torch

from pipeline.boxes import iou
from pipeline.errors import PipelineError
from pipeline.localisation.localise import ImageLocaliser, Predictions, windows_around
from pipeline.localisation.network import Layout
from pipeline.localisation.training import HeadSettings, train_localiser
from pipeline.localisation.windows import WindowSampler, target_fractions
from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.whole_images import mirror_boxes

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
CLASSES = ("bright", "dark")
LAYOUT = Layout("tiny", 2, 64)


class Killed(Exception):
    """Stands for a killed process."""


def fit(images, steps=3, checkpoint=None, log=None, layout=LAYOUT, learning_rate=0.01, **settings):
    records, pixels = images

    def read(record):
        return pixels[int(record.id)]

    torch.manual_seed(0)
    sampler = WindowSampler(records, CLASSES, 3, batch_size=8, mirror=True, smallest=0.5, light=False)
    run = TrainingRun(Schedule(steps, learning_rate, steps), 5, CPU, checkpoint=checkpoint, log=log)
    backbone = make_backbone("tiny")
    return train_localiser(backbone, layout, run, sampler=sampler, read=read, settings=HeadSettings(**settings))


class Fixed(torch.nn.Module):
    """In every window the first class is in the middle, half as wide and high, the second above it and wider."""

    layout, backbone = LAYOUT, make_backbone("tiny")

    def forward(self, inputs):
        boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.125, 0, 0.875, 0.5]])
        return torch.zeros(len(inputs), 2), boxes.expand(len(inputs), 2, 4)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_it_learns_classes_and_boxes(images):
    """After a short training both losses have fallen, and most boxes are nearer to a square than the mean box is."""
    records, pixels = images
    model, losses = fit(images, steps=150, learning_rate=0.004)
    assert losses.shape == (150, 2)
    first, last = losses[:10].mean(axis=0), losses[-30:].mean(axis=0)
    assert last[0] < 0.6 * first[0]
    assert last[1] < 0.7 * first[1]
    localiser, mean_box = ImageLocaliser(model, CPU, "float32"), target_fractions(records).mean(axis=0) * [80, 60, 80, 60]
    nearer = [iou(localiser.predict(image).boxes[0, :1], record.boxes).max() > iou(mean_box, record.boxes).max()
              for record, image in zip(records, pixels)]
    assert sum(nearer) >= 3


class TestWhatIsTrained:
    def changed(self, images, trained):
        torch.manual_seed(0)
        before, after = make_backbone("tiny").state_dict(), fit(images, trained=trained)[0].backbone.state_dict()
        return {name for name in before if not torch.equal(before[name], after[name])}

    def test_heads_alone(self, images):
        assert not self.changed(images, "heads")

    def test_all_but_the_frozen_layers(self, images):
        changed = self.changed(images, "all")
        assert {"trunk.3.weight", "trunk.11.weight", "fc.fc6.weight"} <= changed
        assert not {"trunk.0.weight", "trunk.0.bias"} & changed

    def test_the_heads_learn_faster_by_their_rate(self, images):
        still = fit(images, steps=1, learning_rate=0.0)[0].scores.weight
        moved = [(fit(images, steps=1, learning_rate=1e-4, **settings)[0].scores.weight - still).norm().item()
                 for settings in ({}, {"rate": 5.0})]
        assert moved[1] / moved[0] == pytest.approx(5, rel=0.02)


class TestClassifier:
    def test_a_softmax_head_is_kept(self, images):
        given = {"weight": torch.full((2, 256), 0.25), "bias": torch.tensor([1.0, -1])}
        model, _ = fit(images, steps=1, learning_rate=0.0, classifier=given)
        assert torch.equal(model.scores.weight, given["weight"])
        assert torch.equal(model.scores.bias, given["bias"])
        assert torch.equal(model.feature_scale, torch.ones(256))

    def test_one_of_other_classes_is_told(self, images):
        with pytest.raises(PipelineError, match="first weights' classifier: not the weights"):
            fit(images, classifier={"weight": torch.zeros(3, 256), "bias": torch.zeros(3)})


class TestResume:
    def test_a_killed_training_goes_on_to_the_same_bytes(self, images, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        expected, losses = fit(images, steps=6)

        def kill(step, values):
            if step == 4:
                raise Killed

        with pytest.raises(Killed):
            fit(images, steps=6, checkpoint=tmp_path, log=kill)
        assert (tmp_path / "checkpoint.safetensors").is_file()
        model, again = fit(images, steps=6, checkpoint=tmp_path)
        assert (again == losses).all()
        assert all(torch.equal(value, weights(expected)[name]) for name, value in weights(model).items())


class TestLocalise:
    def test_boxes_are_pixels_inside_the_image(self, images):
        model, _ = fit(images, layout=Layout("tiny", 2, 64, "specific"))
        prediction = ImageLocaliser(model, CPU, "float32").predict(images[1][0])
        assert (prediction.scores.shape, prediction.boxes.shape) == ((1, 2), (1, 2, 4))
        assert prediction.scores.sum() == pytest.approx(1)
        assert (prediction.boxes >= 0).all()
        assert (prediction.boxes <= [80, 60, 80, 60]).all()

    def test_mirrored_too_an_image_and_its_mirror_image_have_the_same_predictions(self, images):
        model, _ = fit(images, layout=Layout("tiny", 2, 64, "specific"))
        plain, both = (ImageLocaliser(model, CPU, "float32", mirror=mirror) for mirror in (False, True))
        pixels = images[1][0]
        seen, of_mirror = (both.predict(view) for view in (pixels, np.ascontiguousarray(pixels[:, ::-1])))
        np.testing.assert_allclose(seen.scores, of_mirror.scores, rtol=1e-4)
        np.testing.assert_allclose(seen.boxes[0], mirror_boxes(of_mirror.boxes[0], 80), atol=0.01)
        views = plain.predict(pixels).scores, plain.predict(np.ascontiguousarray(pixels[:, ::-1])).scores
        np.testing.assert_allclose(seen.scores, sum(views) / 2, rtol=1e-4)
        assert not np.allclose(*views, rtol=1e-3), "else the test would say nothing"

    @pytest.mark.parametrize("mirror", [False, True])
    def test_further_looks_are_at_windows_around_the_boxes(self, mirror):
        """By hand: of 80 x 40 pixels the first class's box lies in the middle, and its window is the whole image again."""
        localisers = [ImageLocaliser(Fixed(), CPU, "float32", mirror=mirror, looks=looks) for looks in (1, 2, 3)]
        predictions = [localiser.predict(np.zeros((40, 80, 3), np.uint8)) for localiser in localisers]
        second = (10, 0, 70, 20), (10, 0, 70, 15), (10, 0, 70, 11.5)
        for prediction, box in zip(predictions, second, strict=True):
            np.testing.assert_allclose(prediction.boxes, [[(20, 10, 60, 30), box]], atol=1e-4)
            np.testing.assert_allclose(prediction.scores, predictions[0].scores)

    def test_windows_around_boxes_hold_some_pixels_and_are_inside(self):
        boxes = np.array([[10, 10, 12, 12], [0, 0, 0, 0], [80, 40, 100, 50], [30, 20, 10, 0]], np.float32)
        expected = [3, 3, 19, 19], [0, 0, 8, 8], [70, 35, 100, 50], [12, 2, 28, 18]
        np.testing.assert_array_equal(windows_around(boxes, 50, 100), expected)

    def test_predictions_are_saved_and_joined(self, images, tmp_path):
        model, _ = fit(images)
        localiser = ImageLocaliser(model, CPU, "float32")
        whole = Predictions.join([localiser.predict(image) for image in images[1]])
        whole.save(tmp_path / "predictions.npz")
        again = Predictions.load(tmp_path / "predictions.npz")
        assert (again.scores == whole.scores).all()
        assert (again.boxes == whole.boxes).all()
        assert again.boxes.shape == (6, 2, 4)
