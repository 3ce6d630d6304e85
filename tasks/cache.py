"""CachedTask: a Luigi task whose result is an artefact in the cache, addressed by everything that could change its bytes.

The key is a SHA-256 over canonical JSON of: the stage's name and version, its own significant parameters, the keys of the tasks
that it requires, and the content digests of what comes from outside. A parameter that a stage merely inherits reaches its key
through the stage that it belongs to. Paths are in no key.
"""

import abc
import contextlib
import inspect
import logging
import platform
import socket
import time
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import luigi

from pipeline.errors import PipelineError
from tasks import parameters
from tasks.artefacts import MEMORY, Artefact
from tasks.cores import held_cores
from tasks.digests import DigestMemory, digest_json
from tasks.jobs import JOB, jobs_of, with_job
from tasks.manifest import MANIFEST, read_manifest
from tasks.package_versions import package_versions
from tasks.processes import available_cores, limited_threads, peak_memory, release_memory, reset_peak_memory
from tasks.progress import make_progress
from tasks.trouble import told_in_a_line
from tasks.workshop import Workshop, sweep

logger = logging.getLogger("rcnn")

# Backbones that half of the cores compute nearly as fast as all of them: two stages side by side are done sooner.
TOO_SMALL_TO_SHARE = ("tiny",)


