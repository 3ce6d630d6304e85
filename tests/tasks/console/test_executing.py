"""`--engine`: stages run on the workers of a Dask cluster and make the same artefacts, whatever dies."""

import json
import os
import queue
import signal
from types import SimpleNamespace

import pytest
from luigi.scheduler import DONE, FAILED, PENDING, Scheduler

from tasks.console import executing
from tasks.engine.same_code import code_of
from tests.tasks.conftest import Project

SUM = "the sum is 385"
ALL = ["ListNumbers", "RaiseNumbers 0", "RaiseNumbers 1", "RaiseNumbers 2", "RaiseNumbers whole", "SumNumbers"]


def test_a_killed_worker_costs_its_own_stage_and_the_artefacts_are_those_of_a_plain_run(project, tmp_path):
    (tmp_path / "plain").mkdir()
    plain = Project(tmp_path / "plain")
    plain.run("SumNumbers")
    command = project.start("SumNumbers", "--engine", "dask", "--workers", "2", moods={"RaiseNumbers": "hang once"})
    project.wait_until(lambda: project.lines("hanging"), command, seconds=120)  # two interpreters start before
    victim = int(project.lines("hanging")[0].split()[-1])
    os.kill(victim, signal.SIGKILL)
    output = command.communicate(timeout=120)[0]
    assert command.returncode == 0, output
    assert output.count(SUM) == 1
    assert "from the cache" not in output
    assert output.count("RaiseNumbers") > len(ALL), "the workers' lines are shown"
    assert project.digests() == plain.digests()
    built = project.built()
    assert len(built) == len(ALL) + 1
    assert sorted(set(built)) == ALL
    assert project.leftovers() == []
    workers = {manifest["worker"] for manifest in project.manifests().values()}
    assert all(worker.startswith("tls://127.0.0.1:") for worker in workers)
    assert {manifest["worker"] for manifest in plain.manifests().values()} == {""}


@pytest.mark.exhaustive
def test_the_real_stages_make_the_same_on_the_miniature(cold_run, miniatures):
    project = miniatures()
    project.run("FullPipeline", "--engine", "dask", "--workers", "2", "--latency", "3600", fresh=True)
    plain = {f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_text())["digest"]
             for path in cold_run[0].glob("*/*/manifest.json")}
    differing = {name for name, digest in project.digests().items() if plain.get(name) != digest}
    assert {name.partition("/")[0] for name in differing} == {"Summarise"}, "it alone holds seconds"


def test_with_everything_in_the_cache_no_engine_is_started(project):
    project.run("SumNumbers")
    project.built()
    output = project.run("SumNumbers", "--engine", "tcp://127.0.0.1:1")  # nobody listens there
    assert output.count(SUM) == 1
    assert project.built() == []


class TestReport:
    """What Luigi gets of a task that has left the cluster."""

    @pytest.fixture
    def report(self, stages):
        task, executor, results = stages.ListNumbers(), SimpleNamespace(is_lost=False), queue.SimpleQueue()

        def report(status: str, result=None, error=None):
            future = SimpleNamespace(status=status, result=lambda: result, exception=lambda: error)
            executing.RemoteTask(task, executor, results, done=[]).report(future)
            return executor.is_lost or results.get_nowait()[1:]

        return report

    def test_done(self, report):
        assert report("finished", (DONE, None, [], [])) == (DONE, None, [], [])

    def test_failed_there_is_told_here(self, report, caplog):
        explanation = "host: numbers.txt: found a mood\nexpected none"
        with caplog.at_level("ERROR", "luigi-interface"):
            assert report("finished", (FAILED, explanation, [], [])) == (FAILED, explanation, [], [])
        assert "ListNumbers failed: host: numbers.txt: found a mood\n  expected none" in caplog.text

    def test_worker_after_worker_died(self, report):
        class KilledWorker(Exception):  # Dask's has this name
            pass

        status, explanation, *_ = report("error", error=KilledWorker())
        assert status == FAILED
        assert "worker after worker died while it ran, perhaps because memory ran out" in explanation

    @pytest.mark.parametrize("status", ["cancelled", "lost"])
    def test_without_a_scheduler_the_command_ends(self, report, status):
        assert report(status) is True


