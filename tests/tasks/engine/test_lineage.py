"""What an artefact was made from: each manifest is read once, however many artefacts there are."""

from collections import Counter

import pytest

from tasks.engine import lineage
from tasks.engine.lineage import manifests_behind, stage_rows, with_inputs


@pytest.fixture
def total(stages, tmp_path, monkeypatch):
    """The artefact of a sum over three shards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers.txt").write_text(" ".join(map(str, range(10))))
    return stages.make(stages.SumNumbers(shard_size=4)).artefact


def test_inputs_come_first_and_each_once(total):
    assert [artefact.stage for artefact in with_inputs([total, total])] == ["ListNumbers", *["RaiseNumbers"] * 4, "SumNumbers"]


def test_a_table_reads_each_manifest_once(total, monkeypatch):
    read, plain = Counter(), lineage.read_manifest
    monkeypatch.setattr(lineage, "read_manifest", lambda folder: read.update([folder]) or plain(folder))
    monkeypatch.setattr(type(total), "manifest", property(lambda artefact: pytest.fail(f"{artefact} read again")))
    rows = stage_rows(manifests_behind([total]))
    assert [(row[0], row[1]) for row in rows] == [("ListNumbers", 1), ("RaiseNumbers", 4), ("SumNumbers", 1)]
    assert set(read.values()) == {1}
    assert len(read) == 6


def test_what_is_gone_is_left_out(total):
    powers = total.inputs()["powers"]
    for path in powers.folder.iterdir():
        path.unlink()
    assert with_inputs([total]) == [total]
