"""The job: which command a task runs for. Several commands may use one cache, and several hosts may work for one command."""

import os
import uuid

from .interrupts import is_worker

# Worker processes inherit the id from their parent; other hosts get it with the tasks that they run. It is not the time at which
# the command started, because the clocks of two hosts differ.
if not is_worker() or "STAGES_JOB" not in os.environ:
    os.environ["STAGES_JOB"] = uuid.uuid4().hex
JOB = os.environ["STAGES_JOB"]
KEPT = 8  # jobs in a manifest: enough for the commands that force the same stage at the same time


def jobs_of(manifest: dict | None) -> list:
    """The jobs that made this artefact, oldest first: the last one made its present files."""
    jobs = (manifest or {}).get("jobs")
    return [job for job in jobs if isinstance(job, str)] if isinstance(jobs, list) else []


def with_job(manifest: dict | None, job: str) -> list:
    """The jobs of a new artefact: those of the old one, which has `manifest`, and `job`.

    A command that accepts the old artefact must accept the new one too. Else two commands that force the same stage would make it
    in turns forever.
    """
    return [*jobs_of(manifest), job][-KEPT:]
