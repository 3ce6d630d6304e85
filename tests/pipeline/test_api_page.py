"""The examples of docs/api.md give what the page says, in a folder of their own and without a network."""

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


@pytest.mark.usefixtures("one_thread")
def test_examples(write_detector, tmp_path, monkeypatch):
    write_detector(tmp_path / "my-detector", "fast-rcnn")
    monkeypatch.chdir(tmp_path)
    results = doctest.testfile(str(PAGE), module_relative=False)
    assert results.attempted > 20
    assert results.failed == 0
