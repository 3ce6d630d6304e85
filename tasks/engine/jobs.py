"""Which command a task is for: of several that use one cache, and of one command's hosts."""

import os
import uuid

from .interrupts import is_worker

# Worker processes have it from their parent, other hosts with the tasks that they do for it. An id, and not the time at which the
# command started: the clocks of two hosts differ.
if not is_worker() or "STAGES_JOB" not in os.environ:
    os.environ["STAGES_JOB"] = uuid.uuid4().hex
JOB = os.environ["STAGES_JOB"]
KEPT = 8  # jobs on record: those that ask for the same stage again at the same time


def jobs_of(manifest: dict | None) -> list:
    """The job that made an artefact, after those that made the same artefact before."""
    jobs = (manifest or {}).get("jobs")
    return [job for job in jobs if isinstance(job, str)] if isinstance(jobs, list) else []


def with_job(manifest: dict | None, job: str) -> list:
    """The jobs of an artefact that `job` makes in place of the one with `manifest`.

    For whom that one was new enough, this one is as well. Else two commands that force one stage would make it in turns forever.
    """
    return [*jobs_of(manifest), job][-KEPT:]
