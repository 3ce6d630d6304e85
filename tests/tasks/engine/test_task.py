"""Keys, shards and manifests, on trivial stages in this process."""

import hashlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import luigi
import pytest

from pipeline.errors import PipelineError
from tasks.engine import digests
from tasks.engine.errors import UserError
from tasks.engine.manifest import describe_files, digest_files
from tasks.engine.parameters import SettingError, inherits
from tasks.engine.task import CachedTask


def forget() -> None:
    """Clears Luigi's memory of task instances, as at the start of a command."""
    luigi.task_register.Register.clear_instance_cache()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory: ten numbers in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIVIAL_LOG", "log")
    Path("numbers.txt").write_text("1 2 3 4 5 6 7 8 9 10")
    return tmp_path


def built() -> list[str]:
    """The stages built since the last call."""
    log = Path("log")
    lines = [line.removeprefix("built ") for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def keys(stages, **settings) -> list[str]:
    """The keys along the chain: index, powers, sum."""
    forget()
    total = stages.SumNumbers(**settings)
    powers = total.requires()["powers"]
    return [powers.requires()["index"].key, powers.key, total.key]


def differ(first: list, second: list) -> list[bool]:
    return [a != b for a, b in zip(first, second, strict=True)]


class TestKey:
    def test_is_what_the_design_says(self, stages):
        power = keys(stages)[1]
        total = stages.SumNumbers(offset=3)
        text = (
            '{"outside":{},"parameters":{"offset":3,"seed":0},"requires":{"powers":"' + power + '"},'
            '"stage":"SumNumbers","version":1}'
        )
        assert total.key == hashlib.sha256(text.encode()).hexdigest()
        assert str(total.artefact) == f"SumNumbers/{total.key[:12]}"

    def test_outside_content_is_in_the_key_of_its_stage(self, stages):
        inputs = stages.ListNumbers().key_inputs()
        digest = hashlib.sha256(Path("numbers.txt").read_bytes()).hexdigest()
        assert inputs["outside"] == {"numbers": digest}
        assert inputs["parameters"] == {}

    @pytest.mark.parametrize(("setting", "changed"), [
        ({"power": 3}, [False, True, True]),
        ({"shard_size": 4}, [False, True, True]),
        ({"offset": 1}, [False, False, True]),
        ({"seed": 1}, [False, False, True]),
        ({"power": 2}, [False] * 3),
        ({"offset": 0.0}, [False] * 3),
        ({"cache_dir": "elsewhere"}, [False] * 3),
        ({"data_dir": "elsewhere"}, [False] * 3),
        ({"threads": 7}, [False] * 3),
        ({"device": "cuda"}, [False] * 3),
        ({"force": "SumNumbers"}, [False] * 3),
    ])
    def test_setting_changes_its_own_stage_and_those_after_it(self, stages, setting, changed):
        assert differ(keys(stages), keys(stages, **setting)) == changed

    @pytest.mark.parametrize(("stage", "changed"), [
        ("ListNumbers", [True] * 3), ("RaiseNumbers", [False, True, True]), ("SumNumbers", [False, False, True]),
    ])
    def test_version_changes_its_stage_and_those_after_it(self, stages, monkeypatch, stage, changed):
        before = keys(stages)
        monkeypatch.setattr(getattr(stages, stage), "version", 2)
        assert differ(before, keys(stages)) == changed

    def test_same_data_elsewhere_has_the_same_key(self, stages):
        Path("other").mkdir()
        Path("other/list").write_bytes(Path("numbers.txt").read_bytes())
        assert keys(stages, numbers="other/list", cache_dir="other/cache") == keys(stages)

    def test_changed_data_has_another_key(self, stages):
        before = keys(stages)
        Path("numbers.txt").write_text("1 2 3 4 5 6 7 8 9 11")
        assert differ(before, keys(stages)) == [True] * 3

    def test_touch_is_no_change(self, stages, monkeypatch):
        before = keys(stages)
        os.utime("numbers.txt", (time.time() - 3600,) * 2)
        monkeypatch.setattr(digests, "SETTLED_SECONDS", -1)  # no waiting until the file may be remembered
        assert keys(stages) == before
        monkeypatch.setattr(digests, "digest_file", pytest.fail)  # remembered by now
        assert keys(stages) == before

    def test_missing_file_has_a_key_of_its_own(self, stages):
        before = keys(stages)
        Path("numbers.txt").unlink()
        assert differ(before, keys(stages)) == [True] * 3

    def test_inherited_parameter_alone_is_not_in_the_key(self, stages):
        @inherits(stages.RaiseNumbers)
        class Bystander(CachedTask):
            def build(self, workshop):
                return {}

        assert Bystander(power=2).power == 2.0
        assert Bystander(power=2).key == Bystander(power=3).key
        assert Bystander.own_parameters == ()

    def test_shard_is_not_inherited(self, stages):
        assert "shard" not in dict(stages.SumNumbers.get_params())

        @inherits(stages.SumNumbers)
        class AfterAll(stages.RaiseNumbers):
            def upstream(self):
                return {"total": self.clone(stages.SumNumbers)}

        total = AfterAll(shard=1).upstream()["total"]
        assert total.requires()["powers"].is_whole


class TestShards:
    @pytest.fixture
    def total(self, stages):
        def make(**settings):
            forget()
            return stages.make(stages.SumNumbers(**{"shard_size": 4, **settings}))

        return make

    @pytest.mark.parametrize(("shard_size", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (32, [10])])
    def test_number_and_order(self, total, shard_size, sizes):
        powers = total(shard_size=shard_size).inputs()["powers"]
        read = [shard.json("powers.json") for shard in powers.shards()]
        assert [len(shard) for shard in read] == sizes
        assert [power for shard in read for power in shard] == [number**2 for number in range(1, 11)]
        assert powers.manifest["figures"] == {"numbers": 10, "shards": len(sizes)}

    def test_chain_is_built_once(self, total):
        assert total().artefact.json("sum.json") == 385
        assert built() == ["ListNumbers", *(f"RaiseNumbers {shard}" for shard in (0, 1, 2, "whole")), "SumNumbers"]
        total()
        assert built() == []

    def test_changed_record_redoes_its_shard_alone(self, total):
        total()
        built()
        Path("numbers.txt").write_text("1 2 3 4 5 60 7 8 9 10")
        assert total().artefact.json("sum.json") == 385 - 36 + 3600
        assert built() == ["ListNumbers", "RaiseNumbers 1", "RaiseNumbers whole", "SumNumbers"]

    def test_added_record_redoes_the_last_shard_alone(self, total):
        total()
        built()
        Path("numbers.txt").write_text("1 2 3 4 5 6 7 8 9 10 11")
        assert total().artefact.json("sum.json") == 385 + 121
        assert built() == ["ListNumbers", "RaiseNumbers 2", "RaiseNumbers whole", "SumNumbers"]

    def test_setting_of_the_last_stage_redoes_that_alone(self, total):
        total()
        built()
        assert total(offset=-5).artefact.json("sum.json") == 380
        assert built() == ["SumNumbers"]

    def test_lost_shard_is_made_again_by_name(self, total, stages):
        powers = total().requires()["powers"]
        shard = powers.shards()[1]
        before = describe_files(shard.artefact.folder)
        for path in shard.artefact.folder.iterdir():
            path.unlink()
        shard.artefact.folder.rmdir()
        forget()
        stages.make(stages.RaiseNumbers(shard_size=4, shard=1))
        assert describe_files(shard.artefact.folder) == before

    def test_by_number_on_an_empty_cache_makes_what_it_needs(self, stages):
        shard = stages.RaiseNumbers(shard_size=4, shard=1)
        assert not shard.complete()
        stages.make(shard)
        assert shard.complete()
        assert built() == ["ListNumbers", "RaiseNumbers 1"]
        stages.make(stages.SumNumbers(shard_size=4))
        assert built() == ["RaiseNumbers 0", "RaiseNumbers 2", "RaiseNumbers whole", "SumNumbers"]

    @pytest.mark.parametrize(("numbers", "shard"), [("1\n2\n3\n", 1), ("1\n2\n3\n", 7), ("", 0)])
    def test_past_the_end_is_refused_and_nothing_is_made(self, stages, numbers, shard):
        Path("numbers.txt").write_text(numbers)
        with pytest.raises(SettingError, match=rf"--shard: found {shard}, expected a number below {len(numbers) // 6} \("):
            stages.make(stages.RaiseNumbers(shard_size=4, shard=shard))
        assert built() == ["ListNumbers"]

    def test_of_a_negative_number_is_refused(self, stages):
        with pytest.raises(SettingError, match="--shard: found -2"):
            stages.RaiseNumbers(shard=-2)

    @pytest.mark.parametrize(("shard_size", "images", "per_shard", "number"), [
        (50, 0, 50, 0), (50, 50_000, 50, 1000), (50, 50_001, 51, 981), (50, 100_000, 100, 1000), (49, 100_000, 49, 2041),
    ])
    def test_the_default_size_grows_with_a_large_split(self, stages, monkeypatch, shard_size, images, per_shard, number):
        monkeypatch.setattr("tasks.data.sharded.load_split", lambda artefact: SimpleNamespace(images=range(images)))
        powers = stages.RaiseNumbers(shard_size=shard_size)
        assert (powers.images_per_shard, powers.num_shards) == (per_shard, number)
        last = max(0, number - 1)
        assert last * per_shard <= images <= number * per_shard

    def test_no_images(self, total):
        Path("numbers.txt").write_text("")
        done = total()
        assert done.artefact.json("sum.json") == 0
        assert done.inputs()["powers"].shards() == []

    def test_manifest_of_the_whole_names_its_shards(self, total):
        powers = total().requires()["powers"]
        inputs = powers.artefact.manifest["inputs"]
        assert list(inputs) == ["index", "shard 0", "shard 1", "shard 2"]
        shards = [shard.artefact for shard in powers.shards()]
        listed = [{"stage": "RaiseNumbers", "key": shard.key, "digest": shard.manifest["digest"]} for shard in shards]
        assert [inputs[f"shard {number}"] for number in range(3)] == listed == powers.artefact.json("shards.json")


class TestManifest:
    @pytest.fixture
    def total(self, stages):
        return stages.make(stages.SumNumbers(shard_size=4, offset=3, seed=5, threads=1))

    def test_fields(self, total):
        powers = total.inputs()["powers"]
        manifest = total.artefact.manifest
        expected = {
            "key": total.key, "stage": "SumNumbers", "version": 1, "parameters": {"offset": 3, "seed": 5}, "seed": 5,
            "inputs": {"powers": {"stage": "RaiseNumbers", "key": powers.key, "digest": powers.manifest["digest"]}},
            "outside": {}, "device": "cpu", "threads": 1, "figures": {"sum": 388}, "host": os.uname().nodename,
        }
        assert {name: manifest[name] for name in expected} == expected
        assert manifest["settings"]["power"] == "2.0"
        assert manifest["settings"]["numbers"] == "numbers.txt"
        assert time.time() - 60 < manifest["started"] <= time.time()
        assert 0 <= manifest["seconds"] < 60
        assert 1 << 20 < manifest["peak_memory"] < 1 << 40
        assert manifest["packages"]["luigi"] == luigi.__version__
        assert {"numpy", "torch", "scikit-learn"} <= set(manifest["packages"])
        assert sorted(manifest["files"]) == ["powers.json", "sum.json"]
        assert manifest["platform"]
        assert manifest["python"]

    def test_all_threads_by_default(self, stages):
        assert stages.make(stages.ListNumbers()).artefact.manifest["threads"] == len(os.sched_getaffinity(0))

    def test_digest_is_that_of_the_files(self, total):
        for artefact in (total.artefact, total.inputs()["powers"]):
            assert artefact.manifest["digest"] == digest_files(describe_files(artefact.folder))

    def test_digest_depends_on_neither_place_nor_time(self, total, stages, folder, monkeypatch):
        before, elsewhere = total.artefact.manifest, folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "list").write_bytes(Path("numbers.txt").read_bytes())
        monkeypatch.chdir(elsewhere)
        again = stages.make(stages.SumNumbers(shard_size=4, offset=3, seed=5, numbers="list", cache_dir="other", threads=1))
        assert again.artefact.manifest["started"] > before["started"]
        assert again.artefact.manifest["digest"] == before["digest"]


