"""The stages, as Luigi tasks: `luigi --module tasks FullPipeline`.

Modules here import torch, numba and the like only inside the functions that need them, so that a run with nothing to do is quick.
"""

from tasks import log

log.set_up()
