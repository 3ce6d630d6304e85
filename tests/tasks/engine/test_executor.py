"""The executor refuses what cannot work, by name: engines, cluster files, workers with other code."""

import os
from types import SimpleNamespace

import pytest

from tasks.engine import clusters, executor, locks
from tasks.engine.clusters import make_cluster
from tasks.engine.errors import UserError
from tasks.engine.executor import Executor, describe_worker
from tasks.engine.latency import is_seen, wait_for_inputs
from tasks.engine.same_code import code_of, describe_code, differences

pytest.importorskip("distributed")


@pytest.mark.parametrize(("engine", "message"), [
    ("dusk", "--engine dusk: expected dask, an address such as tcp://host:8786, or a .yaml or .yml file"),
    ("none.yaml", r"--engine none\.yaml: cannot be read .*; give a YAML file"),
])
def test_wrong_engine(engine, message):
    with pytest.raises(UserError, match=message):
        Executor(SimpleNamespace(engine=engine, in_flight=0), processes=1)


class Recorder:
    """Stands for a cluster class; refuses the option `wrong`."""

    def __init__(self, **options):
        if "wrong" in options:
            raise TypeError("unexpected option wrong")
        self.calls = [("options", options)]

    def adapt(self, **limits):
        self.calls.append(("adapt", limits))

    def scale(self, number):
        self.calls.append(("scale", number))


class TestClusterFile:
    @pytest.fixture
    def write(self, tmp_path, monkeypatch):
        monkeypatch.setattr(clusters, "Recorder", Recorder, raising=False)

        def write(text: str):
            path = tmp_path / "cluster.yaml"
            path.write_text(text)
            return path

        return write

    @pytest.mark.parametrize(("text", "calls", "planned"), [
        ("", [("options", {})], 0), ("options: {cores: 8, queue: batch}", [("options", {"cores": 8, "queue": "batch"})], 0),
        ("adapt: {minimum: 0, maximum: 40}", [("options", {}), ("adapt", {"minimum": 0, "maximum": 40})], 40),
        ("scale: 3", [("options", {}), ("scale", 3)], 3),
    ])
    def test_names_a_class_and_its_size(self, write, text, calls, planned):
        cluster, threads = make_cluster(write(f"cluster: tasks.engine.clusters.Recorder\n{text}"))
        assert cluster.calls == calls
        assert threads == planned

    @pytest.mark.parametrize(("text", "message"), [
        ("- a", "expected an entry `cluster`, and no others than cluster"),
        ("options: {}", "expected an entry `cluster`"),
        ("cluster: 3", "expected an entry `cluster`"),
        ("cluster: tasks.engine.clusters.Recorder\nadept: {}", "no others than"),
        ("cluster: no_such_package.Cluster", "install no-such-package, or correct the name"),
        ("cluster: tasks.engine.clusters.Nothing", "or correct the name"),
        ("cluster: Nothing", "or correct the name"),
        ("cluster: tasks.engine.clusters.Recorder\noptions: {wrong: 1}", "TypeError: unexpected option wrong; correct `options`"),
        ("cluster: [", "cannot be read"),
    ])
    def test_that_is_wrong_is_refused_by_name(self, write, text, message):
        path = write(text)
        with pytest.raises(UserError, match=message) as caught:
            make_cluster(path)
        assert str(path) in str(caught.value)


OURS = {"Python": "3.11", "torch": "2.4", "tasks/a.py": "0", "tasks/b.py": "1"}


