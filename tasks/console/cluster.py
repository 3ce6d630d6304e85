"""Runs one command on several hosts that share a cache folder and a scheduler (`luigid`). Luigi's own worker cannot do all of it.

One host runs the command: it owns the job. The others run it with `--assistant` and take tasks from the scheduler.

- The job is done when its result is in the cache, whichever host made it. The owner then shows the result.
- When a host dies, its task is tried again. The scheduler counts that task as failed, but no host has reported an error for it.
- When a stage fails on any host, the job ends with its message and status 30. The same command given again is a new job.
  Each job has its own tasks on the scheduler (`CachedTask.job`), so a failure of an earlier job does not affect a new one.
- Without the scheduler, the command ends with one line.

NOTE: Luigi has no public way to do this. tests/tasks/console/test_cluster.py lists every private name that this module uses.
"""

import collections
import contextlib
import http.client
import json
import logging
import sys
import time
from collections.abc import Iterable

import luigi
import luigi.interface
import luigi.retcodes
import luigi.rpc
import luigi.worker
from luigi.scheduler import DISABLED, DONE, FAILED, PENDING

from tasks.console import executing
from tasks.console.own_scheduler import OwnScheduler
from tasks.engine.latency import wait_for_inputs
from tasks.engine.printing import ShowResult

logger = logging.getLogger("luigi-interface")

HOST_SETTINGS = "cache_dir", "data_dir", "threads", "device"  # an assistant takes these from its own command
ATTEMPTS, WAIT = 4, 2  # requests to a silent scheduler, and seconds between them: enough time to start it again
LOOK_EVERY = 1.0  # seconds between two requests for the failed tasks
FIRST_JOIN, LAST_JOIN = 5.0, 300.0  # seconds between two rounds in which an idle job offers its tasks again
MAX_LOSSES = 3  # when so many hosts died while they ran a task, the task has failed
NO_ERROR = None, "", '""', "null"  # the scheduler's explanation of a failed task when no host has reported an error
NO_ANSWER = OSError, http.client.HTTPException, ValueError, LookupError, luigi.rpc.RPCError
TO_START = "start it as luigi-cluster.cfg says, or add --local-scheduler to run on this host alone"
TO_GO_ON = "what is done is in the cache: start the scheduler again, then the same command goes on"


def set_up() -> None:
    """Makes the `luigi` command use the classes of this module when it works with a scheduler for several hosts."""
    luigi.interface._WorkerSchedulerFactory = Factory


class Factory(luigi.interface._WorkerSchedulerFactory):
    def create_local_scheduler(self):
        return OwnScheduler()

    def create_remote_scheduler(self, url):
        return Scheduler(url)

    def create_worker(self, scheduler, worker_processes, assistant=False):
        worker_class = Worker if isinstance(scheduler, Scheduler) else executing.Worker
        return worker_class(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)


class Scheduler(luigi.rpc.RemoteScheduler):
    """The scheduler on another host. When it does not answer, the program ends with one line."""

    def __init__(self, url: str):
        super().__init__(url)
        self._rpc_retry_attempts, self._rpc_retry_wait = ATTEMPTS, WAIT
        self._rpc_log_retries = False  # Luigi would log a traceback for each
        self.once = luigi.rpc.RemoteScheduler(url)
        self.once._rpc_log_retries, self.once._rpc_retry_attempts = False, 1
        self._silent_since, self._silence = 0.0, None  # the error of the last ping, if it failed
        try:
            self.once.is_paused()
        except NO_ANSWER as error:
            raise self.lost(error, TO_START) from None

    def ping(self, **kwargs):
        """Says that the worker is alive. Runs in a thread, which cannot end the program; `check` does that."""
        try:
            answer, self._silence = self.once.ping(**kwargs), None
            return answer
        except NO_ANSWER as error:
            self._silent_since = self._silent_since if self._silence else time.monotonic()
            self._silence = error

    def check(self) -> None:
        """Ends the program when the scheduler has been silent for long. While all workers are busy, only the pings show it."""
        if (error := self._silence) and time.monotonic() - self._silent_since > ATTEMPTS * WAIT:
            raise self.lost(error, TO_GO_ON)

    def _request(self, url, data, **kwargs):
        try:
            return super()._request(url, data, **kwargs)
        except NO_ANSWER as error:
            raise self.lost(error, TO_GO_ON) from None

    def lost(self, error: Exception, advice: str) -> SystemExit:
        """Prints why the program ends, and returns the SystemExit to raise. For any Exception, Luigi would show a traceback."""
        error = getattr(error, "sub_exception", None) or error
        reason = getattr(error, "reason", None) or error
        print(f"luigi: no answer from the scheduler at {self._url} ({reason}); {advice}", file=sys.stderr)
        return SystemExit(luigi.retcodes.retcode().scheduling_error or 1)