class CachedTask(luigi.Task):
    """One stage. A subclass declares its parameters and inputs, and makes its files in `build`.

    `version` is raised whenever the code changes what the stage writes. `outside` names own parameters that the key leaves out,
    because `outside_digests` states what they lead to (a path, say).
    """

    stage = "CachedTask"  # a subclass's own name, unless it says otherwise
    version = 1
    outside: tuple[str, ...] = ()
    numeric = True  # holds cores of the host while it runs
    num_cores = 0  # how many it holds
    line = 0  # of the terminal, below which there may be another stage's progress
    pool_memory = 0  # bytes: the largest process that worked for it, if others did
    memory_settings: tuple[str, ...] = ("threads",)  # parameters that bound its memory
    _renewed = False  # whether what `--force` asks of it, and of all before it, is known to be done

    cache_dir = parameters.text("cache", "run", "cache_dir", "folder of the cache", significant=False)
    data_dir = parameters.text("data", "run", "data_dir", "folder of data sets and downloaded weights", significant=False)
    threads = parameters.integer(
        0, "run", "threads", "threads of a stage; 0: all cores, half of them for tiny", significant=False
    )
    device = parameters.text("cpu", "run", "device", "cpu, or cuda for one GPU", significant=False)
    force = parameters.names((), "run", "force", "stages to compute again, separated by commas", significant=False)
    job = luigi.Parameter(JOB, significant=False, description="the command that the task is for; set by the program")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.stage = cls.__dict__.get("stage", cls.__name__)
        # Taken before `inherits` adds the parameters of other stages.
        found = {name: getattr(cls, name) for name in dir(cls) if isinstance(getattr(cls, name, None), luigi.Parameter)}
        cls.own_parameters = tuple(sorted(name for name, parameter in found.items() if parameter.significant))

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # On a scheduler for several hosts each job has its own tasks: a failure, or `--force`, of another one is not its own.
        self.task_id += f"_{self.job}"
        check_stages(self.force)

    # What a subclass says of itself

    def requires(self) -> dict[str, "CachedTask"]:
        return {}

    def outside_digests(self) -> dict:
        """What comes from outside the cache: JSON that holds content digests, never paths."""
        return {}

    @abc.abstractmethod
    def build(self, workshop: Workshop) -> dict | None:
        """Writes the artefact's files into `workshop.files`; returns the stage's own figures."""

    # The key

    def key_inputs(self) -> dict:
        """Everything that could change the artefact's bytes, as JSON."""
        own = {name: getattr(self, name) for name in self.own_parameters if name not in self.outside}
        required = {name: task.key for name, task in self.requires().items()}
        return {
            "stage": self.stage, "version": self.version, "parameters": own, "requires": required,
            "outside": self.outside_digests(),
        }

    @cached_property
    def key(self) -> str:
        return digest_json(self.key_inputs())

    @cached_property
    def artefact(self) -> Artefact:
        return Artefact(Path(self.cache_dir), self.stage, self.key)

    @property
    def outside_memory(self) -> DigestMemory:
        return DigestMemory(Path(self.cache_dir) / MEMORY)

    # What Luigi asks

    def output(self) -> "ArtefactTarget":
        return ArtefactTarget(self.artefact)

    def complete(self) -> bool:
        if not self.artefact.exists():
            return False
        if self.force and not self._renewed:
            # Luigi looks no further than a complete task, so one is incomplete while a forced one before it is.
            forced = self.stage in self.force and self.job not in jobs_of(self.artefact.manifest)
            self._renewed = not forced and all(task.complete() for task in self.requires().values())
            return self._renewed
        return True

    def inputs(self) -> dict[str, Artefact]:
        """The artefacts of the required tasks, by the names that `requires` gives them."""
        return {name: task.artefact for name, task in self.requires().items()}

    def run(self) -> None:
        self.make_artefact()

    def on_failure(self, exception: BaseException) -> str:
        """What the other hosts of a job read of it."""
        bug = "" if isinstance(exception, PipelineError) else f"\n{super().on_failure(exception)}"
        return f"{socket.gethostname()}: {exception}{bug}"

    def make_artefact(self) -> None:
        """Builds the artefact and moves it into place, unless another run does so first."""
        workshop = Workshop(self.artefact)

        def on_wait(holder):
            logger.info("%s: waiting for %s, which is building it", self.artefact, holder)

        with told_in_a_line(self):
            sweep_once(Path(self.cache_dir))
            with workshop.lock(on_wait=on_wait), self.host_cores():
                if self.complete():
                    return
                if (self.artefact.folder / MANIFEST).exists() and not self.artefact.exists():
                    logger.warning("%s: its manifest is damaged; it is made again", self.artefact.folder)
                try:
                    workshop.open()
                    self._build_and_publish(workshop)
                finally:
                    workshop.close()

    @contextlib.contextmanager
    def host_cores(self) -> Iterator[None]:
        """Holds as many of this host's cores as the stage has threads, if it is numeric."""
        if not self.numeric:
            yield
            return

        def on_wait(holder):
            logger.info("%s: waiting for cores, some of which %s uses", self.label, holder)

        with held_cores(Path(self.cache_dir), *self.cores_needed, on_wait) as cores:
            self.num_cores, self.line = len(cores), int(cores[0] != 0)
            yield

    def _build_and_publish(self, workshop: Workshop) -> None:
        logger.info("%s: running", self.label)
        started, clock = time.time(), time.monotonic()
        release_memory()
        reset_peak_memory()
        with limited_threads(self.num_threads) if self.numeric else contextlib.nullcontext():
            figures = self.build(workshop) or {}
        elapsed = time.monotonic() - clock
        inputs = self.key_inputs()
        if digest_json(inputs) != self.key:
            raise PipelineError(f"{self.label}: a file that it reads changed while it ran; run again")
        settings = {name: text for name, text in sorted(self.to_str_params().items()) if name != "job"}
        workshop.publish({
            "version": self.version, "parameters": inputs["parameters"], "seed": getattr(self, "seed", None),
            "settings": settings, "jobs": with_job(read_manifest(self.artefact.folder), self.job),
            "inputs": self.describe_inputs(), "outside": inputs["outside"], "started": started, "seconds": elapsed,
            "peak_memory": max(peak_memory(), self.pool_memory), "device": self.device, "threads": self.num_threads,
            "host": socket.gethostname(),
            "platform": platform.platform(), "python": platform.python_version(), "packages": package_versions(),
            "figures": figures,
        })
        shown = ", ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in figures.items() if is_scalar(value))
        logger.info("%s: done in %.1f s%s", self.label, elapsed, f" ({shown})" if shown else "")

    def describe_inputs(self) -> dict[str, dict]:
        """Stage, key and digest of each required artefact, for the manifest."""
        return {name: describe(artefact) for name, artefact in self.inputs().items()}

    # Helpers for `build`

    @property
    def label(self) -> str:
        return f"{self.artefact}"

    @property
    def num_threads(self) -> int:
        """Of the stage's arithmetic, whose bytes depend on it: so not on how many stages happen to run."""
        return self.threads or max(1, available_cores() // (2 if getattr(self, "backbone", "") in TOO_SMALL_TO_SHARE else 1))

    @property
    def cores_needed(self) -> tuple[int, int]:
        """The fewest that the stage can do with, and the most that it has use for; `num_cores` is how many it got."""
        return self.num_threads, self.num_threads

    def progress(self, unit: str = "image"):
        return make_progress(self.label, unit, self.line)


class ArtefactTarget(luigi.Target):
    """What Luigi sees of an artefact."""

    def __init__(self, artefact: Artefact):
        self.artefact = artefact

    def exists(self) -> bool:
        return self.artefact.exists()

    def __str__(self) -> str:
        return str(self.artefact.folder)


def describe(artefact: Artefact) -> dict:
    return {"stage": artefact.stage, "key": artefact.key, "digest": artefact.manifest["digest"]}


@cache
def _split_of(cache_dir: Path, stage: str, key: str):
    from pipeline.datasets.records import ImageTable, Split

    images = ImageTable()
    return Split.from_json(Artefact(cache_dir, stage, key).json("index.json", images.take), images)


def load_split(artefact: Artefact):
    """The split that an index artefact holds; read once a process."""
    return _split_of(artefact.cache, artefact.stage, artefact.key)


def is_scalar(value) -> bool:
    return isinstance(value, (int, float, str))


def show(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def all_stages(cls=CachedTask) -> list[type]:
    """Every concrete stage that is defined."""
    found = [stage for sub in cls.__subclasses__() for stage in [sub, *all_stages(sub)]]
    return [stage for stage in dict.fromkeys(found) if not inspect.isabstract(stage)]


@cache
def check_stages(names: tuple[str, ...]) -> None:
    """Raises PipelineError when `--force` names a stage that there is none of."""
    known = {task.stage for task in all_stages()}
    if unknown := set(names) - known:
        raise PipelineError(f"--force {','.join(sorted(unknown))}: no such stage; there are {', '.join(sorted(known))}")


@cache
def sweep_once(cache_dir: Path) -> None:
    sweep(cache_dir)
