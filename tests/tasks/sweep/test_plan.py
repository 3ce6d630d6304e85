"""The rows of a sweep, from `--vary` and from a file, and what is refused."""

import pytest

from tasks.engine.errors import UserError
from tasks.engine.parameters import SettingError
from tasks.sweep.plan import make_plan, parse_vary, read_rows


@pytest.fixture
def rows_file(tmp_path):
    """rows_file(text) writes a file of rows and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "some.rows"
        path.write_text(text)
        return str(path)

    return write


def test_a_grid_has_a_row_for_each_combination_and_seeds_are_no_rows():
    plan = make_plan("layer=pool5,fc6 finetune-iterations=0,300 seed=0,1,2", "", 7)
    assert [row.name for row in plan.rows] == [
        "layer=pool5 finetune_iterations=0", "layer=pool5 finetune_iterations=300",
        "layer=fc6 finetune_iterations=0", "layer=fc6 finetune_iterations=300",
    ]
    assert plan.rows[2].settings == {"layer": "fc6", "finetune_iterations": 0}
    assert plan.seeds == (0, 1, 2)


def test_values_are_those_of_the_command_line():
    varied = parse_vary("svm_c=1e-3,1 box_regression=true,false spp_scales=480,576|688 classes=cat,dog")
    assert varied == {
        "svm_c": [0.001, 1.0], "box_regression": [True, False], "spp_scales": [(480, 576), (688,)], "classes": [("cat", "dog")],
    }


def test_seeds_alone_give_one_row():
    plan = make_plan("seed=3,4", "", 0)
    assert [(row.name, row.settings) for row in plan.rows] == [("as given", {})]
    assert plan.seeds == (3, 4)
    assert make_plan("layer=fc6", "", 5).seeds == (5,)


def test_named_rows_with_common_settings(rows_file):
    path = rows_file("[DEFAULT]\nlayer = fc6\n[base]\n# a comment\n[C low]\nsvm-c = 0.1\npublished_difference = -1.5\n")
    base, low = read_rows(path)
    assert (base.name, base.settings, base.published_difference) == ("base", {"layer": "fc6"}, None)
    assert (low.name, low.settings, low.published_difference) == ("C low", {"layer": "fc6", "svm_c": 0.1}, -1.5)
    plan = make_plan("box_ridge=1,2 seed=0,1", path, 0)
    assert [row.name for row in plan.rows] == ["base, box_ridge=1.0", "base, box_ridge=2.0", "C low, box_ridge=1.0",
                                               "C low, box_ridge=2.0"]


@pytest.mark.parametrize(("vary", "message"), [
    ("layr=pool5,fc6", "--vary: unknown setting 'layr'; did you mean layer?"),
    ("qqq=1", "--vary: unknown setting 'qqq'; docs/settings.md lists them"),
    ("threads=1,2", "--vary: unknown setting 'threads'"),
    ("svm_c=a,1", "--vary: --svm-c: found 'a', expected a finite number"),
    ("svm_c=-1,1", "--vary: --svm-c: found -1, expected a number from 1e-12"),
    ("box_regression=yes", "--vary: --box-regression: found 'yes', expected true or false"),
    ("chain=rcn", "--vary: --chain: found 'rcn', expected one of rcnn"),
    ("layer", "--vary: found 'layer', expected SETTING=VALUE,VALUE"),
    ("layer=pool5 layer=fc6", "--vary: layer is given twice"),
    ("svm_c=1,1.0", "--vary: svm_c has the value 1.0 twice"),
])
def test_what_is_wrong_is_told_in_a_line(vary, message):
    with pytest.raises(SettingError) as raised:
        parse_vary(vary)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "message"), [
    ("[a]\n[b]\n[a]\n", "the row [a] is there twice (line 3); rename one"),
    ("[a]\nsvm_c = 1\nsvm_c = 2\n", "the row [a] has svm_c twice (line 3)"),
    ("[a]\nsvm_c = 1\nsvm-c = 2\n", "[a]: svm_c is given twice"),
    ("[a]\nsvm_d = 1\n", "[a]: unknown setting 'svm_d'; did you mean svm_c?"),
    ("[a]\nseed = 1\n", '[a]: the seed belongs to no row; use --vary "seed=0,1"'),
    ("[a]\npublished_difference = high\n", "[a]: published_difference: found 'high', expected points of mAP"),
    ("layer = fc6\n", "not a file of rows"),
    ("# nothing\n", "found no row; a row begins with its name in brackets"),
])
def test_what_is_wrong_in_a_file_is_told_in_a_line(rows_file, text, message):
    path = rows_file(text)
    with pytest.raises(SettingError) as raised:
        read_rows(path)
    assert message in str(raised.value)
    assert str(raised.value).startswith(path)
    assert "\n" not in str(raised.value)


def test_a_setting_of_a_row_cannot_be_varied_too(rows_file):
    with pytest.raises(SettingError, match="layer is also a setting of the row"):
        make_plan("layer=pool5,fc6", rows_file("[a]\nlayer = fc6\n"), 0)


def test_a_missing_file(tmp_path):
    with pytest.raises((UserError, ValueError), match=r"no\.rows"):
        read_rows(str(tmp_path / "no.rows"))
