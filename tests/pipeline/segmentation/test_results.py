"""Label maps as palette PNGs: written, read, refused."""

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.segmentation.results import comp6_folder, read_label_map, write_label_map

LABELS = np.array([[0, 1, 20], [254, 7, 0]], np.uint8)


def test_layout():
    assert comp6_folder("val") == "results/VOC2012/Segmentation/comp6_val_cls"


@pytest.mark.parametrize("labels", [LABELS, LABELS[:1, :1], LABELS[:, 1:2]])
def test_round_trip(tmp_path, labels):
    path = write_label_map(tmp_path / comp6_folder("val"), "2007_000033", labels)
    assert path == tmp_path / "results/VOC2012/Segmentation/comp6_val_cls/2007_000033.png"
    assert np.array_equal(read_label_map(path.parent, "2007_000033", labels.shape), labels)


def test_pixels_are_values_with_vocs_colours(tmp_path):
    with Image.open(write_label_map(tmp_path, "a", LABELS)) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), LABELS)
        assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)  # VOC's aeroplane


def test_an_id_with_a_folder(tmp_path):
    assert write_label_map(tmp_path, "seq1/a b", LABELS) == tmp_path / "seq1" / "a b.png"
    assert np.array_equal(read_label_map(tmp_path, "seq1/a b"), LABELS)


def test_void_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="image 'a': 2 pixels have the label 255; expected 0 to 254"):
        write_label_map(tmp_path, "a", np.array([[255, 0, 255]], np.uint8))
    assert not list(tmp_path.iterdir())
    write_label_map(tmp_path, "a", LABELS)
    image = Image.open(tmp_path / "a.png")
    image.putpixel((0, 0), 255)
    image.save(tmp_path / "a.png")
    with pytest.raises(PipelineError, match=r"a.png: 1 pixels have the value 255, void"):
        read_label_map(tmp_path, "a")


def test_faults_of_files_are_named(tmp_path):
    with pytest.raises(PipelineError, match=r"b\.png.*no such file; segment the split again"):
        read_label_map(tmp_path, "b")
    write_label_map(tmp_path, "a", LABELS)
    with pytest.raises(PipelineError, match=r"a.png: the mask is 3 x 2, its image 5 x 4"):
        read_label_map(tmp_path, "a", (4, 5))
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(PipelineError, match=r"c.png: a PNG of pixel mode RGB"):
        read_label_map(tmp_path, "c")
    for labels in (np.zeros((0, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)):
        with pytest.raises(PipelineError, match="expected height x width"):
            write_label_map(tmp_path, "d", labels)