class TestFailure:
    def leftovers(self) -> list[str]:
        return [path.name for folder in (".work", ".locks") for path in Path("cache", folder).glob("*")]

    @pytest.mark.parametrize(("mood", "error"), [("user error", PipelineError), ("bug", ZeroDivisionError)])
    def test_no_artefact_after_an_exception(self, stages, monkeypatch, mood, error):
        monkeypatch.setenv("TRIVIAL_MOODS", json.dumps({"ListNumbers": mood}))
        with pytest.raises(error):
            stages.ListNumbers().run()
        assert not stages.ListNumbers().artefact.folder.exists()
        assert self.leftovers() == []
        monkeypatch.delenv("TRIVIAL_MOODS")
        assert stages.make(stages.ListNumbers()).complete()

    def test_input_that_changes_while_the_stage_runs(self, stages, monkeypatch):
        monkeypatch.setenv("TRIVIAL_MOODS", json.dumps({"ListNumbers": "meddle"}))
        task = stages.ListNumbers()
        with pytest.raises(UserError, match=rf"{task.artefact}: one of its input files changed while it ran; run again"):
            task.run()
        assert not task.artefact.folder.exists()
        assert self.leftovers() == []

    def test_unreadable_manifest_is_not_complete_and_is_replaced(self, stages):
        task = stages.make(stages.ListNumbers())
        digest = task.artefact.manifest["digest"]
        (task.artefact.folder / "manifest.json").write_text("{")
        assert not task.complete()
        assert stages.make(task).artefact.manifest["digest"] == digest

    def test_unknown_forced_stage(self, stages):
        with pytest.raises(UserError, match=r"--force Lost,Nowhere: no such stage; the stages are .*ListNumbers, .*SumNumbers"):
            stages.SumNumbers(force="SumNumbers,Nowhere,Lost")
