"""`push`, `pull` and `--remote`: round trips, and everything that must be refused with nothing left behind."""

import json
import shutil
import uuid
from pathlib import Path

import fsspec
import pytest

from tasks.engine import remote as remote_module
from tasks.engine.artefacts import Artefact
from tasks.engine.catalogue import Catalogue
from tasks.engine.errors import UserError
from tasks.engine.manifest import digest_files, parse_content, seal
from tasks.engine.remote import Remote, RemoteError, WrongContent
from tests.tasks.cache_cli.artefacts import CACHE, forget

SHARDS = 3
ARTEFACTS = SHARDS + 3  # the list, the whole, the sum


@pytest.fixture(params=["file", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("memory", "s3"))])
def url(request, tmp_path):
    """The address of an empty remote cache."""
    if request.param == "s3":
        yield from bucket()
    elif request.param == "memory":
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]
        yield "memory://shared/rcnn"
        memory.store.clear()
    else:
        yield f"file://{tmp_path / 'remote'}"


def bucket():
    """A bucket of moto's server."""
    pytest.importorskip("s3fs")
    ThreadedMotoServer = pytest.importorskip("moto.server").ThreadedMotoServer
    server = ThreadedMotoServer(port=0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        fsspec.filesystem("s3").clear_instance_cache()
        fsspec.filesystem("s3").makedirs("shared", exist_ok=True)  # moto's buckets outlive its servers
        yield f"s3://shared/{uuid.uuid4().hex}"
        fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.fixture
def shared(total, tool, url):
    """The remote cache with the latest results in it."""
    tool("push", "--remote", url)
    return Remote(url)


def places(remote: Remote) -> list[str]:
    """Everything in the remote cache."""
    remote.files.invalidate_cache()
    return sorted(remote.files.find(remote.root))


def digests() -> dict[str, str]:
    return {name: entry.manifest["digest"] for name, entry in Catalogue(CACHE).entries.items()}


def leftovers() -> list[Path]:
    """What is in the cache beside the remembered digests and empty folders of the engine."""
    return [path for path in CACHE.rglob("*") if path.is_file() and path.name != ".digests.sqlite"]


def put(remote: Remote, place: str, content: bytes) -> None:
    remote.files.pipe_file(place, content)
    remote.files.invalidate_cache()


class TestPushAndPull:
    def test_a_round_trip(self, shared, total, tool, url):
        before = digests()
        content = (total.folder / "manifest.json").read_bytes()
        assert sum("/ac/" in place for place in places(shared)) == len(before) == ARTEFACTS
        assert "0 artefacts pushed, 0 B; 6 were there already" in tool("push", "--remote", url)
        shutil.rmtree(CACHE)
        assert f"{ARTEFACTS} artefacts pulled" in tool("pull", total.name, "--remote", url)
        assert digests() == before
        assert (total.folder / "manifest.json").read_bytes() == content
        assert "6 artefacts checked, 0 faults" in tool("verify")
        assert "0 artefacts pulled" in tool("pull", "SumNumbers", "--remote", url)

    def test_the_layout(self, shared, total):
        manifest = f"{shared.root}/ac/SumNumbers/{total.key}.json"
        objects = [f"{shared.root}/cas/{file['sha256'][:2]}/{file['sha256']}" for file in total.manifest["files"].values()]
        assert {manifest, *objects} <= set(places(shared))
        assert shared.files.cat_file(manifest) == (total.folder / "manifest.json").read_bytes()

    def test_only_some_stages(self, total, tool, url):
        tool("push", total.name, "--without", "RaiseNumbers", "--remote", url)
        remote = Remote(url)
        assert remote.keys("RaiseNumbers") == []
        assert len(remote.keys("SumNumbers")) == len(remote.keys("ListNumbers")) == 1
        shutil.rmtree(CACHE)
        assert "2 artefacts pulled" not in tool("pull", total.name, "--only", "SumNumbers", "--remote", url)
        assert [name.partition("/")[0] for name in digests()] == ["SumNumbers"]
        assert "1 are not in the remote cache" in tool("pull", total.name, "--remote", url)

    def test_wrong_requests_are_one_line(self, shared, tool, url):
        assert "found none for 'SumNumbers/abc'" in tool("pull", "SumNumbers/abc", "--remote", url, status=2)
        assert "--only nonsense: expected stages" in tool("pull", "SumNumbers", "--only", "nonsense", "--remote", url, status=2)
        assert "nothing://x" in tool("push", "--remote", "nothing://x", status=2)

    def test_without_fsspec_the_extra_is_named(self, total, tool, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
        assert "pip install -e '.[remote]'" in tool("push", "--remote", "file:///nowhere", status=2)


def edited(content: bytes, **changes) -> bytes:
    """The manifest with other entries, sealed as if the program had written it."""
    manifest, _ = parse_content(content)
    del manifest["seal"]
    manifest |= changes
    return seal(manifest | {"digest": digest_files(manifest["files"])})


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


class TestRefused:
    """Whoever may write to the remote cache decides what is there, and nothing of it is believed."""

    @pytest.fixture
    def damage(self, shared, total):
        """A function that changes the sum's object or manifest, and one that checks that it is refused for this reason."""
        (file,) = [file for name, file in total.manifest["files"].items() if name == "sum.json"]
        stored = {
            "object": f"{shared.root}/cas/{file['sha256'][:2]}/{file['sha256']}",
            "manifest": f"{shared.root}/ac/SumNumbers/{total.key}.json",
        }
        shutil.rmtree(CACHE)

        def refused(name: str, change, reason: str) -> None:
            place = stored[name]
            content = change(shared.files.cat_file(place))
            shared.files.rm(place) if content is None else put(shared, place, content)
            with pytest.raises(WrongContent) as caught:
                Remote(shared.url).pull(Artefact(CACHE, "SumNumbers", total.key))
            assert str(caught.value).startswith(f"{place.replace(shared.root, shared.url)}: ")
            assert reason in str(caught.value)
            assert leftovers() == []

        return refused

    def test_a_flipped_byte(self, damage):
        damage("object", flipped, "its content differs from its SHA-256")

    def test_a_truncated_object(self, damage):
        damage("object", lambda content: content[:-1], "found 4, expected 5 bytes of sum.json")

    def test_a_longer_object(self, damage):
        damage("object", lambda content: content + b" ", "found more than the 5 bytes of sum.json")

    def test_a_missing_object(self, damage):
        damage("object", lambda content: None, "missing in the remote cache")

    def test_a_flipped_byte_of_the_manifest(self, damage):
        damage("manifest", lambda content: content.replace(b'"seed"', b'"seeD"', 1), "no sound manifest.json")

    def test_a_truncated_manifest(self, damage):
        damage("manifest", lambda content: content[:-100], "no sound manifest.json")

    @pytest.mark.parametrize("name", ["../sum.json", "/tmp/sum.json", "a/../../sum.json", "manifest.json", "", "a//b", "./a"])
    def test_a_name_that_leads_elsewhere(self, damage, name):
        def rename(content: bytes) -> bytes:
            return edited(content, files={name: parse_content(content)[0]["files"]["sum.json"]})

        damage("manifest", rename, f"names the file {name!r}")

    def test_the_manifest_of_another_key(self, damage):
        damage("manifest", lambda content: edited(content, key="0" * 64), "expected SumNumbers with the key")

    def test_the_manifest_of_another_stage(self, damage):
        damage("manifest", lambda content: edited(content, stage="Other"), "the manifest of Other")

    def test_a_digest_that_is_not_that_of_the_files(self, damage):
        def change(content: bytes) -> bytes:
            manifest, _ = parse_content(content)
            del manifest["seal"]
            return seal(manifest | {"digest": "0" * 64})

        damage("manifest", change, "its digest does not match the files")

    def test_files_for_which_there_is_no_room(self, shared, total, monkeypatch):
        shutil.rmtree(CACHE)
        monkeypatch.setattr(remote_module, "free_bytes", lambda folder: 0)
        with pytest.raises(UserError, match="0 MB are free"):
            shared.pull(Artefact(CACHE, "SumNumbers", total.key))
        assert leftovers() == []


class TestPushIsWhole:
    def test_a_truncated_upload_is_refused_and_leaves_nothing(self, total, tool, url, monkeypatch):
        remote = Remote(url)
        with monkeypatch.context() as patch:
            patch.setattr(Remote, "_size", lambda self, place: 1)
            output = tool("push", "--remote", url, status=2)
        assert "1 bytes arrived" in output
        assert f"rcnn-cache: {url}/cas/" in output
        assert places(remote) == []
        assert f"{ARTEFACTS} artefacts pushed" in tool("push", "--remote", url)

    def test_a_damaged_file_is_not_pushed(self, total, tool, url):
        (total.folder / "sum.json").write_text("386")
        tool("push", "--remote", url, status=2)
        assert Remote(url).keys("SumNumbers") == []

    def test_a_remote_cache_that_does_not_answer(self, total, url, monkeypatch):
        remote = Remote(url)

        def refuse(*arguments, **options):
            raise PermissionError("Access Denied")

        monkeypatch.setattr(type(remote.files), "open", refuse)
        with pytest.raises(RemoteError, match="Access Denied"):
            remote.push(Artefact(CACHE, "SumNumbers", total.key))


class TestReadThrough:
    def built(self, stages, **settings) -> list[str]:
        """What is built for the sum with these settings."""
        forget()
        Path("log").unlink(missing_ok=True)
        stages.make(stages.SumNumbers(shard_size=4, **settings))
        return Path("log").read_text().split() if Path("log").exists() else []

    @pytest.fixture(autouse=True)
    def log(self, monkeypatch):
        monkeypatch.setenv("TRIVIAL_LOG", "log")

    def test_nothing_that_is_there_is_computed(self, shared, stages, url):
        before = digests()
        shutil.rmtree(CACHE)
        assert self.built(stages, remote=url) == []
        assert digests().items() <= before.items()
        assert [name.partition("/")[0] for name in digests()] == ["SumNumbers"]  # what it was made from is not needed

    def test_what_the_changed_stage_reads_comes_from_there(self, shared, stages, url):
        shutil.rmtree(CACHE)
        assert self.built(stages, remote=url, offset=1) == ["built", "SumNumbers"]
        assert len(digests()) == 1 + 1 + SHARDS

    def test_forced_stages_are_computed(self, shared, stages, url):
        shutil.rmtree(CACHE)
        assert self.built(stages, remote=url, force="SumNumbers") == ["built", "SumNumbers"]

    def test_what_is_damaged_there_is_made_here(self, shared, total, stages, url, caplog):
        before = digests()
        put(shared, f"{shared.root}/ac/SumNumbers/{total.key}.json", b"{}")
        shutil.rmtree(CACHE)
        assert self.built(stages, remote=url) == ["built", "SumNumbers"]
        assert "refused from the remote cache, made here" in caplog.text
        assert digests()[total.name] == before[total.name]

    def test_new_results_are_put_there_only_if_asked(self, shared, stages, url):
        count = len(places(shared))
        self.built(stages, remote=url, offset=1)
        assert len(places(shared)) == count
        self.built(stages, remote=url, offset=2, remote_write=True)
        assert len(shared.keys("SumNumbers")) == 2

    def test_no_key_and_no_manifest_holds_the_address(self, shared, stages, url):
        self.built(stages, remote=url, offset=3, remote_write=True)
        assert all("remote" not in json.dumps(entry.manifest["settings"]) for entry in Catalogue(CACHE).entries.values())
        forget()
        assert stages.SumNumbers(remote=url).key == stages.SumNumbers().key
