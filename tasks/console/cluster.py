"""Several hosts that share one cache folder and one scheduler (`luigid`): what Luigi's own worker lacks for it.

One host runs the command: it has the job. The others run it with `--assistant`: they take what the scheduler gives them.

- The job is done when what it is for is in the cache, whichever host made it. Its host then shows the result itself.
- A task whose host died is tried again. The scheduler counts it as failed, but no host has reported an error for it.
- A stage that failed on any host ends the job with its message and status 30. The same command given again is another job:
  each has its own tasks on the scheduler (`CachedTask.job`), so that nothing of an earlier one is in its way.
- Without the scheduler the command ends with one line.

NOTE: Luigi has no public way to do this. tests/tasks/console/test_cluster.py lists every private name that this module leans on.
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

from tasks.engine.printing import ShowResult

logger = logging.getLogger("luigi-interface")

OF_THE_HOST = "cache_dir", "data_dir", "threads", "device"  # settings that an assistant keeps as its own command has them
ATTEMPTS, WAIT = 4, 2  # a scheduler that does not answer is asked so often, with so many seconds between: time to start it again
SEEN_WITHIN = 60.0  # seconds: how long NFS remembers that a folder is not there
LOOK_EVERY = 1.0  # seconds between two looks at what the scheduler says has failed
FIRST_JOIN, LAST_JOIN = 5.0, 300.0  # seconds between two rounds in which an idle job offers its tasks again
MAX_LOSSES = 3  # a task that takes so many hosts with it is given up
NO_ERROR = None, "", '""', "null"  # what the scheduler keeps as the explanation of a task that no host has reported as failed
NO_ANSWER = OSError, http.client.HTTPException, ValueError, LookupError, luigi.rpc.RPCError
TO_START = "start it as luigi-cluster.cfg says, or add --local-scheduler to run on this host alone"
TO_GO_ON = "what is done is in the cache: start the scheduler again, then the same command goes on"


def set_up() -> None:
    """Has the `luigi` command use this module's classes where it works with a scheduler for several hosts."""
    luigi.interface._WorkerSchedulerFactory = Factory


class Factory(luigi.interface._WorkerSchedulerFactory):
    def create_remote_scheduler(self, url):
        return Scheduler(url)

    def create_worker(self, scheduler, worker_processes, assistant=False):
        kind = Worker if isinstance(scheduler, Scheduler) else luigi.worker.Worker
        return kind(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)


class Scheduler(luigi.rpc.RemoteScheduler):
    """The scheduler on another host. Where it does not answer, the program ends with one line."""

    def __init__(self, url: str):
        super().__init__(url)
        self._rpc_retry_attempts, self._rpc_retry_wait = ATTEMPTS, WAIT
        self._rpc_log_retries = False  # each would be a traceback
        self.once = luigi.rpc.RemoteScheduler(url)
        self.once._rpc_log_retries, self.once._rpc_retry_attempts = False, 1
        self._silent_since, self._silence = 0.0, None  # what went wrong when it was asked last, if anything did
        try:
            self.once.is_paused()
        except NO_ANSWER as error:
            raise self.lost(error, TO_START) from None

    def ping(self, **kwargs):
        """Says that the worker is alive. A thread does it, which cannot end the program: `check` does."""
        try:
            answer, self._silence = self.once.ping(**kwargs), None
            return answer
        except NO_ANSWER as error:
            self._silent_since = self._silent_since if self._silence else time.monotonic()
            self._silence = error

    def check(self) -> None:
        """Ends the program when nothing has been heard of the scheduler for long. Where all workers are busy nobody asks it."""
        if (error := self._silence) and time.monotonic() - self._silent_since > ATTEMPTS * WAIT:
            raise self.lost(error, TO_GO_ON)

    def _request(self, url, data, **kwargs):
        try:
            return super()._request(url, data, **kwargs)
        except NO_ANSWER as error:
            raise self.lost(error, TO_GO_ON) from None

    def lost(self, error: Exception, advice: str) -> SystemExit:
        """Prints why the program ends. What it returns is no Exception, for Luigi would show a traceback of one."""
        error = getattr(error, "sub_exception", None) or error
        reason = getattr(error, "reason", None) or error
        print(f"luigi: no answer from the scheduler at {self._url} ({reason}); {advice}", file=sys.stderr)
        return SystemExit(luigi.retcodes.retcode().scheduling_error)


