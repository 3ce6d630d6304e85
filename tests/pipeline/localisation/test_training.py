"""Training the localiser: it learns, keeps frozen what is to be kept, and runs that are killed go on to the same bytes."""

import pytest
import torch

from pipeline.localisation.localise import ImageLocaliser, Predictions
from pipeline.localisation.network import Layout
from pipeline.localisation.training import HeadSettings, train_localiser
from pipeline.localisation.windows import WindowSampler
from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.training import Schedule, TrainingRun

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


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_both_losses_fall(images):
    _, losses = fit(images, steps=60, learning_rate=0.01)
    assert losses.shape == (60, 2)
    assert (losses[-10:].mean(axis=0) < 0.7 * losses[:5].mean(axis=0)).all()


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
        found = ImageLocaliser(model, CPU, "float32").predict(images[1][0])
        assert (found.scores.shape, found.boxes.shape) == ((1, 2), (1, 2, 4))
        assert found.scores.sum() == pytest.approx(1)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [80, 60, 80, 60]).all()

    def test_it_finds_the_squares_that_it_was_trained_on(self, images):
        """After a short training the box of the mean is beaten on most of the training images."""
        records, pixels = images
        model, _ = fit(images, steps=150)
        localiser = ImageLocaliser(model, CPU, "float32")
        right = 0
        for record, image in zip(records, pixels):
            found = localiser.predict(image)
            x1, y1, x2, y2 = found.boxes[0, 0]
            gaps = [abs(record.boxes[label] - [x1, y1, x2, y2]).max() for label in range(2)]
            right += min(gaps) < 12
        assert right >= 4

    def test_predictions_are_saved_and_joined(self, images, tmp_path):
        model, _ = fit(images)
        localiser = ImageLocaliser(model, CPU, "float32")
        whole = Predictions.join([localiser.predict(image) for image in images[1]])
        whole.save(tmp_path / "predictions.npz")
        again = Predictions.load(tmp_path / "predictions.npz")
        assert (again.scores == whole.scores).all()
        assert (again.boxes == whole.boxes).all()
        assert again.boxes.shape == (6, 1, 4)
