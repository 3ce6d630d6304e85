"""First weights from files."""

import pytest
import torch
from torchvision.models import vgg16

from pipeline.errors import PipelineError
from pipeline.later_detectors.names import PAPER
from pipeline.later_detectors.network import Design, LaterDetector
from pipeline.later_detectors.weight_files import COCO_CATEGORIES, check_loaded, load_detector_file

LITE = Design("torchvision:ssdlite320_mobilenet_v3_large", PAPER, 0)


def write(path, tensors):
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def of_coco(tmp_path_factory):
    """A file as torchvision publishes it: 91 classes, batch normalisation with its counts."""
    torch.manual_seed(1)
    tensors = LaterDetector(LITE, 91).network.state_dict()
    path = tmp_path_factory.mktemp("coco") / "lite.pth"
    return write(path, {**tensors, "backbone.x.num_batches_tracked": torch.tensor(3)}), tensors


def test_rows_of_our_classes_are_taken(of_coco):
    path, tensors = of_coco
    detector = LaterDetector(LITE, 4)
    name = "head.classification_head.module_list.0.1.weight"
    before = detector.network.state_dict()[name].clone()
    assert load_detector_file(detector, path, ("sofa", "digit", "person")) == ["sofa", "person"]
    loaded = detector.network.state_dict()
    torch.testing.assert_close(loaded["backbone.features.0.0.0.weight"], tensors["backbone.features.0.0.0.weight"])
    rows, source = loaded[name].unflatten(0, (-1, 4)), tensors[name].unflatten(0, (-1, 91))
    torch.testing.assert_close(rows[:, 0], source[:, 0])
    torch.testing.assert_close(rows[:, 1], source[:, COCO_CATEGORIES.index("couch")])
    torch.testing.assert_close(rows[:, 3], source[:, COCO_CATEGORIES.index("person")])
    torch.testing.assert_close(rows[:, 2], before.unflatten(0, (-1, 4))[:, 2])


def test_box_layers_have_four_rows_for_a_class(tmp_path):
    design = Design("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", PAPER, 0)
    torch.manual_seed(0)
    tensors = LaterDetector(design, 91).network.state_dict()
    detector = LaterDetector(design, 2)
    assert load_detector_file(detector, write(tmp_path / "faster.pth", tensors), ("dog",)) == ["dog"]
    layer, dog = "roi_heads.box_predictor.bbox_pred.weight", COCO_CATEGORIES.index("dog")
    torch.testing.assert_close(detector.network.state_dict()[layer][4:], tensors[layer][4 * dog : 4 * dog + 4])


def test_file_of_as_many_classes_as_ours(tmp_path):
    torch.manual_seed(2)
    tensors = LaterDetector(LITE, 4).network.state_dict()
    detector = LaterDetector(LITE, 4)
    assert load_detector_file(detector, write(tmp_path / "own.pth", tensors), ("a", "b", "c")) == ["a", "b", "c"]
    for name, value in detector.network.state_dict().items():
        torch.testing.assert_close(value, tensors[name])


def test_file_of_another_detector(tmp_path):
    tensors = LaterDetector(LITE, 7).network.state_dict()
    with pytest.raises(PipelineError, match=r"own.pth: not the weights of torchvision:ssdlite.* has shape"):
        load_detector_file(LaterDetector(LITE, 4), write(tmp_path / "own.pth", tensors), ("a", "b", "c"))


@pytest.mark.exhaustive
def test_file_of_the_papers_trunk(tmp_path):
    """VGG-16's convolutions go into both parts of SSD's trunk."""
    tensors = {name: value for name, value in vgg16().state_dict().items() if name.startswith("features.")}
    detector = LaterDetector(Design("ssd", PAPER, 300), 3)
    assert load_detector_file(detector, write(tmp_path / "vgg.pth", tensors), ("a", "b")) == []
    trunk = detector.network.backbone
    torch.testing.assert_close(trunk.features[21].weight, tensors["features.21.weight"])
    torch.testing.assert_close(trunk.extra[0][5].weight, tensors["features.28.weight"])


def test_a_class_without_weights_is_told(tmp_path):
    with pytest.raises(PipelineError, match=r"no weights for 1 of 2 classes \(digit\)"):
        check_loaded(tmp_path / "file.pth", ["dog"], ("dog", "digit"))
    check_loaded(tmp_path / "file.pth", ["dog"], ("dog",))
