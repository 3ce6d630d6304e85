"""On a GPU: the same bytes in every run, and nothing that warns."""

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SUMMARY = "Summarise"  # holds times


@pytest.mark.parametrize("arguments", [(), ("--chains", "faster-rcnn", "--faster-training", "joint")], ids=["all", "joint"])
def test_two_runs_make_the_same_bytes(miniatures, arguments):
    runs = []
    for _ in range(2):
        project = miniatures()
        printed = project.run("FullPipeline", "--device", "cuda", *arguments)
        assert "UserWarning" not in printed
        runs.append({name: digest for name, digest in project.digests().items() if not name.startswith(SUMMARY)})
    assert len(runs[0]) > 5
    assert runs[0] == runs[1]
