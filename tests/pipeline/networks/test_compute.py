"""Device, precision, threads."""

import copy

import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks.compute import apply_in_float32, for_inference, mixed_precision, prepare

pytestmark = pytest.mark.usefixtures("one_thread")


def test_prepare_sets_the_threads():
    assert prepare("cpu", 2) == torch.device("cpu")
    assert torch.get_num_threads() == 2


def test_an_unknown_device_is_refused():
    with pytest.raises(PipelineError, match="--device gpu: no such device; use cpu or cuda"):
        prepare("gpu", 1)


def test_cuda_without_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PipelineError, match="--device cuda: torch sees no CUDA device here; use --device cpu"):
        prepare("cuda", 1)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_inference_in_a_precision(precision, dtype):
    module = for_inference(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout()), torch.device("cpu"), precision)
    assert not module.training
    assert module[0].weight.dtype == dtype
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_mixed_precision_computes_in_it_and_keeps_the_weights(precision, dtype):
    layer = nn.Linear(4, 4)
    with mixed_precision(torch.device("cpu"), precision):
        assert layer(torch.ones(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(1, 4)).dtype == torch.float32


@pytest.mark.parametrize("layer", [nn.Linear(7, 3), nn.Linear(7, 3, bias=False), nn.Conv2d(7, 3, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_layer_in_float32(layer, dtype):
    layer = copy.deepcopy(layer).to(dtype)
    values = torch.randn((5, 7, 4, 2) if isinstance(layer, nn.Conv2d) else (5, 7), dtype=dtype)
    expected = copy.deepcopy(layer).double()(values.double())
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = apply_in_float32(layer, values)
        assert outputs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(outputs.double(), expected, rtol=1e-5, atol=1e-6)
    outputs.sum().backward()
    assert layer.weight.grad.dtype == dtype
