"""Several hosts and luigid: everything is made once, whoever dies, and each command ends with the status of the whole."""

import json
import os
import time
from pathlib import Path

import luigi
import pytest
from luigi import scheduler

from tasks.console import cluster
from tasks.engine.jobs import jobs_of, with_job
from tests.tasks.conftest import Project
from tests.tasks.hosts import Hosts, kill, status_and_output

SLOW = {"RaiseNumbers": "slow"}
ALL = ["ListNumbers", "RaiseNumbers 0", "RaiseNumbers 1", "RaiseNumbers 2", "RaiseNumbers whole", "SumNumbers"]
SUM = "the sum is 385"
CLOCK = "import time\nnow = time.time\ntime.time = lambda: now() + {seconds}\n"


@pytest.fixture
def hosts(project):
    with Hosts(project) as hosts:
        yield hosts


@pytest.fixture
def clock(tmp_path):
    """A function that gives the variables with which a process has a clock that is `seconds` fast."""

    def variables(seconds: int) -> dict[str, str]:
        folder = tmp_path / f"clock{seconds}"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(CLOCK.format(seconds=seconds))
        search = [str(folder), str(cluster.__file__.rsplit("/", 2)[0]), os.path.dirname(__file__)]
        return {"PYTHONPATH": os.pathsep.join(search)}

    return variables


def assert_gone(process) -> None:
    """Checks that no process of the host's group is left."""
    Project.wait_until(lambda: not Path(f"/proc/{process.pid}").exists())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


class TestHosts:
    def test_undisturbed_everything_is_made_once_and_the_job_shows_it(self, project):
        with Hosts(project, idle=3) as hosts:
            moods = {"RaiseNumbers": "three at once"}
            assistants = [hosts.start("SumNumbers", "--assistant", "--threads", "3", moods=moods) for _ in range(2)]
            hosts.wait_until_they_ask(2)  # else the job may have made everything before
            status, output = status_and_output(hosts.start("SumNumbers", "--threads", "1", moods=moods))
            assert (status, output.count(SUM)) == (0, 1), output
            threads = {manifest["threads"] for manifest in project.manifests().values()}
            assert threads == {1, 3}, "each host has threads of its own"
            assert "from the cache" not in output, "what an assistant made for the job is of this run"
            assert project.built() == ALL
            for assistant in assistants:
                status, output = status_and_output(assistant)
                assert status == 0, output
                assert SUM not in output
            assert project.leftovers() == []

    def test_again_it_shows_the_same_and_makes_nothing(self, project, hosts):
        status_and_output(hosts.start("SumNumbers"))
        project.built()
        status, output = status_and_output(hosts.start("SumNumbers"))
        assert (status, output.count(SUM)) == (0, 1), output
        assert "Nothing to do" in output
        assert project.built() == []

    @pytest.mark.exhaustive
    def test_what_a_killed_assistant_was_doing_goes_on(self, project, hosts):
        assistant = hosts.start("SumNumbers", "--assistant", moods={"RaiseNumbers": "hang"})
        job = hosts.start("SumNumbers", moods={"ListNumbers": "slow", "RaiseNumbers": "slow"})
        project.wait_until(lambda: project.lines("hanging"), job)
        kill(assistant)
        status, output = status_and_output(job)
        assert (status, output.count(SUM)) == (0, 1), output
        assert "RaiseNumbers: the host that ran it does not answer; it is tried again" in output
        built = project.built()
        assert len(built) == len(ALL) + 1
        assert sorted(set(built)) == ALL

    @pytest.mark.exhaustive
    def test_job_killed_and_given_again(self, project, hosts):
        job = hosts.start("SumNumbers", moods={"RaiseNumbers": "hang"})
        project.wait_until(lambda: project.lines("hanging"), job)
        assistant = hosts.start("SumNumbers", "--assistant", moods=SLOW)
        project.wait_until(lambda: len(project.lines("built RaiseNumbers")) > 1, assistant)
        kill(job)
        status, output = status_and_output(hosts.start("SumNumbers"))
        assert (status, output.count(SUM)) == (0, 1), output
        built = project.built()
        assert len(built) == len(ALL) + 1
        assert sorted(set(built)) == ALL
        assert status_and_output(assistant)[0] == 0

    @pytest.mark.exhaustive
    def test_a_failure_on_an_assistant_ends_both_with_its_message_and_the_next_command_tries_again(self, project, hosts):
        assistant = hosts.start("SumNumbers", "--assistant", moods={"RaiseNumbers": "user error"})
        job = hosts.start("SumNumbers", moods={"ListNumbers": "slow", "RaiseNumbers": "slow"})
        for process in job, assistant:
            status, output = status_and_output(process)
            assert status == 30, output
            assert "numbers.txt: found a mood\n  expected none; cheer up" in output
            assert "Traceback" not in output
            assert SUM not in output
        status, output = status_and_output(hosts.start("SumNumbers"))
        assert (status, output.count(SUM)) == (0, 1), output

    def test_a_failure_of_showing_is_the_jobs(self, hosts):
        status, output = status_and_output(hosts.start("SumNumbers", moods={"show": "user error"}))
        assert status == 30, output
        assert "SumNumbers failed: numbers.txt: found a mood" in output

    @pytest.mark.exhaustive
    def test_clocks_that_are_an_hour_off_do_no_harm(self, project, hosts, clock):
        status_and_output(hosts.start("SumNumbers", fresh=True, variables=clock(3600)))
        project.built()
        forced = "--force", "ListNumbers,RaiseNumbers,SumNumbers"
        for seconds in -3600, 3600:
            hosts.start("SumNumbers", *forced, "--assistant", moods=SLOW, fresh=True, variables=clock(seconds))
        status, output = status_and_output(hosts.start("SumNumbers", *forced, moods=SLOW))
        assert (status, output.count(SUM)) == (0, 1), output
        assert "from the cache" not in output
        assert project.built() == ALL


