"""Stage: what all stages of this product share and the engine does not know."""

from pipeline.errors import PipelineError
from pipeline.files.writing import WriteError
from tasks.engine import parameters
from tasks.engine.errors import UserError
from tasks.engine.processes import available_cores
from tasks.engine.task import CachedTask
from tasks.file_checks import FILE_CHECKS

# The packages whose code makes the results; manifests record their versions.
PACKAGES = (
    "numpy", "torch", "torchvision", "scikit-learn", "scikit-image", "h5py", "numba", "pillow", "selectivesearch",
    "pycocotools", "luigi",
)
# Half of the cores compute these backbones nearly as fast as all of them, so two stages side by side finish sooner.
SMALL_BACKBONES = ("tiny",)


class Stage(CachedTask):
    """A stage of this product."""

    packages = PACKAGES
    sources = ("pipeline",)
    user_errors = (UserError, PipelineError)
    storage_errors = (WriteError,)
    file_checks = FILE_CHECKS

    data_dir = parameters.text("data", "run", "data_dir", "folder for data sets and downloaded weights", significant=False)
    threads = parameters.integer(
        0, "run", "threads", "threads per stage; 0: all cores, or half of them for tiny", significant=False
    )
    device = parameters.text("cpu", "run", "device", "cpu, or cuda for one GPU", significant=False)

    @property
    def num_threads(self) -> int:
        share = 2 if getattr(self, "backbone", "") in SMALL_BACKBONES else 1
        return self.threads or max(1, available_cores() // share)

    @property
    def cluster_resources(self) -> tuple[str, ...]:
        return ("GPU",) if self.device != "cpu" else ()

    def about(self) -> dict:
        return {"device": self.device}
