"""What `tasks/console` leans on of Luigi's insides, each private name by itself; and that no other package does."""

import importlib
import inspect
import re
from argparse import ArgumentParser
from pathlib import Path
from unittest.mock import Mock

import luigi
import pytest
from luigi import execution_summary, interface, retcodes, rpc, scheduler, worker
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register

import tasks  # noqa: F401 - sets its hooks
from tasks.console import cluster, command_line, executing

REPOSITORY = Path(__file__).resolve().parents[3]

# The names that `tasks/console` leans on. Where one is gone, a new version of Luigi needs a look at it.
PRIVATE = {
    interface: ["_WorkerSchedulerFactory", "_schedule_and_run"],
    interface._WorkerSchedulerFactory: ["create_local_scheduler", "create_remote_scheduler", "create_worker"],
    rpc.RemoteScheduler: ["_request", "_get_retryer"],
    worker.Worker: ["_add_task", "_get_work", "_handle_next_task", "_keep_alive", "_run_task", "add", "run",
                    "_create_task_process", "__exit__"],
    worker.TaskProcess: ["run", "start", "is_alive", "terminate"],
    worker: ["TaskStatusReporter"],
    scheduler.Scheduler: ["task_list", "fetch_error", "re_enable_task", "forgive_failures", "dep_graph", "worker_list",
                          "is_paused", "get_work", "count_pending"],
    execution_summary: ["_summary_dict", "_root_task"],
    CmdlineParser: ["_build_parser", "get_task_obj"],
    Register: ["task_names", "get_task_cls", "_get_reg"],
    ArgumentParser: ["error", "exit"],
    luigi.Task: ["__repr__"],
}


class TestLuigi:
    @pytest.mark.parametrize(("place", "name"), [(place, name) for place, names in PRIVATE.items() for name in names],
                             ids=lambda value: value if isinstance(value, str) else "")
    def test_has_what_we_override_and_call(self, place, name):
        assert callable(getattr(place, name))

    @pytest.mark.parametrize(("cls", "names"), [
        (rpc.RemoteScheduler("http://127.0.0.1:1"), ["_url", "_rpc_retry_attempts", "_rpc_retry_wait", "_rpc_log_retries"]),
        (worker.Worker(scheduler=Mock(), no_install_shutdown_handler=True), [
            "_add_task_history", "_assistant", "_config", "_get_work_response_history", "_running_tasks", "_scheduled_tasks",
            "worker_processes", "_task_result_queue",
        ]),
    ], ids=["RemoteScheduler", "Worker"])
    def test_has_the_attributes_that_we_read_and_set(self, cls, names):
        assert [name for name in names if not hasattr(cls, name)] == []

    def test_passes_and_reads_what_we_think(self):
        assert inspect.getsource(interface._schedule_and_run).count("_WorkerSchedulerFactory()") == 1
        assert "_add_task_history" in inspect.getsource(execution_summary._partition_tasks)
        assert "execution_summary._summary_dict(worker)" in inspect.getsource(retcodes.run_with_retcodes)
        run_task = inspect.getsource(worker.Worker._run_task)
        assert "task_process.start()" in run_task
        assert "task_process.use_multiprocessing" in run_task
        assert "self.worker_processes > 0" in inspect.getsource(worker.Worker.run), "asks for it again and again"
        purge = inspect.getsource(worker.Worker._purge_children)
        assert all(f"p.{name}" in purge for name in ("is_alive()", "exitcode", "timeout_time"))
        assert "reply = self.count_pending(worker_id)" in inspect.getsource(scheduler.Scheduler.get_work)
        assert "self.check_complete(dep)" in inspect.getsource(worker.TaskProcess.run)
        assert "self.result_queue.put((self.task.task_id, status, expl, missing, new_deps))" in inspect.getsource(
            worker.TaskProcess.run)
        assert "except Exception:" in inspect.getsource(retcodes.run_with_retcodes), "lets SystemExit pass"

    def test_set_up_is_in_force(self):
        importlib.import_module("tasks")
        assert interface._WorkerSchedulerFactory is cluster.Factory
        local = cluster.Factory().create_worker(scheduler.Scheduler(), 1)
        assert type(local) is executing.Worker

    @pytest.mark.parametrize("words", [
        "", "--threads 2 --no-lock", "--TrainSVMs-svm-c 3", "--Evaluate-chains=spp --workers 3 --Evaluate-vis",
        "--MergeDetections-threads 4 --GenerateDigits-train-images 5",
    ])
    def test_reads_the_same_as_our_parser_of_fewer_options(self, words):
        words = ["--module", "tasks", "Evaluate", *words.split()]
        for stage in None, "Evaluate":
            theirs, unknown = CmdlineParser._build_parser.original(root_task=stage).parse_known_args(words)
            ours, ours_unknown = command_line.StageParser(stage).parse_known_args(words)
            assert ours_unknown == unknown
            given = {name: value for name, value in vars(theirs).items() if value}
            assert {name: value for name, value in vars(ours).items() if value} == given

    def test_help_is_that_of_our_parser_of_fewer_options(self):
        theirs = CmdlineParser._build_parser.original(root_task="Evaluate").format_help().replace("[", " ").split()
        hidden = {word for word in theirs if word.startswith("--Evaluate-")}
        ours = command_line.StageParser("Evaluate").format_help().replace("[", " ").split()
        assert hidden < set(ours) <= set(theirs)

    def test_parses_options_as_we_think(self):
        parser = CmdlineParser._build_parser.original(root_task="TrainSVMs")
        assert "--svm-c" in parser._option_string_actions
        assert "--TrainSVMs-svm-c" in parser._option_string_actions
        assert "cp.get_task_obj()" in inspect.getsource(interface._run)


# A private name of Luigi's: an attribute that begins with one underscore, of the package or of what is imported from it.
PRIVATE_USE = re.compile(r"luigi[\w.]*\._[a-z]\w*|parameter\._[a-z]\w*|task\._[a-z]\w*")


def test_no_other_package_leans_on_a_private_name():
    paths = [path for path in (REPOSITORY / "tasks").rglob("*.py") if "console" not in path.parts]
    assert len(paths) > 50
    uses = [f"{path.name}: {use}" for path in paths for use in PRIVATE_USE.findall(path.read_text())]
    assert uses == []
