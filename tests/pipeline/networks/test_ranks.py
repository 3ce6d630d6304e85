"""Several processes that train together: the bytes of one process, each part computed once, and only the first one writes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.networks.parts import parts_of
from pipeline.networks.ranks import ALONE, add_gradients
from pipeline.networks.training import Schedule
from pipeline.networks.validation import Validation
from tests.pipeline.networks.training_runs import Killed, batches_from, bytes_of, fit, make_model
from tests.pipeline.rank_runs import on_ranks

pytestmark = pytest.mark.usefixtures("one_thread")
SCHEDULE = Schedule(4, 0.05, 2, clip=0.5)
SIZES = [2, pytest.param(4, marks=pytest.mark.exhaustive)]


def run(ranks, killed_at=None, computed=None, **options):
    """Trains on batches of three parts of two crops each; returns bytes of the weights and of the losses."""
    model = make_model()

    def loss_of(step, number, crops, labels):
        if (step, number) == killed_at:
            raise Killed
        if computed is not None:
            computed.append((step, number))
        return nn.functional.cross_entropy(model(crops), labels, reduction="sum") / 6

    def numbered(first):
        return ((first + number, batch) for number, batch in enumerate(batches_from(first)))

    def losses_of(given):
        step, (crops, labels) = given
        parts = enumerate(zip(crops.split(2), labels.split(2), strict=True))
        return [lambda number=number, part=part: loss_of(step, number, *part) for number, part in parts]

    losses = fit(model, SCHEDULE, numbered, losses_of, seed=3, ranks=ranks, **options)
    return bytes_of(model), losses.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_their_number_changes_no_byte_and_each_part_is_computed_once(size):
    def work(ranks):
        computed = []
        return run(ranks, computed=computed), computed

    results, computed = zip(*on_ranks(size, work))
    assert set(map(repr, results)) == {repr(run(ALONE))}
    assert list(computed) == [
        [(step, number) for step in range(4) for number in range(3) if number % size == rank] for rank in range(size)
    ]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_the_fast_way_makes_the_same_but_for_rounding(size):
    """All ranks have the same bytes; with 4 ranks the last has no part."""
    def work(ranks):
        weights, losses = run(replace(ranks, is_fast=True))
        return np.frombuffer(b"".join(weights.values()), np.float32), np.frombuffer(losses, np.float64)

    first, *others = on_ranks(size, work)
    weights, losses = run(ALONE)
    np.testing.assert_allclose(first[0], np.frombuffer(b"".join(weights.values()), np.float32), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first[1], np.frombuffer(losses, np.float64), rtol=1e-5)
    assert all(np.array_equal(part, same) for rank in others for part, same in zip(rank, first, strict=True))


@pytest.mark.usefixtures("saves_every_step")
def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path):
    def killed(ranks):
        with pytest.raises(Killed):
            run(ranks, (2, ranks.rank), checkpoint=tmp_path)

    on_ranks(2, killed)
    computed = []
    assert run(ALONE, computed=computed, checkpoint=tmp_path) == run(ALONE)
    assert computed[0] == (2, 0)


def test_only_the_first_one_saves_logs_shows_and_validates(tmp_path):
    def work(ranks):
        did, folder = [], tmp_path / str(ranks.rank)

        def progress(items, total, about):
            did.append("show")
            return iter(items)

        def score(network):
            did.append("validate")
            return 0.5

        validation = Validation(4, 0, score)
        folder.mkdir()
        run(
            ranks, progress=progress, log=lambda step, values: did.append("log"), keep=folder / "state.safetensors",
            validation=validation, checkpoint=folder,
        )
        return sorted({*did, *(path.name for path in folder.iterdir())}), validation.scores

    (first, *others) = on_ranks(2, work)
    assert first == (["checkpoint.safetensors", "log", "show", "state.safetensors", "validate"], [(4, 0.5)])
    assert others == [([], [(4, 0.5)])]


def test_gradients_are_added_in_the_order_of_the_parts():
    """1 + 1e8 - 1e8 is 0 in float32, in another order 1. The second parameter has a gradient in the last part alone."""
    first, second = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    values = [1.0, 1e8, -1e8]

    def compute(number):
        first.grad = torch.tensor([values[number]])
        second.grad = torch.tensor([-0.0]) if number == 2 else None
        return torch.tensor([number + 1.0, 10.0])

    losses = list(add_gradients(ALONE, 3, [first, second], compute, 2))
    assert [each.tolist() for each in losses] == [[1, 10], [2, 10], [3, 10]]
    assert first.grad.tolist() == [0]
    assert str(second.grad.tolist()) == "[-0.0]"


@pytest.mark.parametrize(("rows", "pixels", "parts"), [
    (0, 200, []), (2, 200, [(0, 2)]), (5, 299, [(0, 2), (2, 4), (4, 5)]), (2, 99, [(0, 1), (1, 2)]),
])
def test_crops_of_ten_pixels_a_side_in_parts(rows, pixels, parts):
    assert [(part.start, part.stop) for part in parts_of(rows, 10, pixels)] == parts