class TestScheduler:
    def test_not_there_is_one_line(self, project):
        started = time.monotonic()
        status, output = status_and_output(Hosts(project).start("SumNumbers"))
        assert status == 35
        assert time.monotonic() - started < 10
        assert output.count("\n") == 1
        assert output.startswith("luigi: no answer from the scheduler at http://127.0.0.1:")
        assert "--local-scheduler" in output

    @pytest.mark.exhaustive
    def test_gone_in_the_middle_is_one_line_and_nothing_stays(self, project):
        with Hosts(project, disconnect=20, idle=20) as hosts:  # between two forks a host imports, and says nothing for seconds
            processes = [hosts.start("SumNumbers", *extra, "--workers", "2", moods={"RaiseNumbers": "hang"})
                         for extra in [[], ["--assistant"]]]
            project.wait_until(lambda: project.lines("hanging"), processes[0])
            kill(hosts.scheduler)
            ended = [(process, *status_and_output(process)) for process in processes]
        for process, status, output in ended:
            assert status == 35, output
            assert output.count("luigi: no answer from the scheduler") == 1
            assert "Traceback" not in output
            assert "same command goes on" in output
            assert_gone(process)

    @pytest.mark.exhaustive
    def test_started_again_it_goes_on(self, project, hosts):
        job = hosts.start("SumNumbers", moods=SLOW)
        project.wait_until(lambda: project.lines("built RaiseNumbers"), job)
        kill(hosts.scheduler)
        hosts.start_scheduler()
        status, output = status_and_output(job)
        assert (status, output.count(SUM)) == (0, 1), output
        assert project.built() == ALL


OURS = {"retry_count": 1, "disable_persist": 10**9, "stable_done_cooldown_secs": 0, "prune_on_get_work": True}
LUIGIS = {"retry_count": 10**9}  # as in a scheduler that was started without our settings


@pytest.fixture(params=[OURS, pytest.param(LUIGIS, marks=pytest.mark.exhaustive)], ids=["our settings", "luigi's"])
def central(request):
    """A scheduler in this process, which soon gives up workers that it does not hear of, and a job's worker on it."""
    server = scheduler.Scheduler(**request.param, worker_disconnect_delay=0.5)
    settings = {"keep_alive": True, "wait_interval": 0.05, "wait_jitter": 0, "no_install_shutdown_handler": True}
    server.check = lambda: None
    return server, cluster.Worker(scheduler=server, worker_id="job", **settings)


