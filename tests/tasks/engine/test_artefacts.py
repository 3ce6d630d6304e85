"""Artefacts: whole or absent, and errors that name what is wrong."""

import hashlib
import json
import os
import shutil
import signal
import sys

import numpy as np
import pytest

from tasks.engine import artefacts
from tasks.engine.artefacts import Artefact, DamagedArtefact
from tasks.engine.errors import UserError
from tasks.engine.manifest import describe_files, digest_files
from tasks.engine.workshop import Workshop, sweep
from tasks.file_checks import read_arrays

KEY = "0123456789ab" + "c" * 52
TWIN = "0123456789ab" + "d" * 52  # lies in the same folder
OTHER = "f" * 64


def publish(artefact: Artefact, files: dict[str, bytes], **manifest) -> Artefact:
    """Builds an artefact as a stage does."""
    workshop = Workshop(artefact)
    with workshop.lock():
        workshop.open()
        for name, content in files.items():
            path = workshop.files / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        workshop.publish(manifest)
        workshop.close()
    return artefact


def leftovers(cache) -> list[str]:
    return sorted(path.name for folder in (".work", ".locks") for path in (cache / folder).glob("*"))


@pytest.fixture
def artefact(tmp_path) -> Artefact:
    return publish(Artefact(tmp_path, "Stage", KEY), {"b.json": b'{"x":1}', "sub/a": b""}, figures={"n": 2})


class TestArtefact:
    def test_place_and_name(self, artefact, tmp_path):
        assert artefact.folder == tmp_path / "Stage" / "0123456789ab"
        assert repr(artefact) == "Stage/0123456789ab"

    def test_published_artefact_exists_and_is_read(self, artefact, tmp_path):
        assert artefact.exists()
        assert artefact.json("b.json") == {"x": 1}
        assert artefact.path("sub/a").read_bytes() == b""
        assert leftovers(tmp_path) == []

    def test_manifest_lists_the_files(self, artefact):
        empty, content = hashlib.sha256().hexdigest(), hashlib.sha256(b'{"x":1}').hexdigest()
        manifest = artefact.manifest
        assert manifest["files"] == {"b.json": {"size": 7, "sha256": content}, "sub/a": {"size": 0, "sha256": empty}}
        assert (manifest["key"], manifest["stage"], manifest["figures"]) == (KEY, "Stage", {"n": 2})
        listed = f'[["b.json",7,"{content}"],["sub/a",0,"{empty}"]]'
        assert manifest["digest"] == hashlib.sha256(listed.encode()).hexdigest()

    def test_digest_is_of_the_files_alone(self, artefact, tmp_path):
        files = {"sub/a": b"", "b.json": b'{"x":1}'}
        again = publish(Artefact(tmp_path / "elsewhere", "Other", OTHER), files, figures={"seconds": 9.5})
        assert again.manifest["digest"] == artefact.manifest["digest"] == digest_files(describe_files(artefact.folder))
        for changed in ({**files, "sub/a": b" "}, {"b.json": b'{"x":1}', "sub/b": b""}, {**files, "c": b""}):
            assert publish(Artefact(tmp_path / "third", "Stage", KEY), changed).manifest["digest"] != again.manifest["digest"]

    def test_artefact_without_files(self, tmp_path):
        assert publish(Artefact(tmp_path, "Stage", KEY), {}).manifest["digest"] == hashlib.sha256(b"[]").hexdigest()

    def test_arrays(self, tmp_path):
        np.savez(tmp_path / "a.npz", boxes=np.eye(2), names=np.array(["dog"]))
        artefact = publish(Artefact(tmp_path, "Stage", KEY), {"a.npz": (tmp_path / "a.npz").read_bytes()})
        arrays = read_arrays(artefact, "a.npz")
        assert sorted(arrays) == ["boxes", "names"]
        np.testing.assert_array_equal(arrays["boxes"], np.eye(2))

    def test_shards_in_order(self, tmp_path):
        listed = [{"key": key, "stage": "Stage", "digest": ""} for key in (OTHER, KEY)]
        whole = publish(Artefact(tmp_path, "Stage", "1" * 64), {"shards.json": json.dumps(listed).encode()})
        assert [(shard.stage, shard.key) for shard in whole.shards()] == [("Stage", OTHER), ("Stage", KEY)]


