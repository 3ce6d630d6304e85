"""`rcnn-cache verify --recompute` makes artefacts anew and compares them, on trivial stages."""

import shutil
from pathlib import Path

import pytest

from tasks.engine.manifest import describe_files
from tests.tasks.cache_cli.artefacts import CACHE, edit, forget, make_consistent


@pytest.fixture
def recompute(total, tool, tmp_path, monkeypatch):
    """Runs `verify --recompute`; returns the outcome of each artefact, and the last line."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def run(number: int = 9, status: int = 0) -> tuple[dict[str, str], str]:
        forget()
        *lines, last = tool("verify", "--recompute", str(number), status=status).splitlines()
        assert list((tmp_path / "temporary").iterdir()) == []
        return dict(line.split(": ", 1) for line in lines if "made anew; it took" not in line), last

    return run


def test_all_artefacts_of_a_sound_cache_have_the_same_bytes_and_stay(recompute):
    before = {path: describe_files(path) for path in CACHE.glob("[!.]*/*")}
    outcomes, last = recompute()
    assert list(outcomes.values()) == ["the same bytes"] * 6
    assert last == "6 artefacts made anew with the same bytes, 0 with others; 0 not made"
    assert {path: describe_files(path) for path in CACHE.glob("[!.]*/*")} == before


def test_as_many_are_drawn_as_asked_for(recompute):
    outcomes, last = recompute(2)
    assert len(outcomes) == 2
    assert last.startswith("2 artefacts made anew with the same bytes")


def test_other_bytes_are_found_though_the_manifest_fits_them(recompute, total, tool):
    make_consistent(total.folder, "sum.json", b"386")
    assert tool("verify").endswith(" 0 faults\n")
    outcomes, last = recompute(status=1)
    assert outcomes[total.name] == "changed: made anew, it has other bytes in sum.json"
    assert last == "5 artefacts made anew with the same bytes, 1 with others; 0 not made"


def test_other_packages_are_told_of_with_other_bytes(recompute, total):
    manifest = total.manifest | {"packages": {"numpy": "1.0", "gone": "2"}}
    edit(total.folder, packages=manifest["packages"])
    make_consistent(total.folder, "sum.json", b"386")
    assert "; it was made with other versions: numpy 1.0, now " in recompute(status=1)[0][total.name]


def test_what_has_another_key_today_is_not_made(recompute):
    Path("numbers.txt").write_text("7")
    outcomes, last = recompute()
    assert all(text.startswith("not made: ") for text in outcomes.values())
    assert any("the files outside the cache that it was made from" in text for text in outcomes.values())
    assert last == "0 artefacts made anew with the same bytes, 0 with others; 6 not made"


def test_what_lacks_an_input_is_not_made(recompute, total):
    source = total.manifest["inputs"]["powers"]
    folder = CACHE / source["stage"] / source["key"][:12]
    shutil.rmtree(folder)
    assert recompute()[0][total.name] == f"not made: RaiseNumbers/{folder.name} is not in the cache"


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_a_wrong_number_is_refused(tool, total, number):
    with pytest.raises(SystemExit):
        tool("verify", "--recompute", number)
