"""Lines of a list: what is an id, however it is written, and what is none."""

import pytest

from pipeline.errors import DatasetError
from tests.pipeline.datasets.tool_folders import read, write, xml


def folder(root, text, *ids):
    files = {f"{place}/{id}{suffix}": content for id in ids
             for place, suffix, content in (("Annotations", ".xml", xml()), ("JPEGImages", ".jpg", None))}
    return write(root, {"ImageSets/Main/train.txt": text, **files})


@pytest.mark.parametrize(("line", "id"), [
    ("IMG 0001 (2)", "IMG 0001 (2)"), ("a  b   c", "a  b   c"), ("IMG 1", "IMG 1"), ("  a b  ", "a b"),
    ("sub/a", "sub/a"), ("sub/deep/a b", "sub/deep/a b"), ("./a", "a"), ("./sub/./a", "sub/a"), ("sub//a", "sub/a"),
    ("sub\\a", "sub/a"), (".\\a", "a"), ("a.jpg", "a"), ("a b.PNG", "a b"), ("a.xml", "a"), ("sub\\a.jpeg", "sub/a"),
    ("JPEGImages/a.jpg", "a"), ("JPEGImages/sub/a.jpg", "sub/a"), ("Annotations/a.xml", "a"), ('"a b"', "a b"),
    ('"a b.jpg"', "a b"), ("v1.2", "v1.2"), ("a.jpg", "a.jpg"), ("2008_000001", "2008_000001"), ("größe 1", "größe 1"),
    ("-1", "-1"), ("100%", "100%"),
])
def test_an_id_however_it_is_written(tmp_path, line, id):
    split = read(folder(tmp_path, f"{line}\n", id), "train")
    assert [(image.id, image.path) for image in split.images] == [(id, f"JPEGImages/{id}.jpg")]


def test_windows_lines_and_a_mark_of_utf8(tmp_path):
    split = read(folder(tmp_path, "\ufeffa b\r\nc\r\n\r\n", "a b", "c"), "train")
    assert [image.id for image in split.images] == ["a b", "c"]


def problems(root):
    with pytest.raises(DatasetError) as caught:
        read(root, "train")
    return caught.value.problems


@pytest.mark.parametrize(("text", "message"), [
    ("a 1\nb -1\n", "a list for one class (its second column says which images have it); use one with ids alone"),
    ("a  1\nb  0\n", "a list for one class"),
    ("a\na b\n", "line 2: 'a b' has 2 columns, and no file has this name; expected one id alone"),
    ("a\na.jpg b.xml\n", "line 2: 'a.jpg b.xml' has 2 columns, and no file"),
    ("a\na.jpg\n", "line 2: id 'a' is on line 1 already"),
    ("a\n./a\n", "line 2: id 'a' is on line 1 already"),
    ("a\n../a\n", "line 2: id '../a' leads out of the folder"),
    ("a\n..\\a.jpg\n", "leads out"), ("a\nsub/../../a\n", "leads out"), ("a\n/data/JPEGImages/a.jpg\n", "leads out"),
    ("a\n~/\\..\n", "leads out"), ("a\n.\n", "leads out"),
])
def test_what_is_no_id_is_told_by_its_name(tmp_path, text, message):
    (problem,) = problems(folder(tmp_path, text, "a", "b"))
    assert message in problem


def test_a_list_of_ids_that_end_in_a_number_is_none_for_a_class(tmp_path):
    split = read(folder(tmp_path, "IMG 1\nIMG 0\n", "IMG 1", "IMG 0"), "train")
    assert [image.id for image in split.images] == ["IMG 1", "IMG 0"]


def test_a_file_that_is_missing_is_named_without_suffix(tmp_path):
    missing, annotation = problems(folder(tmp_path, "a\nnone.png\n", "a"))
    assert "JPEGImages/none.jpg: no such file" in missing
    assert "Annotations/none.xml: no such file" in annotation


def test_the_case_from_the_field(shared):
    root = shared / "cases/07-spaces-in-ids/data/v15-spaces"
    if not root.is_dir():
        pytest.skip("case absent: cases/07-spaces-in-ids")
    assert [image.id for image in read(root, "train").images] == ["IMG 0001 (2)", "IMG 0002"]
