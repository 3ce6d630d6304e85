"""Networks without weights have the shapes of others, and torch's compiler is not imported: it takes a process 1.2 seconds."""

import subprocess
import sys

import pytest

from pipeline.networks.backbones import make_backbone
from pipeline.networks.without_weights import without_weights


@pytest.mark.parametrize("name", ["tiny", "resnet18", "efficientnet_lite0", "squeezenet1_0+align"])
def test_shapes_are_those_of_the_network_with_weights(name):
    with without_weights():
        outline = make_backbone(name)
    assert {value.device.type for value in outline.state_dict().values()} == {"meta"}
    full = make_backbone(name)
    assert {name: value.shape for name, value in outline.state_dict().items()} == {
        name: value.shape for name, value in full.state_dict().items()
    }
    assert (outline.sizes, outline.view) == (full.sizes, full.view)


def test_torchs_compiler_is_not_imported():
    code = """if True:
        import sys

        import pipeline.networks.training, pipeline.rcnn.finetune
        from pipeline.networks.backbones import make_backbone
        from pipeline.networks.without_weights import without_weights

        with without_weights():
            make_backbone("tiny"), make_backbone("efficientnet_lite0")
        print("torch._dynamo" in sys.modules)
    """
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    assert printed.strip() == "False"
