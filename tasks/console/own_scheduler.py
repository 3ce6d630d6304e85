"""The scheduler of a command that runs alone: with thousands of shards, Luigi's takes most of the time between two of them."""

import luigi.scheduler


class OwnScheduler(luigi.scheduler.Scheduler):
    """Does what grows with the number of tasks only where it is of use.

    - It counts the pending tasks only when it has no task to give. Luigi does it with each task, and needs it to end.
    - It doesn't look for workers that have ended, nor for failed tasks to try again: the command has one worker, and
      a failed stage is not tried again.
    """

    def __init__(self, **kwargs):
        super().__init__(prune_on_get_work=False, record_task_history=False, **kwargs)
        self._counts = True

    def get_work(self, *, worker, **kwargs):
        self._counts = False
        try:
            work = super().get_work(worker=worker, **kwargs)
        finally:
            self._counts = True
        return work if work["task_id"] else {**work, **self.count_pending(worker)}

    def count_pending(self, worker):
        if self._counts:
            return super().count_pending(worker)
        return {"n_pending_tasks": 0, "n_unique_pending": 0, "running_tasks": []}