class TestWorker:
    @pytest.fixture(autouse=True)
    def in_project(self, project, monkeypatch):
        monkeypatch.chdir(project.folder)
        monkeypatch.setattr(cluster, "FIRST_JOIN", 0.5)
        monkeypatch.setattr(cluster, "LOOK_EVERY", 0.1)

    def test_shards_that_only_a_dead_assistant_knew_are_made(self, stages, central, monkeypatch):
        server, job = central
        task = stages.SumNumbers(shard_size=4)
        whole = task.requires()["powers"]
        stages.make(task.requires()["powers"].index_task())
        job._join_after = 0.5
        job.add(task)
        given = server.get_work(worker="dead", host="dead", assistant=True, current_tasks=[])
        assert given["task_id"] == whole.task_id
        shards = whole.shards()
        for shard in shards:
            server.add_task(worker="dead", task_id=shard.task_id, family="RaiseNumbers", module="trivial_stages",
                            params=shard.to_str_params())
        server.add_task(worker="dead", task_id=whole.task_id, status="PENDING", new_deps=[shard.task_id for shard in shards])
        assert job.run()
        assert task.complete()

    def test_a_failure_elsewhere_ends_the_job_when_the_rest_is_done(self, stages, central):
        server, job = central
        task = stages.SumNumbers(shard_size=4)
        job.add(task)
        given = server.get_work(worker="other", host="other", assistant=True, current_tasks=[])
        server.add_task(worker="other", task_id=given["task_id"], status="FAILED", expl=json.dumps("other: out of luck"))
        started = time.monotonic()
        assert not job.run()
        assert time.monotonic() - started < 10
        assert job._failed_elsewhere == ["ListNumbers failed on another host: other: out of luck"]

    @pytest.mark.exhaustive
    def test_a_task_that_kills_every_host_is_given_up(self, stages, central):
        server, job = central
        task = stages.SumNumbers(shard_size=4)
        job.add(task)
        for loss in range(cluster.MAX_LOSSES):
            index = task.requires()["powers"].index_task()
            given = server.get_work(worker=f"dead{loss}", host="dead", assistant=True, current_tasks=[])
            assert given["task_id"] == index.task_id
            time.sleep(0.6)
            server.prune()
            job._looked_at = 0
            job._look_after_the_dead()
        given = server.get_work(worker="dead", host="dead", assistant=True, current_tasks=[])
        time.sleep(0.6)
        assert not job.run()
        assert job._failed_elsewhere == ["ListNumbers failed on another host: 3 hosts died while they ran it"]

    def test_it_waits_until_it_sees_what_another_host_made(self, stages, central, monkeypatch):
        job = central[1]
        task = stages.SumNumbers(shard_size=4)
        stages.make(task.requires()["powers"])
        job.add(task)
        seen = iter([False, False, True])
        monkeypatch.setattr(type(task.requires()["powers"]), "complete", lambda self: next(seen, True))
        assert job.run()

    def test_an_assistant_keeps_its_own_folders_threads_and_device(self, stages):
        mine = stages.SumNumbers(threads=3, cache_dir="here", data_dir="there", device="cuda", power=2)
        theirs = stages.RaiseNumbers(threads=1, power=3, force="RaiseNumbers", job="theirs")
        task = cluster.as_on_this_host(theirs, mine)
        assert task.param_kwargs == theirs.param_kwargs | {
            "threads": 3, "cache_dir": "here", "data_dir": "there", "device": "cuda",
        }
        assert task.task_id == theirs.task_id


class TestForced:
    def test_what_is_made_again_for_one_job_is_new_enough_for_another(self, stages, project, monkeypatch):
        monkeypatch.chdir(project.folder)

        def forced(job: str) -> luigi.Task:
            luigi.task_register.Register.clear_instance_cache()  # as another process
            return stages.SumNumbers(shard_size=4, force="SumNumbers", job=job)

        stages.make(stages.SumNumbers(shard_size=4))
        assert not forced("one").complete()
        stages.make(forced("one"))
        assert forced("one").complete()
        assert not forced("two").complete()
        stages.make(forced("two"))
        assert forced("one").complete(), "else the two would make it in turns"
        assert forced("two").complete()
        manifest = forced("two").artefact.manifest
        assert manifest["jobs"][-2:] == ["one", "two"]
        assert "job" not in manifest["settings"], "the command that makes it again has another"

    def test_the_list_of_jobs_stays_short_and_bad_ones_are_none(self):
        jobs = []
        for number in range(100):
            jobs = with_job({"jobs": jobs}, str(number))
        assert jobs == [str(number) for number in range(92, 100)]
        for manifest in None, {}, {"jobs": None}, {"jobs": "one"}, {"jobs": {"one": 1}}, {"jobs": [[1], None]}:
            assert jobs_of(manifest) == []


@pytest.mark.exhaustive
def test_two_commands_that_force_one_stage_both_end_well(project):
    project.run("SumNumbers")
    commands = [project.start("SumNumbers", "--force", "RaiseNumbers", moods=SLOW) for _ in range(2)]
    for command in commands:
        status, output = status_and_output(command)
        assert status == 0, output
