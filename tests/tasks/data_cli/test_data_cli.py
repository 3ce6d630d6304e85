"""`rcnn-data` on the command line."""

import json
import signal
import subprocess
import sys

import pytest

import tasks
from pipeline.datasets.whole import read_dataset
from pipeline.proposals.files import write_npz
from tasks.data_cli import main
from tasks.data_cli.describe import cached_proposals
from tests.pipeline.datasets.layouts import Item, Voc, encoded, pixels_of


@pytest.fixture
def voc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Voc(tmp_path / "voc", Item(1, encoded(pixels_of(), "JPEG")), Item(2, encoded(pixels_of(1), "JPEG"), ())).root


@pytest.fixture
def tool(capsys):
    """Runs `rcnn-data`, checks the exit status and returns what was printed, on both streams."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments]) == status
        return "".join(capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


def test_convert(tool, voc):
    assert tool("convert", "voc", "yolo", "--to", "yolo") == (
        "voc (VOC's format) is now also yolo (YOLO's format)\n"
        "split  images  objects\n----------------------\ntrain       2        1\n2 different images; classes: cat\n"
        "largest difference of a box: 0.0000000 pixels; of a keypoint: 0.0000000 pixels\n"
    )
    assert tool("convert", "voc", "yolo", "--to", "coco", status=2) == (
        "rcnn-data: yolo: exists already; give the name of a new folder\n")
    assert tool("convert", "none", "new", "--to", "coco", status=2).startswith(
        "rcnn-data: data set none, split 'train': 1 problem(s)\n  ")


def test_what_was_left_out_is_printed(tool, voc):
    text = (voc / "Annotations/1.xml").read_text()
    (voc / "Annotations/1.xml").write_text(text.replace("<name>cat</name>", "<name>cat</name><difficult>1</difficult>"))
    (voc / "ImageSets/Main/small_train.txt").write_text("1\n")
    output = tool("convert", "voc", "yolo", "--to", "yolo")
    assert "left out: 1 marks of difficult objects, which YOLO's format does not have\n" in output
    assert "splits that were not read: small_train; give them with --splits\n" in output


def test_describe(tool, voc):
    output = tool("describe", "voc", "--output", "new", "--anchor-scales", "1,2", "--fast-scale", "30")
    assert "Scaled to 30 pixels, at most 50; scales 1, 2, ratios 0.5, 1, 2\n" in output
    assert output.endswith("written: new/describe.html, describe.json, table.txt\n")
    document = json.loads((voc.parent / "new/describe.json").read_text())
    assert document["splits"]["train"]["objects"] == 1
    assert json.loads(tool("describe", "voc", "--json", "--anchor-scales", "1,2", "--fast-scale", "30")) == document
    assert (voc.parent / "new/describe.html").read_text().startswith("<!DOCTYPE html>")
    assert "new: exists already" in tool("describe", "voc", "--output", "new", status=2)


@pytest.mark.parametrize("option", [("--anchor-scales", "x"), ("--anchor-scales", "0"), ("--anchor-ratios", "nan")])
def test_wrong_numbers(tool, voc, option):
    with pytest.raises(SystemExit):
        tool("describe", "voc", *option)


def test_cached_proposals_are_found_by_the_images(tool, stages, voc, tmp_path):
    boxes = [[[0, 0, 20, 20]], [[1, 1, 5, 5], [2, 2, 9, 9]]]
    write_npz(tmp_path / "boxes.npz", ["1", "2"], boxes)
    files = {"dataset": str(voc), "proposals": str(tmp_path / "boxes.npz")}
    stages.make(tasks.RegionProposals(**files, split="train", shard_size=1, cache_dir=str(tmp_path / "cache"), threads=1))
    proposals = cached_proposals(tmp_path / "cache", read_dataset(voc))
    source, by_path = proposals["train"]
    assert source.startswith("RegionProposals/")
    assert [by_path[f"JPEGImages/{id}.jpg"].tolist() for id in (1, 2)] == boxes
    assert "proposals of split 'train' (RegionProposals/" in tool("describe", "voc", "--cache-dir", str(tmp_path / "cache"))
    (voc / "JPEGImages/1.jpg").write_bytes(encoded(pixels_of(7), "JPEG"))
    assert cached_proposals(tmp_path / "cache", read_dataset(voc)) == {}


def test_a_terminated_conversion_leaves_nothing(voc, tmp_path):
    """Asked to stop while it writes, it removes what it wrote."""
    code = ("import os, signal\nfrom pipeline.conversion import convert\nfrom tasks.data_cli import main\n"
            "convert.compare = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\n"
            "raise SystemExit(main(['convert', 'voc', 'new', '--to', 'coco']))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=120, capture_output=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["voc"]
