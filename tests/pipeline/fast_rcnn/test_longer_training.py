"""Training Fast R-CNN on hard examples, with boxes for all classes, at several scales; and going on from a finished one."""

import copy

import numpy as np
import pytest
import torch

from pipeline.fast_rcnn.hard_examples import hard_losses
from pipeline.fast_rcnn.network import FastRCNN, restore_fast_rcnn
from pipeline.fast_rcnn.sampling import match, target_statistics
from pipeline.networks.backbones import make_backbone
from pipeline.networks.continuing import Start
from pipeline.networks.validation import Validation
from tests.pipeline.fast_rcnn.test_training import fit, make_sampler, make_tiny, same_weights

pytestmark = pytest.mark.usefixtures("one_thread")
HARD = {"hard": True, "background_overlaps": (0.0, 0.5), "regions": 8}


class TestHardExamples:
    def test_all_regions_of_an_image_are_drawn(self, images):
        sampler = make_sampler(images[0], **HARD)
        for sample in sampler.draw(3):
            assert len(sample.labels) == 30 + len(images[0][0].boxes)  # the proposals and the ground truth
            assert len(np.unique(sample.labels)) == 3

    def test_losses_by_hand(self):
        """Three regions with class losses of log 2, log 4 and log 4/3; two are kept, of which one has a box 1 off in x."""
        log = np.log
        scores = torch.tensor([[0.0, 0.0], [log(3.0), 0.0], [log(3.0), 0.0]], dtype=torch.float64)
        labels, targets = torch.tensor([0, 1, 0]), torch.tensor([[0.0] * 4, [1.0, 0, 0, 0], [0.0] * 4]).double()
        asked = []

        def of_regions(rois):
            asked.append(rois.tolist())
            return scores[rois], torch.zeros(len(rois), 1, 4, dtype=torch.float64)

        losses = hard_losses(of_regions, np.arange(3), labels, targets, 2)
        assert asked == [[0, 1, 2], [0, 1]]
        np.testing.assert_allclose(losses, [(log(2) + log(4)) / 2, 0.5 / 2])
        np.testing.assert_allclose(
            hard_losses(of_regions, np.arange(3), labels, targets, 6), [(log(2) + log(4) + log(4 / 3)) / 3, 0.5 / 6], rtol=1e-6
        )

    def test_the_loss_of_a_step_is_that_of_the_hardest_of_each_image(self, images):
        """Of four regions of an image, and of all 32: the largest losses are above the mean."""
        _, hard = fit(images, 1, sampling=HARD)
        _, every = fit(images, 1, sampling={**HARD, "regions": 64})
        assert hard[0].sum() > every[0].sum() > 0


class TestBoxesForAllClasses:
    def test_targets_are_normalised_together(self, images):
        moves = [np.float32([2, 1, 2 + number, 1 + number**2 % 5]) for number in range(6)]
        matches = [match(image, image.boxes + move, 0.5) for image, move in zip(images[0], moves)]
        means, deviations, examples = target_statistics(matches, 2, False, agnostic=True)
        targets = np.concatenate([of_image.target[of_image.foreground] for of_image in matches])
        np.testing.assert_allclose(means, np.tile(targets.mean(axis=0), (2, 1)), rtol=1e-5)
        np.testing.assert_allclose(deviations, np.tile(targets.std(axis=0), (2, 1)), rtol=1e-4)
        assert examples.sum() == len(targets)

    def test_a_region_has_one_box(self, images):
        model, losses = fit(images, 8, sampling={"agnostic": True})
        assert model.deltas.weight.shape == (4, 256)
        assert losses[-3:].mean() < losses[:3].mean()
        _, deltas = model(torch.rand(5, 2048))
        assert deltas.shape == (5, 2, 4)
        assert torch.equal(deltas[:, 0], deltas[:, 1])
        restored = restore_fast_rcnn(model.state_dict(), "tiny", "Train/abc")
        assert same_weights(restored, model)


def test_unfold_is_the_inverse_of_fold():
    for agnostic in (False, True):
        model = FastRCNN(make_tiny(), 3, agnostic)
        means, deviations = np.random.default_rng(0).random((2, 3, 4)) + 0.5
        if agnostic:
            means, deviations = means[:1].repeat(3, 0), deviations[:1].repeat(3, 0)
        before = copy.deepcopy(model.state_dict())
        model.fold(means, deviations)
        assert not torch.allclose(model.deltas.weight, before["deltas.weight"])
        model.unfold(means, deviations)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("name", ["tiny", pytest.param("squeezenet1_0", marks=pytest.mark.exhaustive)])
def test_a_training_goes_on_with_the_function_that_was_learnt(images, name):
    """Without a step to make, folding undoes what unfolding and calibration did."""
    torch.manual_seed(0)
    model, _ = fit(images, 3, make_backbone(name))
    start = Start(3, {"network": copy.deepcopy(model.state_dict())}, "Train/abc")
    again, _ = fit(images, 3, make_backbone(name), start=start)
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-4, atol=1e-5)
    longer, losses = fit(images, 5, make_backbone(name), start=start)
    assert np.flatnonzero(losses[:, 0]).tolist() == [3, 4]
    assert not same_weights(longer, again)


def test_with_the_kept_state_it_ends_as_one_long_training(images, tmp_path):
    whole, losses = fit(images, 5, lr_step=4)
    short, _ = fit(images, 3, lr_step=4, keep=tmp_path / "state.safetensors")
    start = Start(3, {"network": copy.deepcopy(short.state_dict())}, "Train/abc", tmp_path / "state.safetensors")
    longer, longer_losses = fit(images, 5, lr_step=4, start=start)
    np.testing.assert_array_equal(longer_losses, losses)
    assert same_weights(longer, whole)


def test_what_is_validated_is_the_finished_network(images):
    networks = []
    validation = Validation(2, 0, lambda network: networks.append(network) or len(networks))
    model, _ = fit(images, 3, validation=validation)
    assert [done for done, _ in validation.scores] == [2, 3]
    assert not any(network.training for network in networks)
    assert same_weights(networks[1], model)
    assert not same_weights(networks[0], model)
    assert same_weights(fit(images, 3)[0], model)


def test_each_turn_of_an_image_has_one_of_the_scales(images):
    sampler = make_sampler(images[0], scales=(60, 90, 120))
    drawn = [sample.scale for step in range(30) for sample in sampler.draw(step)]
    assert set(drawn) == {60, 90, 120}
    assert drawn[8:10] == [sample.scale for sample in make_sampler(images[0], scales=(60, 90, 120)).draw(4)]
    assert {sample.scale for sample in make_sampler(images[0]).draw(0)} == {0}


