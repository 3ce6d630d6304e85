"""The training loop: steps worked by hand."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks import training
from pipeline.networks.sgd import MOMENTUM, ParameterGroup, parameter_groups
from pipeline.networks.training import Schedule, loss_table
from tests.pipeline.networks.training_runs import SCHEDULE, STEPS, Killed, batches_from, bytes_of, fit, killed_at, make_model, run

pytestmark = pytest.mark.usefixtures("one_thread")

class TestSteps:
    def make(self):
        """One weight 2 and one bias 1; for the input 3 their gradients are 3 and 1."""
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, 2.0)
        nn.init.constant_(model.bias, 1.0)
        return model

    def step(self, model, groups, iterations=1, lr_step=100):
        batches = lambda first: iter([torch.tensor([[3.0]])] * iterations)  # noqa: E731
        losses = fit(model, Schedule(iterations, 0.1, lr_step), batches, lambda batch: [lambda: model(batch).sum()], groups)
        return losses, model.weight.item(), model.bias.item()

    def test_one_step_by_hand(self):
        """The bias learns at 0.2 and does not decay, the weight at 0.1 with a decay of 0.0005 x 2."""
        model = self.make()
        losses, weight, bias = self.step(model, parameter_groups(model))
        assert losses.dtype == np.float32
        assert losses.tolist() == [[7]]
        assert weight == pytest.approx(2 - 0.1 * (3 + 0.0005 * 2), rel=1e-6)
        assert bias == pytest.approx(1 - 0.2 * 1, rel=1e-6)

    @pytest.mark.parametrize(("clip", "shrunk"), [(1.0, 10**-0.5), (4.0, 1.0), (0.0, 1.0)])
    def test_large_gradients_are_scaled_down_together(self, clip, shrunk):
        """Gradients 3 and 1 have a norm of the root of 10, which is 3.2."""
        model = self.make()
        batches = lambda first: iter([torch.tensor([[3.0]])])  # noqa: E731
        losses_of = lambda batch: [lambda: model(batch).sum()]  # noqa: E731
        fit(model, Schedule(1, 0.1, 100, clip=clip), batches, losses_of, parameter_groups(model))
        assert model.weight.item() == pytest.approx(2 - 0.1 * (3 * shrunk + 0.0005 * 2), rel=1e-5)
        assert model.bias.item() == pytest.approx(1 - 0.2 * shrunk, rel=1e-5)

    def test_two_steps_by_hand(self):
        model = self.make()
        losses, weight, bias = self.step(model, parameter_groups(model), 2)
        first = 2 - 0.1 * 3.001
        assert losses[:, 0].tolist() == pytest.approx([7, 3 * first + 0.8])
        assert weight == pytest.approx(first - 0.1 * (MOMENTUM * 3.001 + 3 + 0.0005 * first), rel=1e-6)
        assert bias == pytest.approx(0.8 - 0.2 * (MOMENTUM * 1 + 1), rel=1e-6)

    def test_a_factor_multiplies_both_rates(self):
        model = self.make()
        _, weight, bias = self.step(model, parameter_groups(model, 10.0))
        assert weight == pytest.approx(2 - 1.0 * 3.001, rel=1e-6)
        assert bias == pytest.approx(1 - 2.0 * 1, rel=1e-6)

    def test_the_rate_falls_between_the_steps(self):
        model = self.make()
        self.step(model, parameter_groups(model), 2, lr_step=1)
        assert model.bias.item() == pytest.approx(0.8 - 0.02 * 1.9, rel=1e-6)

    def test_parts_of_the_loss_add_up(self):
        """Inputs 2 and 1 one after another: gradients 2 + 1 and 1 + 1."""
        model = self.make()
        parts = lambda batch: [partial(lambda value: model(value).sum(), value) for value in torch.tensor([[2.0], [1.0]])]  # noqa: E731
        losses = fit(model, Schedule(1, 0.1, 1), lambda first: [None], parts)
        assert losses.tolist() == [[8]]  # (2 x 2 + 1) + (2 x 1 + 1)
        assert model.weight.item() == pytest.approx(2 - 0.1 * (3 + 0.0005 * 2))
        assert model.bias.item() == pytest.approx(1 - 0.2 * 2)

    def test_frozen_values_stay(self):
        model = nn.Sequential(self.make(), self.make())
        model[0].requires_grad_(False)
        batches = lambda first: [torch.ones(1, 1)]  # noqa: E731
        fit(model, Schedule(1, 0.1, 1), batches, lambda batch: [lambda: model(batch).sum()])
        assert (model[0].weight.item(), model[0].bias.item()) == (2, 1)
        assert model[1].weight.item() != 2

    def test_ends_in_evaluation_mode(self):
        assert not run()[0].training

    def test_no_iterations_change_nothing(self):
        model, losses, taken = run(schedule=Schedule(0, 0.1, 1))
        assert (len(losses), taken) == (0, [])
        assert bytes_of(model) == bytes_of(make_model())

    @pytest.mark.parametrize(("value", "name"), [(float("nan"), "nan"), (float("inf"), "inf")])
    def test_a_loss_that_is_not_finite_is_refused(self, tmp_path, monkeypatch, value, name):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        model = self.make()
        with pytest.raises(PipelineError, match=f"^the loss became {name} in step 3; lower the learning rate$"):
            fit(
                model, Schedule(9, 1e-3, 9), lambda first: iter([1.0, 1.0, value]),
                lambda factor: [lambda: model(torch.ones(1, 1)).sum() * factor], checkpoint=tmp_path,
            )
        with pytest.raises(Killed):  # the checkpoint is the one before the broken step
            fit(model, Schedule(9, 1e-3, 9), self.expect_third, None, checkpoint=tmp_path)
        assert np.isfinite(model.weight.item())

    @staticmethod
    def expect_third(first):
        assert first == 2
        raise Killed

    def test_progress_hears_how_many_steps_are_left_and_sees_each(self, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        with pytest.raises(Killed):
            run(tmp_path, killed_at(4))
        totals, seen = [], []

        def progress(items, total, about):
            totals.append(total)
            for item in items:
                seen.append(item[0])
                yield item

        model = make_model()
        losses_of = lambda batch: [lambda: model(batch[0]).square().mean()]  # noqa: E731
        fit(model, SCHEDULE, batches_from, losses_of, seed=3, checkpoint=tmp_path, progress=progress)
        assert totals == [STEPS - 4]
        assert seen == list(range(4, STEPS))


class TestSeveralLosses:
    """A weight of 2; for each part of a batch, an input x, there are two losses: the weight times x, and half the weight."""

    NAMES = ("first", "second")
    INPUTS = ([1.0, 2.0], [4.0], [3.0, 0.0, 1.0])  # three batches, in two, one and three parts

    def run(self, progress=training.silently, checkpoint=None, **options):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 2.0)

        def losses_of(batch):
            return [partial(lambda x: torch.stack([model(torch.tensor([x])).sum(), 0.5 * model.weight.sum()]), x) for x in batch]

        groups = [ParameterGroup([model.weight])]
        batches = lambda first: iter(self.INPUTS[first:])  # noqa: E731
        losses = fit(
            model, Schedule(3, 0.1, 2), batches, losses_of, groups, names=self.NAMES, checkpoint=checkpoint, progress=progress,
            **options,
        )
        return model, losses

    def test_each_is_summed_over_parts_and_all_are_descended(self):
        """Gradients: 1 + 2 + 2 x 0.5 = 4, then 4.5, then 4 + 1.5 at a rate of 0.01; momentum 0.9."""
        model, losses = self.run()
        weights = [2, 2 - 0.1 * 4, 2 - 0.1 * 4 - 0.1 * (4.5 + 0.9 * 4)]
        np.testing.assert_allclose(losses[:, 0], [3 * weights[0], 4 * weights[1], 4 * weights[2]], rtol=1e-5)
        np.testing.assert_allclose(losses[:, 1], [weights[0], 0.5 * weights[1], 1.5 * weights[2]], rtol=1e-5)
        assert losses.dtype == np.float32
        assert model.weight.item() == pytest.approx(weights[2] - 0.01 * (5.5 + 0.9 * 8.1), rel=1e-5)

    def test_the_log_is_told_every_step_with_its_rate_and_losses(self):
        logged = []
        _, losses = self.run(log=lambda *arguments: logged.append(arguments))
        assert [step for step, _ in logged] == [1, 2, 3]
        assert [list(values) for _, values in logged] == [["learning rate", *self.NAMES]] * 3
        assert [values["learning rate"] for _, values in logged] == pytest.approx([0.1, 0.1, 0.01])
        np.testing.assert_array_equal(np.float32([[values[name] for name in self.NAMES] for _, values in logged]), losses)

    def test_a_single_loss_is_logged_under_its_own_name(self):
        logged, model = [], nn.Linear(1, 1)
        fit(
            model, Schedule(1, 0.1, 1), lambda first: [None], lambda batch: [lambda: model.bias.sum()],
            log=lambda step, values: logged.append((step, list(values))),
        )
        assert logged == [(1, ["learning rate", "loss"])]

    @pytest.mark.usefixtures("saves_every_step")
    def test_a_killed_run_has_all_losses_in_the_end(self, tmp_path):
        def killed(items, total, about):
            for number, item in enumerate(items):
                if number == 2:
                    raise Killed
                yield item

        with pytest.raises(Killed):
            self.run(killed, tmp_path)
        (model, losses), (undisturbed, expected) = self.run(checkpoint=tmp_path), self.run()
        assert losses.tobytes() == expected.tobytes()
        assert bytes_of(model) == bytes_of(undisturbed)

    @pytest.mark.parametrize("broken", [0, 1])
    def test_one_loss_that_is_not_finite_is_refused(self, broken):
        model = nn.Linear(1, 1)
        factors = torch.ones(2)
        factors[broken] = float("nan")
        with pytest.raises(PipelineError, match=r"^the loss became nan in step 1; lower the learning rate$"):
            fit(
                model, Schedule(1, 0.1, 1), lambda first: [factors], lambda factors: [lambda: model.bias.sum() * factors],
                names=self.NAMES,
            )

    def texts(self, monkeypatch, clock, **options):
        """What `about` says before each step except the first, and after the last."""
        monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
        texts = []

        def progress(items, total, about):
            for number, item in enumerate(items):
                if number:
                    texts.append(about())
                clock[0] += 2.0  # seconds a step
                yield item
            texts.append(about())

        _, losses = self.run(progress, **options)
        return texts, losses.sum(axis=1)

    def test_progress_shows_mean_loss_rate_and_pace(self, monkeypatch):
        """Two images every two seconds; losses 8, then 7.2, then 4.62; the rate of the last step is a tenth."""
        texts, losses = self.texts(monkeypatch, [100.0], images_a_step=2)
        means = [losses[:count].mean() for count in (1, 2, 3)]
        assert texts == [
            f"loss {mean:.3f}, learning rate {rate}, 1 images a second" for mean, rate in zip(means, ("0.1", "0.1", "0.01"))
        ]
        assert texts[0] == "loss 8.000, learning rate 0.1, 1 images a second"

    def test_there_is_no_pace_without_images(self, monkeypatch):
        assert self.texts(monkeypatch, [100.0])[0][0] == "loss 8.000, learning rate 0.1"

    @pytest.mark.usefixtures("saves_every_step")
    def test_a_resumed_run_shows_its_own_pace_and_losses(self, tmp_path, monkeypatch):
        def killed(items, total, about):
            yield next(items)
            raise Killed

        with pytest.raises(Killed):
            self.run(killed, tmp_path)
        texts, losses = self.texts(monkeypatch, [100.0], checkpoint=tmp_path, images_a_step=4)
        assert len(texts) == 2
        assert texts[0] == f"loss {losses[1]:.3f}, learning rate 0.1, 2 images a second"

    def test_old_losses_leave_the_mean(self):
        """Losses 1, 2, 3, ...: the mean is over the last 21."""
        model, texts = nn.Linear(1, 1, bias=False), []

        def progress(items, total, about):
            for item in items:
                yield item
                texts.append(about())

        groups = [ParameterGroup([model.weight], factor=0.0)]
        losses_of = lambda value: [lambda: 0 * model.weight.sum() + value]  # noqa: E731
        fit(model, Schedule(40, 0.1, 99), lambda first: iter(range(1, 41)), losses_of, groups, progress=progress)
        assert [text.split(",")[0] for text in (texts[0], texts[1], texts[20], texts[-1])] == [
            "loss 1.000", "loss 1.500", "loss 11.000", "loss 30.000",
        ]


class TestSchedule:
    def test_falls_to_a_tenth_after_every_step(self):
        schedule = Schedule(100, 0.02, 30)
        rates = [schedule.rate(step) for step in (0, 29, 30, 59, 60, 90, 99)]
        assert rates == pytest.approx([0.02, 0.02, 0.002, 0.002, 0.0002, 0.00002, 0.00002], rel=1e-12)

    def test_loss_table(self):
        table = loss_table(np.float32([[2.25], [1.0], [1 / 3]]), Schedule(3, 0.001, 2))
        assert table == "step,learning_rate,loss\n1,0.001,2.25\n2,0.001,1\n3,0.0001,0.333333\n"

    def test_loss_table_of_several_losses(self):
        table = loss_table(np.float32([[2.25, 0.5], [1.0, 0.0]]), Schedule(2, 0.001, 1), ("first", "second"))
        assert table == "step,learning_rate,loss,first,second\n1,0.001,2.75,2.25,0.5\n2,0.0001,1,1,0\n"

    def test_loss_table_of_nothing_has_its_heading(self):
        assert loss_table(np.zeros((0, 1), np.float32), Schedule(0, 0.001, 2)) == "step,learning_rate,loss\n"
        assert loss_table(np.zeros((0, 2), np.float32), Schedule(0, 0.001, 2), ("a", "b")) == "step,learning_rate,loss,a,b\n"
