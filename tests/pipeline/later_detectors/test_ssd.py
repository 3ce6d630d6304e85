"""SSD's default boxes, matching and loss: by hand, and as in the release."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from pipeline.errors import PipelineError
from pipeline.later_detectors.network import Design, LaterDetector
from pipeline.later_detectors.ssd import LAYOUTS, BipartiteMatcher, layout_of, paper_trunk, released_ssd

MAPS = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}


def default_boxes(size: int) -> torch.Tensor:
    """[N x 4] in units of the image."""
    maps = [torch.zeros(1, 1, cells, cells) for cells in MAPS[size]]
    (boxes,) = LAYOUTS[size].generator()(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)
    return boxes / size


class TestDefaultBoxes:
    @pytest.mark.parametrize(("size", "count"), [(300, 8732), (512, 24564)])
    def test_as_many_as_in_the_paper(self, size, count):
        assert len(default_boxes(size)) == count

    def test_first_cell_by_hand(self):
        """30 and sqrt(30 x 60) pixels square, then 1:2 and 2:1, around 4 pixels; they are not clipped."""
        larger, long, short = (30 * 60) ** 0.5, 30 * 2**0.5, 30 / 2**0.5
        sides = [(30, 30), (larger, larger), (long, short), (short, long)]
        expected = [[4 - width / 2, 4 - height / 2, 4 + width / 2, 4 + height / 2] for width, height in sides]
        np.testing.assert_allclose(default_boxes(300)[:4] * 300, expected, atol=1e-4)

    def test_sizes_of_512_are_whole(self):
        width = default_boxes(512)[0, 2] - default_boxes(512)[0, 0]
        assert float(width * 512) == pytest.approx(35, abs=1e-3)  # 35.84 in the file of settings

    def test_as_the_release(self, oracle):
        np.testing.assert_allclose(default_boxes(300), oracle("ssd.npz")["priors300"], atol=1e-6)

    def test_another_size(self):
        with pytest.raises(PipelineError, match="300 or 512 pixels, not of 400"):
            layout_of(400)


class TestMatcher:
    def test_two_objects_with_the_same_best_box(self):
        overlaps = torch.tensor([[0.4, 0.2, 0.0], [0.45, 0.0, 0.1]])
        # The second object has the better claim on box 0; the first gets its next best.
        assert BipartiteMatcher()(overlaps).tolist() == [1, 0, -1]

    def test_further_boxes_belong_from_a_half_on(self):
        overlaps = torch.tensor([[0.9, 0.5, 0.49], [0.0, 0.6, 0.3]])
        assert BipartiteMatcher()(overlaps).tolist() == [0, 1, -1]
        assert BipartiteMatcher()(overlaps[:1]).tolist() == [0, 0, -1]

    def test_an_object_that_no_box_touches(self):
        assert BipartiteMatcher()(torch.zeros(1, 3)).tolist() == [-1, -1, -1]

    @pytest.mark.parametrize("case", ["im0", "im1", "im2", "clash"])
    def test_as_the_release(self, oracle, case):
        values = oracle("ssd.npz")
        overlaps = box_iou(torch.from_numpy(values[f"{case}_gt"]), torch.from_numpy(values["priors300"]))
        np.testing.assert_array_equal(BipartiteMatcher()(overlaps), values[f"{case}_match"])


class TestLoss:
    @pytest.mark.parametrize("case", ["im0", "im1", "im2"])
    def test_as_the_release(self, oracle, case):
        """Encoding, hard negatives and both losses of an image."""
        values = oracle("ssd.npz")
        network, targets, outputs, boxes, matches = of_oracle(values, case)
        losses = network.compute_loss([targets], outputs, [boxes], [matches])
        assert float(losses["bbox_regression"]) == pytest.approx(float(values[f"{case}_loss_loc"]), rel=1e-5)
        assert float(losses["classification"]) == pytest.approx(float(values[f"{case}_loss_conf"]), rel=1e-5)
        positive = values[f"{case}_positive"]
        encoded = network.box_coder.encode_single(targets["boxes"][matches[positive]], boxes[positive])
        np.testing.assert_allclose(encoded, values[f"{case}_encoded"], atol=1e-5)

    def test_negatives_are_chosen_image_by_image(self, oracle):
        """Two images in a batch: the sums of both, by the positives of both."""
        values = oracle("ssd.npz")
        parts = [of_oracle(values, case) for case in ("im0", "im2")]
        outputs = {name: torch.cat([part[2][name] for part in parts]) for name in parts[0][2]}
        network, targets, _, boxes, matches = zip(*parts, strict=True)
        losses = network[0].compute_loss(targets, outputs, boxes, matches)
        counts = [len(values[f"{case}_positive"]) for case in ("im0", "im2")]
        expected = sum(float(values[f"{case}_loss_conf"]) * count for case, count in zip(("im0", "im2"), counts)) / sum(counts)
        assert float(losses["classification"]) == pytest.approx(expected, rel=1e-5)


def of_oracle(values: dict, case: str) -> tuple:
    network = SSD.__new__(SSD)  # its loss alone
    torch.nn.Module.__init__(network)
    whole = LaterDetector(Design("ssd", "tiny", 300, 16), 6).network
    network.box_coder, network.neg_to_pos_ratio = whole.box_coder, whole.neg_to_pos_ratio
    targets = {"boxes": torch.from_numpy(values[f"{case}_gt"]), "labels": torch.from_numpy(values[f"{case}_labels"])}
    outputs = {
        "cls_logits": torch.from_numpy(values[f"{case}_logits"])[None].double(),
        "bbox_regression": torch.from_numpy(values[f"{case}_pred"])[None].double(),
    }
    return network, targets, outputs, torch.from_numpy(values["priors300"]), torch.from_numpy(values[f"{case}_match"])


@pytest.mark.parametrize("size", [300, pytest.param(512, marks=pytest.mark.exhaustive)])
def test_maps_of_our_trunk_fit_the_default_boxes(size):
    network = LaterDetector(Design("ssd", "tiny", size, 16), 3).network
    with torch.no_grad():
        maps = network.backbone(torch.zeros(1, 3, size, size))
    assert [values.shape[-1] for values in maps.values()] == list(MAPS[size])


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [300, 512])
def test_maps_of_the_paper_fit_the_default_boxes(size):
    with torch.device("meta"), torch.no_grad():  # shapes without values
        trunk = paper_trunk(size)
        network = released_ssd(trunk, size, 3, (0.5,) * 3, (1,) * 3)
        maps = network.backbone(torch.zeros(1, 3, size, size))
    assert [values.shape[-1] for values in maps.values()] == list(MAPS[size])
    assert not any(parameter.requires_grad for parameter in trunk.features[:10].parameters())