class Worker(luigi.worker.Worker):
    """A worker of a job or, where it is an assistant, of all jobs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._root = None
        self._all_added = True
        self._losses: collections.Counter[str] = collections.Counter()  # of hosts, by task
        self._errors: dict[str, str] = {}  # of tasks that failed, by their ids: of all jobs
        self._failed_elsewhere: list[str] = []
        self._looked_at = self._joined_at = self._busy_at = time.monotonic()
        self._join_after = FIRST_JOIN

    # What is to be done

    def add(self, task, *args, **kwargs):
        if self._root is None:
            self._root = task
            if self._assistant:  # what it helps with comes from the scheduler, settings included
                return True
        added = super().add(task, *args, **kwargs)
        self._all_added &= added
        return added

    def _add_task(self, *args, **kwargs):
        task, status = self._scheduled_tasks.get(kwargs["task_id"]), kwargs["status"]
        if isinstance(task, ShowResult):  # another host would print it there: the scheduler never hears of it
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
        """Runs the task when this host sees what it reads: a file server may take a while to show what another host has made."""
        deadline = time.monotonic() + SEEN_WITHIN
        while not all(task.complete() for task in self._scheduled_tasks[task_id].deps()) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
        super()._run_task(task_id)

    # What others do

    def _tasks_with(self, status: str) -> dict[str, dict]:
        """All tasks of the scheduler in that status, by their ids."""
        return self._scheduler.task_list(status=status, upstream_status="", limit=False)

    def _error_of(self, task_id: str) -> str | None:
        """What a host has reported of a failed task; None where its host died."""
        text = self._scheduler.fetch_error(task_id)["error"]
        if text in NO_ERROR:
            return None if self._losses[task_id] < MAX_LOSSES else f"{MAX_LOSSES} hosts died while they ran it"
        with contextlib.suppress(ValueError):
            text = json.loads(text)
        return str(text).strip()

    def _look_after_the_dead(self) -> None:
        """Gives the tasks of hosts that died to those that live, and notes what failed."""
        if time.monotonic() - self._looked_at < LOOK_EVERY:
            return
        self._looked_at, self._errors = time.monotonic(), {}
        for task_id, task in (self._tasks_with(DISABLED) | self._tasks_with(FAILED)).items():
            if error := self._error_of(task_id):
                self._errors[task_id] = error
            else:
                self._losses[task_id] += 1
                if self._scheduler.re_enable_task(task_id):  # by us, and not by another host
                    logger.warning("%s: the host that ran it does not answer; it is tried again", task["name"])
                self._scheduler.forgive_failures(task_id)

    def _is_stuck(self) -> bool:
        """Whether all that is left of the job has failed or waits for what has. Notes what failed elsewhere."""
        if not self._errors:
            return False
        graph = self._scheduler.dep_graph(self._goal.task_id, include_done=False)
        failed = {task_id: task["name"] for task_id, task in graph.items()
                  if task_id in self._errors and task["status"] in (DISABLED, FAILED)}
        pending = {task_id: task["deps"] for task_id, task in graph.items() if task["status"] == PENDING}
        here = {task.task_id for task, status, _ in self._add_task_history if status == FAILED}
        told = [f"{failed[task_id]} failed on another host: {self._errors[task_id]}" for task_id in failed.keys() - here]
        self._failed_elsewhere = sorted(set(told))  # shards often fail alike
        return bool(failed) and len(failed) + len(behind(failed, pending)) == len(graph)

    # When it is over

    @property
    def _goal(self):
        """The stage that the command is for."""
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
        self._join()  # also when the scheduler has lost us: it was started again, or did not hear from us for long
        return True

    def _may_help(self) -> bool:
        """An assistant stays while there is a job, and for `max_keep_alive_idle_duration` beyond."""
        if not all(worker.get("assistant") for worker in self._scheduler.worker_list(include_running=False)):
            self._busy_at = time.monotonic()
        limit = self._config.max_keep_alive_idle_duration.total_seconds()
        return not limit or time.monotonic() - self._busy_at < limit

    def _join(self) -> None:
        """Offers all tasks again, now and then: the shards that an assistant has added are for assistants alone until then."""
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
            self._tell_luigi(DONE)
            self._add_task_history += [(task, FAILED, True) for task in failed]
            return not failed
        reached = self._all_added and self._goal.complete()
        if reached and isinstance(root, ShowResult):
            self._scheduled_tasks[root.task_id] = root
            self._run_task(root.task_id)
            while self._running_tasks:
                self._handle_next_task()
            reached = any(task == root and status == DONE for task, status, _ in self._add_task_history)
        if reached:
            self._tell_luigi(DONE)
        elif self._failed_elsewhere:
            self._tell_luigi(FAILED)
            for message in self._failed_elsewhere:
                logger.error("%s", message)
        return reached

    def _tell_luigi(self, status: str) -> None:
        """Makes the exit status that of the command as a whole. Luigi's is of what this very process ran and saw."""
        self._add_task_history[:] = [(self._root, PENDING, True), (self._root, status, True)]
        self._get_work_response_history.clear()


def behind(failed: Iterable[str], needs: dict[str, list[str]]) -> set[str]:
    """Those tasks of `needs` that need one of `failed`, directly or not; `needs` says what each needs."""
    found: set[str] = set()
    while more := {task for task, needed in needs.items() if task not in found and not found.union(failed).isdisjoint(needed)}:
        found |= more
    return found


def as_on_this_host(task: luigi.Task, mine: luigi.Task) -> luigi.Task:
    """`task`, which another host has scheduled, with this host's folders, threads and device."""
    known = dict(task.get_params()).keys() & dict(mine.get_params()).keys()
    return task.clone(**{name: getattr(mine, name) for name in OF_THE_HOST if name in known})
