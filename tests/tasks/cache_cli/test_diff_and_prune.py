"""`rcnn-cache diff` and `rcnn-cache prune`."""

from pathlib import Path

import pytest

from tasks.engine import locks
from tasks.engine.catalogue import Catalogue
from tests.tasks.cache_cli.artefacts import CACHE, powers_of


class TestDiff:
    def test_setting(self, make, tool):
        first, second = make(), make(offset=3)
        assert tool("diff", first.key, second.key) == f"{first.name} and {second.name} differ in\n  offset: 0 | 3\n"

    def test_setting_of_an_input(self, make, tool):
        first, second = make(), make(power=3)
        inputs = " | ".join(powers_of(entry).name for entry in (first, second))
        assert tool("diff", first.key, second.key).splitlines()[1:] == [f"  input powers: {inputs}", "    power: 2 | 3"]

    def test_version_and_file_at_the_root(self, make, stages, tool, monkeypatch):
        first = make()
        Path("numbers.txt").rename("other")
        with open("other", "a") as file:
            file.write(" 11")
        monkeypatch.setattr(stages.ListNumbers, "version", 2)
        second = make(numbers="other")
        lines = tool("diff", first.key, second.key).splitlines()[1:]
        assert [line.split(":")[0] for line in lines] == [
            "  input powers", "    input index", "      version", "      outside numbers", "      (setting numbers"
        ]
        assert lines[2].endswith("version: 1 | 2")
        assert lines[4].endswith('numbers: "numbers.txt" | "other")')

    def test_shards_of_other_images(self, make, tool):
        powers = powers_of(make())
        first, second, _ = Catalogue(CACHE).shards(powers).values()
        assert "the records of their images, which manifests do not contain" in tool("diff", first.key, second.key)

    def test_lost_input(self, make, tool):
        first, second = make(), make(power=3)
        lost = powers_of(first)
        (lost.folder / "manifest.json").unlink()
        assert f"the cause is unknown: no longer in the cache: {lost.name}" in tool("diff", first.key, second.key)

    def test_same_and_other_stage(self, total, tool):
        assert tool("diff", "latest", total.key) == f"{total.name}: both names mean this artefact\n"
        output = tool("diff", "latest", "ListNumbers", status=2)
        assert "are of different stages; only keys of one stage can be compared" in output


class TestPrune:
    def names(self) -> set[str]:
        return set(Catalogue(CACHE).entries)

    def test_what_latest_and_kept_keys_do_not_need_goes(self, make, total, tool):
        needed, kept = self.names(), make(offset=1)
        make(power=3)
        broken, foreign = CACHE / "SumNumbers" / ("0" * 12), CACHE / "SumNumbers" / "mine"
        broken.mkdir()
        foreign.mkdir()
        everything = self.names()
        output = tool("prune", "--dry-run", "--keep", kept.key)
        assert "6 folders" in output
        assert f"would remove {broken} (0 B)" in output
        assert self.names() == everything
        tool("prune", "--yes", "--keep", kept.key)
        assert self.names() == needed | {kept.name}
        assert (broken.exists(), foreign.exists()) == (False, True)
        tool("prune", "--yes")
        assert self.names() == needed

    @pytest.mark.parametrize(("answer", "left"), [("y", 6), ("n", 7), ("", 7)])
    def test_asks(self, make, total, tool, monkeypatch, answer, left):
        make(offset=1)
        monkeypatch.setattr("builtins.input", lambda question: answer)
        tool("prune")
        assert len(self.names()) == left

    @pytest.mark.parametrize("target", [None, "SumNumbers/000000000000", "../secret"])
    def test_refuses_without_latest_results(self, make, tool, target):
        make()
        if target:
            (CACHE / "latest").symlink_to(target)
        assert "it is unknown what is needed; nothing removed" in tool("prune", "--yes", status=1)
        assert len(self.names()) == 6

    def test_waits_for_a_running_build(self, make, total, tool):
        unneeded = make(offset=1)
        lock = CACHE / ".locks" / "SumNumbers-000000000000.lock"
        with locks.held(lock):
            assert "a run is building SumNumbers-000000000000; wait" in tool("prune", "--yes", status=1)
        assert unneeded.folder.exists()

    def test_lost_input_is_told_of(self, total, tool):
        lost = powers_of(total)
        (lost.folder / "manifest.json").unlink()
        output = tool("prune", "--dry-run")
        assert f"note: {total.name} was made from {lost.name}, which is missing or damaged" in output