class TestWorkers:
    @pytest.mark.parametrize(("theirs", "expected"), [
        (OURS, []),
        (OURS | {"torch": "2.5"}, ["torch 2.5, here 2.4"]),
        ({"Python": "3.11", "tasks/a.py": "2", "tasks/b.py": "1", "tasks/c.py": "3"},
         ["tasks/a.py differs", "tasks/c.py differs", "torch none, here 2.4"]),
    ])
    def test_other_code_is_named(self, theirs, expected):
        assert differences(OURS, theirs) == expected

    def test_code_is_that_of_the_stage_and_of_all_that_it_builds_on(self, stages):
        packages, sources = code_of(stages.ListNumbers())
        assert {"torch", "numpy", "distributed"} <= set(packages)
        assert sources == ("pipeline", "tasks", "trivial_stages")
        code = describe_code(packages, sources)
        assert {"Python", "torch", "pipeline/boxes.py", "tasks/engine/task.py", "trivial_stages.py"} <= code.keys()

    def test_a_changed_file_is_other_code(self, tmp_path, monkeypatch):
        (tmp_path / "some_stages").mkdir()
        (tmp_path / "some_stages" / "a.py").write_text("A = 1\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        before = describe_code.__wrapped__((), ("some_stages",))
        (tmp_path / "some_stages" / "a.py").write_text("A = 2\n")
        assert differences(before, describe_code.__wrapped__((), ("some_stages",))) == ["some_stages/a.py differs"]

    def answer(self, **others) -> dict:
        return {"code": OURS, "sees": True, "locked": True, "cache": "/there/cache"} | others

    @pytest.mark.parametrize(("answer", "threads", "fault"), [
        ({}, 1, ""), ({"locked": False}, 1, ""),
        ({"code": OURS | {"torch": "2.5"}}, 1, "other code (torch 2.5, here 2.4): give them the code"),
        ({}, 8, "found 8 threads, expected 1: start it with --nthreads 1"),
        ({"sees": False}, 1, "does not see the cache /there/cache: start it in the project's folder"),
    ])
    def test_what_cannot_be_used_is_named(self, answer, threads, fault):
        message = executor._fault(self.answer(**answer), OURS, threads)
        assert message.startswith(fault)
        assert bool(message) == bool(fault)

    def test_that_cannot_import_the_stages(self):
        fault = executor._fault(ModuleNotFoundError("No module named 'tasks'"), OURS, 1)
        assert fault.startswith("cannot import the stages (No module named 'tasks'): ")

    def test_sees_the_cache_and_its_locks(self, tmp_path):
        (tmp_path / "cache" / ".locks").mkdir(parents=True)
        path = tmp_path / "cache" / ".locks" / "a.lock"
        assert describe_worker((), (), str(path))["sees"] is False
        path.touch()
        assert (describe_worker((), (), str(path))["sees"], describe_worker((), (), str(path))["locked"]) == (True, False)
        with locks.held(path):
            assert describe_worker((), (), str(path))["locked"] is True
        assert describe_worker((), (), str(path))["cache"] == os.fspath(tmp_path / "cache")


class Late:
    """A task whose result is seen at the look of this number."""

    def __init__(self, looks: int, *required: "Late"):
        self.left, self.required = looks, required

    def complete(self) -> bool:
        self.left -= 1
        return self.left <= 0

    def deps(self):
        return self.required


class TestLatency:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        monkeypatch.setattr("tasks.engine.latency.LOOK_EVERY", 0.01)

    def test_waits_until_it_is_seen(self):
        assert is_seen(Late(1), 0)
        assert not is_seen(Late(2), 0)
        assert is_seen(Late(4), 5)
        assert not is_seen(Late(1000), 0.05)

    def test_inputs_share_the_time(self):
        assert wait_for_inputs(Late(1, Late(3), Late(3)), 5)
        assert not wait_for_inputs(Late(1, Late(1000), Late(1000)), 0.05)
        assert wait_for_inputs(Late(1), 0)

    def test_lists_the_folder_so_that_the_system_asks_the_server_again(self, stages, project, monkeypatch):
        monkeypatch.chdir(project.folder)
        task, listed, listdir = stages.ListNumbers(), [], os.listdir
        monkeypatch.setattr("tasks.engine.latency.os.listdir", lambda path: listed.append(path) or listdir(path))
        assert not is_seen(task, 0.02)
        assert {task.artefact.cache, task.artefact.folder.parent} <= set(listed)


class TestHealer:
    """One process of two has ended for good; another takes its place, once and after a while."""

    def test_replaces_what_stays_dead(self, monkeypatch):
        clock, closed, scaled = [100.0], [], []
        monkeypatch.setattr(clusters.time, "monotonic", lambda: clock[0])
        living = SimpleNamespace(is_alive=lambda: True)
        dead = SimpleNamespace(is_alive=lambda: False, close=lambda: closed.append(1))
        loop = SimpleNamespace(add_callback=lambda function: function())
        cluster = SimpleNamespace(workers={0: living, 1: dead}, loop=loop, scale=scaled.append)
        healer = clusters.Healer(cluster, 2)
        for now, left in ((100, [0, 1]), (104, [0, 1]), (106, [0]), (120, [0])):
            clock[0] = now
            healer.heal()
            assert list(cluster.workers) == left
        assert closed == [1]
        assert scaled == [2] * 4

    def test_does_not_replace_what_starts_again(self, monkeypatch):
        clock, alive = [100.0], [False]
        monkeypatch.setattr(clusters.time, "monotonic", lambda: clock[0])
        cluster = SimpleNamespace(workers={0: SimpleNamespace(is_alive=lambda: alive[0])},
                                  loop=SimpleNamespace(add_callback=lambda function: function()), scale=lambda number: None)
        healer = clusters.Healer(cluster, 1)
        for now, is_alive in ((100, False), (104, True), (108, False), (112, False)):
            clock[0], alive[0] = now, is_alive
            healer.heal()
        assert list(cluster.workers) == [0]
