"""Our SGD: the same bits as torch's, groups with their own rates, and no import of torch's compiler."""


import pytest
import torch
from torch import nn

from pipeline.networks.sgd import MOMENTUM, SGD, WEIGHT_DECAY, ParameterGroup, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")
RATES = (0.05, 0.05, 0.05, 0.005, 0.005, 0.0005)


def make_model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 31), nn.ReLU(), nn.Linear(31, 4)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def descend(model, step):
    """Six steps on fixed batches; `step(rate)` takes each."""
    device = next(model.parameters()).device
    for number, rate in enumerate(RATES):
        generator = torch.Generator().manual_seed(number)
        images, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.randint(0, 4, (6,), generator=generator)
        nn.functional.cross_entropy(model(images.to(device)), labels.to(device)).backward()
        step(rate)
    return [value.detach() for value in model.parameters()]


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(("device", "foreach"), [("cpu", False), ("cpu", True), pytest.param("cuda", True, marks=needs_cuda)])
def test_has_the_bits_of_torchs(device, foreach):
    """On a GPU torch works on lists where it is not told otherwise."""
    ours, theirs = make_model().to(device), make_model().to(device)
    groups = parameter_groups(ours[0]) + parameter_groups(ours[3:], 3.0)
    reference = parameter_groups(theirs[0]) + parameter_groups(theirs[3:], 3.0)
    optimizer = torch.optim.SGD(
        [{"params": group.parameters, "weight_decay": group.weight_decay} for group in reference], lr=0.0, momentum=MOMENTUM,
        foreach=foreach,
    )

    def step(rate):
        for options, group in zip(optimizer.param_groups, reference, strict=True):
            options["lr"] = rate * group.factor
        optimizer.step()
        optimizer.zero_grad()

    sgd = SGD(groups)
    for value, expected in zip(descend(ours, sgd.step), descend(theirs, step), strict=True):
        assert torch.equal(value, expected)
    buffers = [optimizer.state[value]["momentum_buffer"] for options in optimizer.param_groups for value in options["params"]]
    for value, expected in zip(sgd.velocities, buffers, strict=True):
        assert torch.equal(value, expected)


def test_two_steps_by_hand():
    weight = nn.Parameter(torch.tensor([2.0]))
    sgd = SGD([ParameterGroup([weight], factor=2.0, weight_decay=0.5)])
    weight.grad = torch.tensor([3.0])
    sgd.step(0.1)  # velocity 3 + 0.5 x 2 = 4
    assert weight.item() == pytest.approx(2 - 0.2 * 4)
    assert weight.grad is None
    weight.grad = torch.tensor([1.0])
    sgd.step(0.01)  # velocity 0.9 x 4 + 1 + 0.5 x 1.2
    assert weight.item() == pytest.approx(1.2 - 0.02 * 5.2)


def test_a_parameter_without_a_gradient_stays():
    still, moved = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    sgd = SGD([ParameterGroup([still, moved])])
    moved.grad = torch.ones(2)
    sgd.step(0.5)
    assert (still.tolist(), moved.tolist()) == ([1, 1], [0.5, 0.5])
    assert sgd.velocities[0] is None


def test_groups_are_weights_and_biases_that_are_trained():
    model = make_model()
    model[0].requires_grad_(False)
    weights, biases = parameter_groups(model, 10.0)
    assert (weights.factor, weights.weight_decay, len(weights.parameters)) == (10.0, WEIGHT_DECAY, 2)
    assert (biases.factor, biases.weight_decay, len(biases.parameters)) == (20.0, 0.0, 2)


def test_parameters_that_join_later_do_not_disturb_the_others():
    early, late = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    sgd = SGD([ParameterGroup([early, late])])
    for number in range(3):
        early.grad = torch.ones(1)
        late.grad = torch.ones(1) if number else None
        sgd.step(0.1)
    assert early.item() == pytest.approx(1 - 0.1 * (1 + 1.9 + 2.71))
    assert late.item() == pytest.approx(1 - 0.1 * (1 + 1.9))


def test_momentum_of_its_own():
    """Two steps by hand: with momentum 0.99 the second moves by the gradient and 0.99 times the first."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = SGD([ParameterGroup([parameter])], momentum=0.99)
    for _ in range(2):
        parameter.grad = torch.ones(1)
        optimizer.step(0.5)
    assert parameter.item() == pytest.approx(-0.5 - 0.5 * 1.99)
