"""Proposals in files, MATLAB's and ours."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from pipeline.errors import DatasetError, PipelineError
from pipeline.proposals.files import boxes_of, check_boxes, read_proposals, write_mat, write_npz

BOXES = [np.array([[0, 0, 80, 60], [10.5, 20, 11.125, 30]], np.float32), np.array([[3, 4, 5, 7]], np.float32)]
WRITERS = {"mat": write_mat, "npz": write_npz}


def cells(*values):
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


def refusal(path) -> str:
    with pytest.raises(PipelineError) as caught:
        read_proposals(path)
    return str(caught.value)


def test_releases_columns_and_corners(tmp_path):
    """y1 x1 y2 x2 = 3 1 3 1 is the leftmost pixel of the third row. As uint16, in a row of cells, with more in the file."""
    boxes = cells(np.array([[3, 1, 3, 1], [1, 1, 60, 80]], np.uint16)).T
    savemat(tmp_path / "ss.mat", {"boxes": boxes, "images": cells("000005"), "more": cells("x")})
    proposals = read_proposals(tmp_path / "ss.mat")
    assert list(proposals) == ["000005"]
    assert proposals["000005"].dtype == np.float32
    assert proposals["000005"].tolist() == [[0, 2, 1, 3], [0, 0, 80, 60]]


def test_written_as_matlab_reads_it(tmp_path):
    write_mat(tmp_path / "ours.mat", ["a", "b"], BOXES)
    variables = loadmat(tmp_path / "ours.mat")
    assert [cell.item() for cell in variables["images"][:, 0]] == ["a", "b"]
    assert variables["boxes"][0, 0].tolist() == [[1, 1, 60, 80], [21, 11.5, 30, 11.125]]
    assert variables["boxes"][1, 0].tolist() == [[5, 4, 7, 5]]


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trip(tmp_path, kind):
    path = tmp_path / f"proposals.{kind}"
    for boxes in (BOXES, [BOXES[1], BOXES[1]], [BOXES[0] + 1 / 3, BOXES[1][:0]]):
        WRITERS[kind](path, ["a", "000005"], boxes)
        proposals = read_proposals(path)
        assert list(proposals) == ["a", "000005"]
        for rows, expected in zip(proposals.values(), boxes, strict=True):
            np.testing.assert_array_equal(rows, expected)
            assert rows.flags.c_contiguous


def test_same_proposals_are_the_same_bytes(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("time.asctime", lambda: f"Monday {next(clock)}")
    contents = []
    for _ in range(2):
        write_mat(tmp_path / "a.mat", ["a", "b"], BOXES)
        contents.append((tmp_path / "a.mat").read_bytes())
    assert next(clock) == 2  # the clock that SciPy's header shows
    assert contents[0] == contents[1]


class TestRefused:
    @pytest.mark.parametrize(("arrays", "message"), [
        ({"boxes": cells(BOXES[0])}, "KeyError: 'images'"),
        ({"boxes": BOXES[0], "images": cells("a")}, "boxes of shape"),
        ({"boxes": cells(BOXES[0].T), "images": cells("a")}, "boxes of shape (4, 2), expected n x 4"),
        ({"boxes": cells(BOXES[0], BOXES[1]), "images": cells("a")}, "not readable as cell arrays `images` and `boxes`"),
        ({"boxes": cells(BOXES[0], BOXES[1]), "images": cells("a", "a")}, "image 'a' is there twice"),
        ({"boxes": cells(BOXES[0]), "images": cells(np.array([1, 2]))}, "not readable"),
    ])
    def test_mat(self, tmp_path, arrays, message):
        path = tmp_path / "bad.mat"
        savemat(path, arrays)
        assert refusal(path).startswith(f"{path}: ")
        assert message in refusal(path)

    @pytest.mark.parametrize(("changed", "message"), [
        ({"offsets": [0, 2]}, "offsets do not lead from 0 to 3"), ({"offsets": [0, 4, 3]}, "offsets do not lead"),
        ({"offsets": []}, "offsets do not lead"),
        ({"offsets": np.array([0, 4, 3], np.uint64)}, "offsets do not lead"), ({"offsets": [0.0, 2, 3]}, "`offsets` of float64"),
        ({"image_ids": np.array("ab")}, "`image_ids` of <U2 []"), ({"image_ids": np.zeros((2, 2))}, "`image_ids` of float64"),
        ({"boxes": np.full((3, 4), "1")}, "boxes that are no numbers"), ({"offsets": [0, 3]}, "not readable as arrays"),
        ({"boxes": np.zeros((3, 5))}, "boxes of shape (3, 5), expected n x 4"), ({"image_ids": ["a", "a"]}, "is there twice"),
        ({"image_ids": np.array([{}, {}], object)}, "allow_pickle=False"),
    ])
    def test_npz(self, tmp_path, changed, message):
        path = tmp_path / "bad.npz"
        np.savez(path, **{"boxes": np.concatenate(BOXES), "offsets": [0, 2, 3], "image_ids": ["a", "b"], **changed})
        assert message in refusal(path)

    @pytest.mark.parametrize("suffix", ["mat", "npz"])
    @pytest.mark.parametrize("content", [b"", b"not proposals", pickle.dumps([1]), bytes(600)])
    def test_other_files(self, tmp_path, suffix, content):
        path = tmp_path / f"other.{suffix}"
        path.write_bytes(content)
        assert refusal(path).startswith(f"{path}: not readable as ")

    def test_cut_off(self, tmp_path):
        for kind, write in WRITERS.items():
            path = tmp_path / f"cut.{kind}"
            write(path, ["a", "b"], BOXES)
            path.write_bytes(path.read_bytes()[:-20])
            assert refusal(path).startswith(f"{path}: not readable as ")

    def test_matlab_7_3(self, tmp_path):
        path = tmp_path / "new.mat"
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
        assert refusal(path) == f"{path}: a file of MATLAB 7.3; save it there once more with save(..., '-v7')"


class TestBoxesOf:
    """An image of 80 x 60 pixels."""

    def test_in_whichever_file_it_is(self, make_record):
        files = {Path("a.mat"): {"a": BOXES[0]}, Path("b.mat"): {"b": BOXES[1]}}
        assert boxes_of(make_record("b"), files) is BOXES[1]
        assert boxes_of(make_record("a"), files) is BOXES[0]

    @pytest.mark.parametrize(("files", "message"), [
        ({"a.mat": {}, "b.mat": {}},
         "proposals of image 'x' are not in a.mat, b.mat; give the files of this split; ids have to be those of the data set"),
        ({"a.mat": {"x": BOXES[0]}, "b.mat": {"x": BOXES[0]}},
         "proposals of image 'x' are in a.mat and in b.mat; leave it out of one"),
        ({"a.mat": {"x": BOXES[0][:0]}}, "a.mat: image 'x' has no box; propose some, or take the image out of the list"),
    ])
    def test_missing_double_or_empty(self, make_record, files, message):
        with pytest.raises(PipelineError) as caught:
            boxes_of(make_record("x"), {Path(name): boxes for name, boxes in files.items()})
        assert str(caught.value) == message

    @pytest.mark.parametrize("box", [
        (-1, 0, 5, 5), (0, -0.5, 5, 5), (0, 0, 80.5, 5), (0, 0, 5, 61), (5, 0, 5, 5), (0, 5, 5, 4), (np.nan, 0, 5, 5),
        (0, 0, 5, np.inf),
    ])
    def test_box_that_cannot_be_right(self, make_record, box):
        boxes = np.array([(0, 0, 80, 60), box], np.float32)
        with pytest.raises(PipelineError) as caught:
            boxes_of(make_record("x"), {Path("a.mat"): {"x": boxes}})
        corners = ", ".join(f"{value:g}" for value in box)
        assert str(caught.value) == (
            f"a.mat: image 'x', box 2 of 2: ({corners}) as (x1, y1, x2, y2) from 0 on is empty, no number or outside the image "
            "of 80 x 60 pixels; propose in the images as they are in the data set"
        )

    def test_faults_of_many_images_are_told_by_kind(self, make_record):
        names = [f"{number}" for number in range(30)]
        boxes = {name: BOXES[0] if number < 5 else BOXES[0][:0] if number < 10 else BOXES[0] + 900
                 for number, name in enumerate(names[:20])}
        check_boxes(map(make_record, names[:5]), {Path("a.mat"): boxes})
        with pytest.raises(DatasetError) as caught:
            check_boxes(map(make_record, names), {Path("a.mat"): boxes})
        assert caught.value.count == 25
        assert [problem.partition(";")[0] for problem in caught.value.problems] == [
            "5 images with no box", "10 images with a proposal that cannot be right", "10 images without proposals",
        ]