class TestOnWorker:
    """`run_on_worker` in this process."""

    @pytest.fixture
    def run(self, stages, project, monkeypatch):
        distributed = pytest.importorskip("distributed")
        monkeypatch.chdir(project.folder)
        lines = []
        worker = SimpleNamespace(address="tcp://here:1", log_event=lambda topic, line: lines.append((topic, line["msg"])))
        monkeypatch.setattr(distributed, "get_worker", lambda: worker)

        def run(task, *, digest: str = "", done: tuple[str, ...] = ()):
            code = code_of(task)
            digest = digest or executing.digest_json(executing.describe_code(*code))
            name = task.task_module, task.task_family
            return executing.run_on_worker(name, task.to_str_params(), code, digest, list(done))

        run.lines = lines
        return run

    def test_makes_the_artefact_and_sends_the_lines(self, run, stages):
        task = stages.ListNumbers(job="a job")
        assert run(task) == (DONE, None, [], None)
        assert task.artefact.manifest["worker"] == "tcp://here:1"
        assert [topic for topic, _ in run.lines] == ["stages-a job"] * 2
        assert run.lines[0][1] == f"{task.artefact}: running"

    def test_sends_back_the_shards_that_a_whole_needs(self, run, stages):
        stages.make(stages.ListNumbers())
        status, _, missing, new = run(stages.RaiseNumbers(shard_size=4))
        assert (status, missing) == ("PENDING", [])
        assert [parameters["shard"] for _, _, parameters in new] == ["0", "1", "2"]

    def test_refuses_to_run_for_a_command_with_other_code(self, run, stages):
        status, explanation, *_ = run(stages.ListNumbers(), digest="0" * 64)
        assert status == FAILED
        assert "has other code than the command" in explanation
        assert not stages.ListNumbers().complete()

    def test_what_is_missing_is_waited_for(self, run, stages, monkeypatch):
        looks = []
        monkeypatch.setattr(executing, "is_seen", lambda task, seconds: looks.append((task.stage, seconds)) or task.complete())
        stages.make(stages.RaiseNumbers(shard_size=4))
        run(stages.SumNumbers(shard_size=4, latency=7))
        assert ("RaiseNumbers", 7) in looks
        assert ("SumNumbers", 0) in looks

    def test_only_what_is_done_is_waited_for(self, run, stages, monkeypatch):
        """Else a stage that asks for tasks twice would wait for the second ones before anybody makes them."""
        looks = []
        monkeypatch.setattr(executing, "is_seen", lambda task, seconds: looks.append((task.shard, seconds)) or task.complete())
        stages.make(stages.ListNumbers(latency=7))
        whole = stages.RaiseNumbers(shard_size=4, latency=7)
        stages.make(shard := whole.shards()[0])
        monkeypatch.setattr(stages.RaiseNumbers, "deps", lambda task: [])
        run(whole, done=(shard.task_id,))
        assert looks == [(0, 7), (1, 0)]

    def test_of_what_a_task_gave_back_that_is_waited_for_which_is_done(self, stages):
        """Luigi forgets what a task gave back when another task asks for it: then it comes again too early."""
        worker = executing.Worker(scheduler=Scheduler(), worker_id="here")
        task = stages.RaiseNumbers(engine="dask")
        worker.executor = SimpleNamespace(close=lambda: None)
        worker._scheduled_tasks[task.task_id] = task

        def report(task_id: str, status: str, new: tuple[str, ...] = ()):
            worker._add_task(worker="here", task_id=task_id, family="", status=status, new_deps=list(new), runnable=None)

        def done() -> list[str]:
            return worker._create_task_process(task).done

        report(task.task_id, PENDING, ("a", "b"))
        report("a", DONE)
        report("other", DONE)
        assert done() == ["a"]
        report("b", DONE)
        report(task.task_id, PENDING, ("c",))
        assert done() == ["a", "b"]
