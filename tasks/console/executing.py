"""Luigi's worker hands its stages to an executor (`--engine`), and an executor's worker runs them as Luigi does.

Luigi still plans: it chooses the next task, and takes its result like that of a process of its own.

NOTE: Luigi has no public way to do this. tests/tasks/console/test_luigi.py lists every private name that this module uses.
"""

import contextlib
import logging
import multiprocessing
import queue
import socket
import sys
from collections.abc import Iterator
from functools import lru_cache

import luigi.retcodes
import luigi.worker
from luigi.scheduler import DONE, FAILED
from luigi.task_register import Register, load_task

from tasks.console.log import LUIGI_LOGGERS, OUR_LOGGERS
from tasks.engine.digests import digest_json
from tasks.engine.errors import UserError
from tasks.engine.executor import Executor, topic_of
from tasks.engine.latency import is_seen, wait_for_inputs
from tasks.engine.same_code import describe_code
from tasks.engine.task import CachedTask
from tasks.engine.trouble import memory_advice

log = logging.getLogger("luigi-interface")

GONE = "the Dask scheduler does not answer; what is done is in the cache: start it again, then the same command goes on"


class Worker(luigi.worker.Worker):
    """Luigi's worker. With `--engine` an executor runs the stages; it connects when the first one runs."""

    executor: Executor | None = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._given_back: dict[str, set[str]] = {}  # for each task the ids of the requirements that its `run` gave back
        self._done: set[str] = set()  # the ids of the tasks that are done

    @property
    def worker_processes(self) -> int:
        """How many tasks may run at once."""
        return self.executor.slots() if self.executor else self._processes

    @worker_processes.setter
    def worker_processes(self, number: int) -> None:
        self._processes = number

    def _create_task_process(self, task):
        stage = task if isinstance(task, CachedTask) else getattr(task, "of", None)
        if not getattr(stage, "engine", ""):
            return super()._create_task_process(task)
        if task is not stage:  # it shows the result of `stage` in this process
            wait_for_inputs(task, stage.latency)
            process = super()._create_task_process(task)
            process.use_multiprocessing = False  # a fork would inherit locks that Dask's threads hold
            return process
        if self.executor is None:
            try:
                self.executor = Executor(stage, processes=self._processes)
            except UserError as error:
                raise ends_with(str(error)) from None
        # Luigi also gives a task again when another task has asked for it; then what it gave back may not be done.
        done = self._done & self._given_back.get(task.task_id, set())
        return RemoteTask(task, self.executor, self._task_result_queue, done=sorted(done))

    def _add_task(self, *args, **kwargs):
        super()._add_task(*args, **kwargs)
        task_id = kwargs["task_id"]
        if kwargs["status"] == DONE:
            self._done.add(task_id)
        if new := kwargs.get("new_deps"):
            self._given_back.setdefault(task_id, set()).update(new)

    def _handle_next_task(self):
        super()._handle_next_task()
        if self.executor and self.executor.is_lost:
            raise ends_with(GONE)

    def __exit__(self, *exception):
        super().__exit__(*exception)
        if self.executor:
            self.executor.close()


def ends_with(message: str) -> SystemExit:
    """Prints why the command ends, and returns the SystemExit to raise. For any Exception, Luigi would show a traceback."""
    print(f"luigi: {message}", file=sys.stderr)
    return SystemExit(luigi.retcodes.retcode().scheduling_error or 1)


class Failure(UserError):
    """A worker's report of a task that failed, with the traceback if it is a bug."""

    def __init__(self, report: str):
        super().__init__(*report.split("\n"))


class RemoteTask:
    """A task that the executor runs. It looks like a process to Luigi's worker.

    `done` are the ids of tasks that its `run` will ask for and that are done.
    """

    use_multiprocessing, timeout_time, worker_timeout, exitcode = True, None, 0, None

    def __init__(self, task: CachedTask, executor: Executor, results, *, done: list[str]):
        self.task, self.executor, self.results, self.done = task, executor, results, done
        self.future = None

    def start(self) -> None:
        self.future = self.executor.submit(run_on_worker, self.task, self.done)
        self.future.add_done_callback(self.report)

    def is_alive(self) -> bool:
        return True  # until it reports

    def terminate(self) -> None:
        self.future.cancel()

    def report(self, future) -> None:
        """Gives Luigi the outcome. Dask calls this in a thread of its own."""
        if future.status in ("cancelled", "lost"):
            self.executor.is_lost = True
            return
        error = future.exception()
        if error is None:
            status, explanation, missing, required = future.result()
        else:
            status, explanation, missing, required = FAILED, why(error, self.task), [], []
        if status == FAILED:
            log.error("%s", self.task, exc_info=(Failure, Failure(explanation), None))
        self.results.put((self.task.task_id, status, explanation, missing, required))


def why(error: BaseException, task: CachedTask) -> str:
    """What the user reads when Dask could not run a task."""
    if type(error).__name__ == "KilledWorker":
        return f"worker after worker died while it ran, perhaps because memory ran out: {memory_advice(task)}"
    return f"Dask could not run it: {type(error).__name__}: {error}"


# On a worker

def run_on_worker(name: tuple[str, str], parameters: dict, code: tuple, code_digest: str, done: list[str]) -> tuple:
    """Runs the task of this module and family as Luigi's own process does.

    Returns its status, an explanation, and the missing and the new requirements. Waits for the results of `done`, and of what it
    requires: another host has made them, and this one may see them later. What else it asks for may not have been made.
    """
    import distributed

    if digest_json(describe_code(*code)) != code_digest:
        return FAILED, f"{socket.gethostname()} has other code than the command; the same command says what differs", [], []
    forget_other_jobs(parameters["job"])
    multiprocessing.current_process()._config["daemon"] = False  # Dask's are daemons, which may start no pool of processes
    task, worker, results = load_task(*name, parameters), distributed.get_worker(), queue.SimpleQueue()
    task.worker = worker.address
    awaited = {required.task_id for required in task.deps()}.union(done)
    process = luigi.worker.TaskProcess(
        task, "", results, luigi.worker.TaskStatusReporter(None, task.task_id, "", None), check_complete_on_run=True
    )
    process.check_complete = lambda required: is_seen(required, task.latency if required.task_id in awaited else 0)
    with lines_to_command(worker, topic_of(task.job)):
        process.run()
    return results.get()[1:]


@lru_cache(maxsize=1)
def forget_other_jobs(job: str) -> None:
    """Forgets Luigi's task objects when another command gives work: its keys may differ, because input files have changed."""
    Register.clear_instance_cache()


class _ToCommand(logging.Handler):
    def __init__(self, worker, topic: str):
        super().__init__()
        self.worker, self.topic = worker, topic

    def emit(self, record: logging.LogRecord) -> None:
        line = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname, "created": record.created,
                "msg": record.getMessage()}
        self.worker.log_event(self.topic, line)


@contextlib.contextmanager
def lines_to_command(worker, topic: str) -> Iterator[None]:
    """Within this context the log lines of stages go to the command alone; it also reports the failure, if there is one."""
    loggers = [logging.getLogger(name) for name in OUR_LOGGERS]
    before = [logger.handlers for logger in loggers]
    of_luigi = [logging.getLogger(name) for name in LUIGI_LOGGERS]
    try:
        for logger in loggers:
            logger.handlers = [_ToCommand(worker, topic)]
        for logger in of_luigi:
            logger.disabled = True
        yield
    finally:
        for logger, handlers in zip(loggers, before, strict=True):
            logger.handlers = handlers
        for logger in of_luigi:
            logger.disabled = False
