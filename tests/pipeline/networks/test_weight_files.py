"""Fetching weights, from a server on this machine."""

import hashlib

import pytest

from pipeline.errors import PipelineError
from pipeline.networks import weight_files
from pipeline.networks.weight_files import IMAGENET_FILES, fetch_imagenet, imagenet_file

CONTENT = b"weights"
NAME = f"tinynet-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class TestFetch:
    @pytest.fixture(autouse=True)
    def tinynet(self, monkeypatch):
        monkeypatch.setitem(IMAGENET_FILES, "tinynet", NAME)

    def test_the_name_holds_the_checksum(self, tmp_path, file_server):
        file_server.files[f"/models/{NAME}"] = CONTENT
        path = fetch_imagenet("tinynet", tmp_path / "weights", f"{file_server.url}/models/")
        assert path == tmp_path / "weights" / NAME
        assert path.read_bytes() == CONTENT

    def test_another_file_is_refused(self, tmp_path, file_server):
        file_server.files[f"/{NAME}"] = b"others"
        with pytest.raises(PipelineError) as caught:
            fetch_imagenet("tinynet", tmp_path, f"{file_server.url}/")
        message = str(caught.value)
        assert message.startswith("the weights of tinynet are not here and cannot be downloaded (")
        assert f"sha256 {hashlib.sha256(b'others').hexdigest()}, expected {NAME[8:16]})" in message
        assert message.endswith(f"put it at {tmp_path / NAME}, or give a file with --weights, or train with --weights scratch")


class TestNames:
    @pytest.mark.parametrize("backbone", ["alexnet", "vgg16", "squeezenet1_0"])
    def test_are_torchvisions(self, backbone):
        from torchvision.models import get_model_weights

        url = get_model_weights(backbone).IMAGENET1K_V1.url
        assert weight_files.IMAGENET_URL + imagenet_file(backbone) == url

    def test_a_backbone_without_imagenet_weights(self):
        with pytest.raises(PipelineError, match="no ImageNet weights for backbone 'tiny'; use --weights scratch or a file"):
            imagenet_file("tiny")