class TestDamage:
    """Errors name the file, the finding, the expectation, and what to do."""

    def test_absent(self, tmp_path):
        artefact = Artefact(tmp_path, "Stage", KEY)
        assert not artefact.exists()
        expected = f"no sound manifest, expected one with the key {KEY}; the same command makes it again"
        with pytest.raises(DamagedArtefact, match=expected):
            artefact.json("b.json")

    @pytest.mark.parametrize("content", [b"", b'{"key": "01', b"\xff\xfe", b"[]", b'{"key": "' + KEY.encode() + b'"}'])
    def test_unreadable_manifest(self, artefact, content):
        (artefact.folder / "manifest.json").write_bytes(content)
        assert not artefact.exists()
        with pytest.raises(DamagedArtefact, match="found no sound manifest, expected one with the key") as caught:
            artefact.path("b.json")
        assert self.was_put_aside(artefact, caught)

    def test_manifest_of_another_key(self, artefact, tmp_path):
        twin = Artefact(tmp_path, "Stage", TWIN)
        assert twin.folder == artefact.folder
        assert not twin.exists()
        with pytest.raises(DamagedArtefact, match=TWIN):
            twin.json("b.json")

    @staticmethod
    def was_put_aside(artefact, caught) -> bool:
        """Checks that the whole artefact was moved aside, and that the message says where to and what to do."""
        aside = artefact.cache / ".damaged" / f"Stage-{KEY[:12]}-0"
        assert str(caught.value).endswith(f"; its artefact was moved aside, to {aside}: the same command makes it again")
        return aside.is_dir() and not artefact.folder.exists()

    def test_truncated_file(self, artefact):
        (artefact.folder / "b.json").write_bytes(b'{"x"')
        with pytest.raises(DamagedArtefact, match=r"b\.json: found 4 bytes, expected 7; ") as caught:
            artefact.json("b.json")
        assert self.was_put_aside(artefact, caught)

    def test_missing_file(self, artefact):
        (artefact.folder / "b.json").unlink()
        with pytest.raises(DamagedArtefact, match=r"b\.json: found no file .*, expected 7 bytes") as caught:
            artefact.path("b.json")
        assert self.was_put_aside(artefact, caught)

    @pytest.mark.parametrize("place", range(7))
    def test_one_flipped_bit(self, artefact, place):
        """The file keeps its size, whether it can be parsed or not."""
        content = bytearray((artefact.folder / "b.json").read_bytes())
        content[place] ^= 1
        (artefact.folder / "b.json").write_bytes(content)
        with pytest.raises(DamagedArtefact, match=r"b\.json: its content differs from the recorded SHA-256; ") as caught:
            artefact.json("b.json")
        assert self.was_put_aside(artefact, caught)

    def test_a_file_that_was_read_before_is_compared_again_when_it_changed(self, artefact):
        assert artefact.json("b.json") == {"x": 1}
        status = (artefact.folder / "b.json").stat()
        (artefact.folder / "b.json").write_bytes(b'{"x":2}')
        os.utime(artefact.folder / "b.json", ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(DamagedArtefact, match="its content differs"):
            artefact.json("b.json")

    def test_damaged_again(self, artefact, tmp_path):
        """Nothing that was moved aside is lost."""
        for number in range(3):
            (artefact.folder / "b.json").write_bytes(b"%d" % number)
            with pytest.raises(DamagedArtefact, match=f"-{number}: the same command"):
                artefact.json("b.json")
            publish(artefact, {"b.json": b'{"x":1}'})
        asides = sorted((tmp_path / ".damaged").glob("*/b.json"))
        assert [path.read_bytes() for path in asides] == [b"0", b"1", b"2"]

    def test_made_anew_by_another_run_in_between(self, artefact, monkeypatch):
        """The file fits the new manifest, but not the one that was read first."""
        real, answers = artefacts.read_manifest, [json.loads((artefact.folder / "manifest.json").read_text())]
        publish(artefact, {"b.json": b'{"x":27}'})
        monkeypatch.setattr(artefacts, "read_manifest", lambda folder: answers.pop() if answers else real(folder))
        assert artefact.json("b.json") == {"x": 27}

    def test_a_link_is_no_file(self, artefact, tmp_path):
        (tmp_path / "b.json").write_bytes((artefact.folder / "b.json").read_bytes())
        (artefact.folder / "b.json").unlink()
        (artefact.folder / "b.json").symlink_to(tmp_path / "b.json")
        with pytest.raises(DamagedArtefact, match="found a link or a folder, expected a file"):
            artefact.path("b.json")

    def test_file_that_the_stage_did_not_write(self, artefact):
        (artefact.folder / "c.json").write_bytes(b"{}")
        with pytest.raises(DamagedArtefact, match=r"c\.json: no such file in the artefact's manifest.json; --force Stage"):
            artefact.json("c.json")
        assert artefact.exists()

    def test_json_that_was_never_right(self, tmp_path):
        artefact = publish(Artefact(tmp_path, "Stage", KEY), {"b.json": b'{"x":1]'})
        with pytest.raises(DamagedArtefact, match=r"b\.json: cannot be read \(Expecting.*again") as caught:
            artefact.json("b.json")
        assert self.was_put_aside(artefact, caught)

    def test_of_a_cache_that_cannot_be_written(self, artefact, monkeypatch):
        def refuse(*arguments):
            raise UserError("read-only")

        monkeypatch.setattr(artefacts, "cache_folder", refuse)
        (artefact.folder / "b.json").unlink()
        with pytest.raises(DamagedArtefact, match=f"; remove the folder {artefact.folder}, and the same command makes it again$"):
            artefact.path("b.json")

    def test_pickled_arrays_are_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
        artefact = publish(Artefact(tmp_path, "Stage", KEY), {"a.npz": (tmp_path / "a.npz").read_bytes()})
        with pytest.raises(DamagedArtefact, match=r"a\.npz: cannot be read .*allow_pickle"):
            read_arrays(artefact, "a.npz")

    def test_is_an_error_for_the_user(self):
        assert issubclass(DamagedArtefact, UserError)


class TestWorkshop:
    @pytest.fixture
    def workshop(self, tmp_path):
        workshop = Workshop(Artefact(tmp_path, "Stage", KEY))
        workshop.open()
        return workshop

    def test_nothing_is_there_before_publishing(self, workshop):
        (workshop.files / "a").write_text("half")
        assert not workshop.artefact.exists()
        assert not workshop.artefact.folder.exists()

    def test_existing_artefact_is_replaced(self, artefact, tmp_path):
        publish(Artefact(tmp_path, "Stage", KEY), {"new": b"1"})
        assert sorted(path.name for path in artefact.folder.iterdir()) == ["manifest.json", "new"]
        assert leftovers(tmp_path) == []

    def test_artefact_of_a_twin_key_is_replaced(self, artefact, tmp_path):
        publish(Artefact(tmp_path, "Stage", TWIN), {"new": b"1"})
        assert not artefact.exists()
        assert Artefact(tmp_path, "Stage", TWIN).path("new")

    def test_unfinished_files_are_thrown_away(self, workshop, tmp_path):
        (workshop.files / "a").write_text("half")
        workshop.close()
        assert leftovers(tmp_path) == []

    @pytest.mark.parametrize("killed", [False, True])
    def test_checkpoint_outlives_a_failure_and_is_offered_again(self, workshop, killed):
        (workshop.files / "a").write_text("half")
        (workshop.checkpoint / "step").write_text("5")
        if not killed:
            workshop.close()
        again = Workshop(workshop.artefact)
        again.open()
        assert (again.checkpoint / "step").read_text() == "5"
        assert not any(again.files.iterdir())

    def test_checkpoint_of_a_twin_key_is_not_offered(self, workshop, tmp_path):
        (workshop.checkpoint / "step").write_text("5")
        twin = Workshop(Artefact(tmp_path, "Stage", TWIN))
        twin.open()
        assert twin.folder == workshop.folder
        assert not any(twin.checkpoint.iterdir())

    def test_checkpoint_is_gone_after_publishing(self, workshop, tmp_path):
        (workshop.checkpoint / "step").write_text("5")
        workshop.publish({})
        assert workshop.artefact.exists()
        assert leftovers(tmp_path) == []


class TestSweep:
    def test_leftovers_go_and_checkpoints_stay(self, tmp_path):
        for key, checkpoint in ((KEY, False), (OTHER, True)):
            workshop = Workshop(Artefact(tmp_path, "Stage", key))
            workshop.open()
            (workshop.files / "half").touch()
            if checkpoint:
                (workshop.checkpoint / "step").touch()
            (workshop.folder / "aside").mkdir()
            workshop.folder.rename(workshop.left)  # else its builder, this process, is alive
        (tmp_path / ".work" / "Stage-aaaaaaaaaaaa").mkdir()  # killed before it got far
        sweep(tmp_path)
        assert leftovers(tmp_path) == [workshop.name]
        assert sorted(path.name for path in workshop.left.iterdir()) == ["checkpoint", "key"]

    def test_work_in_progress_is_left_alone(self, tmp_path):
        workshop = Workshop(Artefact(tmp_path, "Stage", KEY))
        with workshop.lock():
            workshop.open()
            (workshop.files / "half").touch()
            sweep(tmp_path)
            assert (workshop.files / "half").exists()

    def test_no_cache_yet(self, tmp_path):
        sweep(tmp_path / "none")
        assert not any(tmp_path.iterdir())


def die_at_event(number: int, cache) -> None:
    """Ends this process with `kill -9` at its `number`-th access to the file system below `cache`."""
    left = number

    def hook(event, arguments):
        nonlocal left
        if event.startswith(("open", "os.", "shutil.")) and any(str(cache) in str(argument) for argument in arguments):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.mark.slow
@pytest.mark.parametrize("replacing", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_kill_at_any_moment_leaves_a_whole_artefact_or_none(tmp_path, replacing):
    files = {"a": b"new", "sub/b": b"x"}
    outcomes = []
    for number in range(1000):
        cache = tmp_path / "cache"
        artefact = Artefact(cache, "Stage", KEY)
        if replacing:
            publish(artefact, {"a": b"old"})
        if (child := os.fork()) == 0:
            try:
                die_at_event(number, cache)
                publish(artefact, files)
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]

        if artefact.exists():
            assert describe_files(artefact.folder) == artefact.manifest["files"]
        else:
            assert not artefact.folder.exists()
        outcomes.append(artefact.path("a").read_bytes() if artefact.exists() else None)
        sweep(cache)
        publish(artefact, files)
        assert {name: artefact.path(name).read_bytes() for name in files} == files
        assert leftovers(cache) == []
        shutil.rmtree(cache)
        if status == 0:
            break
    assert number > 20
    assert set(outcomes) == ({None, b"old", b"new"} if replacing else {None, b"new"})