class Worker(luigi.worker.Worker):
    """A worker. It works for its own job or, if it is an assistant, for all jobs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._root = None
        self._all_added = True
        self._losses: collections.Counter[str] = collections.Counter()  # hosts that died, by task id
        self._errors: dict[str, str] = {}  # errors of the failed tasks of all jobs, by task id
        self._failed_elsewhere: list[str] = []
        self._looked_at = self._joined_at = self._busy_at = time.monotonic()
        self._join_after = FIRST_JOIN

    # Tasks to do

    def add(self, task, *args, **kwargs):
        if self._root is None:
            self._root = task
            if self._goal.engine:
                raise executing.ends_with("--engine and luigid exclude each other: leave one of them out")
            if self._assistant:  # its tasks and their settings come from the scheduler
                return True
        added = super().add(task, *args, **kwargs)
        self._all_added &= added
        return added

    def _add_task(self, *args, **kwargs):
        task, status = self._scheduled_tasks.get(kwargs["task_id"]), kwargs["status"]
        if isinstance(task, ShowResult):  # the scheduler might give it to another host, which would print the result there
            self._add_task_history.append((task, status, kwargs["runnable"]))
            return
        super()._add_task(*args, **kwargs)
        if status == DONE:
            self._busy_at, self._join_after = time.monotonic(), FIRST_JOIN

    def _handle_next_task(self):
        self._scheduler.check()
        super()._handle_next_task()

    def _get_work(self):
        work = super()._get_work()
        if work.task_id is None:
            self._look_after_the_dead()
        elif self._assistant:
            self._busy_at = time.monotonic()
            self._scheduled_tasks[work.task_id] = as_on_this_host(self._scheduled_tasks[work.task_id], self._goal)
        return work

    def _run_task(self, task_id):
        """Runs the task once this host sees its inputs: a file server may show an artefact of another host with a delay."""
        wait_for_inputs(self._scheduled_tasks[task_id], self._goal.latency)
        super()._run_task(task_id)

    # Other hosts

    def _tasks_with(self, status: str) -> dict[str, dict]:
        """All tasks of the scheduler that have this status, by id."""
        return self._scheduler.task_list(status=status, upstream_status="", limit=False)

    def _error_of(self, task_id: str) -> str | None:
        """The error that a host has reported for a failed task; None if its host died."""
        text = self._scheduler.fetch_error(task_id)["error"]
        if text in NO_ERROR:
            return None if self._losses[task_id] < MAX_LOSSES else f"{MAX_LOSSES} hosts died while they ran it"
        with contextlib.suppress(ValueError):
            text = json.loads(text)
        return str(text).strip()

    def _look_after_the_dead(self) -> None:
        """Lets other hosts try the tasks of hosts that died, and notes the errors of tasks that failed."""
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return
        self._looked_at, self._errors = time.monotonic(), {}
        for task_id, task in (self._tasks_with(DISABLED) | self._tasks_with(FAILED)).items():
            if error := self._error_of(task_id):
                self._errors[task_id] = error
            else:
                self._losses[task_id] += 1
                if self._scheduler.re_enable_task(task_id):  # false if another host was first
                    logger.warning("%s: the host that ran it does not answer; it is tried again", task["name"])
                self._scheduler.forgive_failures(task_id)

    def _is_stuck(self) -> bool:
        """Whether each task left in the job has failed or waits for a failed one. Notes the failures on other hosts."""
        if not self._errors:
            return False
        graph = self._scheduler.dep_graph(self._goal.task_id, include_done=False)
        failed = {task_id: task["name"] for task_id, task in graph.items()
                  if task_id in self._errors and task["status"] in (DISABLED, FAILED)}
        pending = {task_id: task["deps"] for task_id, task in graph.items() if task["status"] == PENDING}
        here = {task.task_id for task, status, _ in self._add_task_history if status == FAILED}
        messages = [f"{failed[task_id]} failed on another host: {self._errors[task_id]}" for task_id in failed.keys() - here]
        self._failed_elsewhere = sorted(set(messages))  # shards often fail alike
        return bool(failed) and len(failed) + len(waiting_for(failed, pending)) == len(graph)

    # The end of the job

    @property
    def _goal(self):
        """The stage whose result the user asked for."""
        return self._root.requires() if isinstance(self._root, ShowResult) else self._root

    def _keep_alive(self, get_work_response) -> bool:
        if not self._config.keep_alive:
            return False
        if self._assistant:
            return self._may_help()
        if self._is_stuck() or (self._all_added and self._goal.complete()):
            return False
        if not self._all_added and not (get_work_response.n_pending_tasks or get_work_response.running_tasks):
            return False
        self._join()  # also for a scheduler that was started again, or that has forgotten this worker
        return True

    def _may_help(self) -> bool:
        """Whether an assistant stays: while there is a job, and `max_keep_alive_idle_duration` longer."""
        if not all(worker.get("assistant") for worker in self._scheduler.worker_list(include_running=False)):
            self._busy_at = time.monotonic()
        limit = self._config.max_keep_alive_idle_duration.total_seconds()
        return not limit or time.monotonic() - self._busy_at < limit

    def _join(self) -> None:
        """Offers all tasks again from time to time. Before that, only assistants get the shards that an assistant added."""
        if time.monotonic() - self._joined_at >= self._join_after:
            self.add(self._root)
            self._joined_at, self._join_after = time.monotonic(), min(2 * self._join_after, LAST_JOIN)

    def _failed_here(self) -> list:
        """Tasks that failed on this host and are still missing."""
        failed = dict.fromkeys(task for task, status, _ in self._add_task_history if status == FAILED)
        return [task for task in failed if not task.complete()]

    def run(self) -> bool:
        super().run()
        root = self._root
        if self._assistant:
            failed = self._failed_here()
            self._set_outcome(DONE)
            self._add_task_history += [(task, FAILED, True) for task in failed]
            return not failed
        is_done = self._all_added and self._goal.complete()
        if is_done and isinstance(root, ShowResult):
            self._scheduled_tasks[root.task_id] = root
            self._run_task(root.task_id)
            while self._running_tasks:
                self._handle_next_task()
            is_done = any(task == root and status == DONE for task, status, _ in self._add_task_history)
        if is_done:
            self._set_outcome(DONE)
        elif self._failed_elsewhere:
            self._set_outcome(FAILED)
            for message in self._failed_elsewhere:
                logger.error("%s", message)
        return is_done

    def _set_outcome(self, status: str) -> None:
        """Makes Luigi exit with the status of the whole command. By itself it counts only what this process ran and saw."""
        self._add_task_history[:] = [(self._root, PENDING, True), (self._root, status, True)]
        self._get_work_response_history.clear()


def waiting_for(failed: Iterable[str], needs: dict[str, list[str]]) -> set[str]:
    """The tasks that need one of `failed`, directly or not. `needs`: for each task the tasks that it needs."""
    waiting: set[str] = set()
    while more := {task for task, needed in needs.items()
                   if task not in waiting and not waiting.union(failed).isdisjoint(needed)}:
        waiting |= more
    return waiting


def as_on_this_host(task: luigi.Task, own_task: luigi.Task) -> luigi.Task:
    """`task`, which another host has scheduled, with this host's folders, threads and device, taken from `own_task`."""
    shared = dict(task.get_params()).keys() & dict(own_task.get_params()).keys()
    return task.clone(**{name: getattr(own_task, name) for name in HOST_SETTINGS if name in shared})
