"""CachedTask: a Luigi task whose result is an artefact in the cache, addressed by everything that could change its bytes.

The key is a SHA-256 over canonical JSON of: the stage's name and version, its own significant parameters, the keys of the tasks
that it requires, and the values of its resolved parameters. An inherited parameter affects the key only through the key of the
stage that it belongs to. No key contains a path.
"""

import abc
import inspect
import socket
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path

import luigi

from . import building, parameters, read_through
from .artefacts import MEMORY, Artefact
from .digests import DigestMemory, digest_json
from .errors import UserError
from .jobs import JOB, jobs_of
from .processes import available_cores
from .progress import make_progress
from .readable import CHECKS
from .workshop import Workshop


class CachedTask(luigi.Task):
    """One stage. A subclass declares its parameters and inputs, and makes its files in `build`.

    Raise `version` whenever the code changes what the stage writes. `resolved` names own parameters that the key leaves out,
    because `resolve` replaces them: a path by the content of the file, `auto` by the value chosen.
    """

    stage = "CachedTask"  # by default the name of the subclass
    version = 1
    resolved: tuple[str, ...] = ()
    own_parameters: tuple[str, ...] = ()  # its significant parameters, without the inherited ones
    computes = True  # whether it computes, and so takes cores of the host while it runs
    memory_settings: tuple[str, ...] = ("threads",)  # parameters that limit its memory
    packages: tuple[str, ...] = ("luigi",)  # packages whose versions its manifest records
    sources: tuple[str, ...] = ()  # packages of its code, other than that of its class
    cluster_resources: tuple[str, ...] = ()  # what it needs of a cluster's worker, such as GPU
    user_errors: tuple[type[Exception], ...] = (UserError,)  # errors that the user can fix
    storage_errors: tuple[type[OSError], ...] = ()  # errors of its code for a file that cannot be written
    file_checks: Mapping[str, Callable[[Path], None]] = CHECKS  # by suffix: raises for an unreadable file

    # Set while it runs.
    num_cores = 0  # how many cores it holds
    is_of_command = False  # whether it is the stage that the command names
    progress_row = 0  # row of the terminal for its progress bar
    worker = ""  # the cluster's worker on which it runs; empty: a process of the command
    pool_memory = 0  # peak memory in bytes of the largest other process that worked for it
    _all_parameters: list[tuple[str, luigi.Parameter]] | None = None  # those of its class, once that has an instance
    any_missing = False  # of all tasks: whether this process looked for an artefact that was not in the cache
    _renewed = False  # true once `--force` has nothing left to do for it and all tasks before it

    cache_dir = parameters.text("cache", "run", "cache_dir", "folder of the cache", significant=False)
    threads = parameters.integer(0, "run", "threads", "threads of stages that compute; 0: all", significant=False)
    check_disk = parameters.switch(
        True, "run", "check_disk", "whether a run that needs more disk than there is does not start", significant=False
    )
    force = parameters.names((), "run", "force", "stages to compute again, separated by commas", significant=False)
    remote = parameters.text(
        "", "run", "remote", "remote cache that results are taken from: a folder, or an address such as s3://bucket/rcnn",
        significant=False,
    )
    remote_write = parameters.switch(
        False, "run", "remote_write", "whether new results are put into the remote cache", significant=False
    )
    engine = parameters.text(
        "", "run", "engine", "where stages run: dask, a Dask scheduler's address, or a YAML file; empty: here", significant=False
    )
    in_flight = parameters.integer(0, "run", "in_flight", "stages given to --engine at once; 0: two a worker", significant=False)
    latency = parameters.integer(60, "run", "latency", "seconds to wait until another host's result is seen", significant=False)
    job = parameters.Text(default=JOB, significant=False, description="the command that runs this task; set by the program")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.stage = cls.__dict__.get("stage", cls.__name__)
        # Collected before `inherits` adds the parameters of other stages.
        own = {name: getattr(cls, name) for name in dir(cls) if isinstance(getattr(cls, name, None), luigi.Parameter)}
        cls.own_parameters = tuple(sorted(name for name, parameter in own.items() if parameter.significant))

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        type(self)._all_parameters = self.get_params()
        # On a scheduler for several hosts each job has its own tasks: failures and `--force` of other jobs don't affect it.
        self.task_id += f"_{self.job}"
        self._asked: set[str] = set()  # the keys that the remote cache was asked for
        self._clones: dict[tuple, luigi.Task] = {}
        check_stages(self.force)

    @classmethod
    def get_params(cls) -> list[tuple[str, luigi.Parameter]]:
        # Luigi's method looks through the whole class, ten times a shard. No class gets parameters after its first instance.
        return cls.__dict__.get("_all_parameters") or super().get_params()

    def clone(self, cls: type[luigi.Task] | None = None, **kwargs) -> luigi.Task:
        # Luigi's method compares all parameters, and each stage asks for the same inputs again and again.
        wanted = (cls, *sorted(kwargs.items()))
        if wanted not in self._clones:
            self._clones[wanted] = super().clone(cls, **kwargs)
        return self._clones[wanted]

    # What a subclass defines

    def requires(self) -> dict[str, "CachedTask"]:
        return {}

    def resolve(self) -> dict:
        """The values of the resolved parameters as JSON: values and content digests, never paths."""
        return {}

    @abc.abstractmethod
    def build(self, workshop: Workshop) -> dict | None:
        """Writes the artefact's files into `workshop.files`; returns the stage's own figures."""

    def make_files(self, workshop: Workshop) -> dict | None:
        """Calls `build`. A stage that works in several processes starts them here."""
        return self.build(workshop)

    def about(self) -> dict:
        """More entries for the manifest, which the engine does not know."""
        return {}

    def disk_bytes(self) -> float:
        """About how many bytes its artefact will have; 0 where they do not grow with the data. See `engine.disk`."""
        return 0

    # What a command shows

    def show(self) -> None:
        """Prints the result when it is in the cache. By default a stage prints nothing."""

    def show_unfinished(self) -> None:
        """Shows what there is of the result when a command could not finish it. By default nothing."""

    def shown_stage(self) -> "CachedTask":
        """The stage that a command for this one runs and shows: itself, unless a setting asks for an earlier one."""
        return self

    # The key

    def key_inputs(self) -> dict:
        """Everything that could change the artefact's bytes, as JSON."""
        own = {name: getattr(self, name) for name in self.own_parameters if name not in self.resolved}
        required = {name: task.key for name, task in self.requires().items()}
        return {"stage": self.stage, "version": self.version, "parameters": own, "requires": required, "outside": self.resolve()}

    @cached_property
    def key(self) -> str:
        return digest_json(self.key_inputs())

    @cached_property
    def artefact(self) -> Artefact:
        return Artefact(Path(self.cache_dir), self.stage, self.key)

    @property
    def digest_memory(self) -> DigestMemory:
        """The memory of digests, here for files outside the cache."""
        return DigestMemory(Path(self.cache_dir) / MEMORY)

    # What Luigi calls

    def output(self) -> "ArtefactTarget":
        return ArtefactTarget(self.artefact)

    def complete(self) -> bool:
        return self.has(self.artefact) and (not self.force or self._is_renewed())

    def has(self, artefact: Artefact) -> bool:
        """Whether an artefact of this stage is in the cache. The first time it may come from the remote cache."""
        if artefact.exists():
            return True
        CachedTask.any_missing = True
        if not self.remote or self.stage in self.force or artefact.key in self._asked:
            return False
        self._asked.add(artefact.key)
        return read_through.take(artefact, self.remote)

    def _is_renewed(self) -> bool:
        """Whether `--force` has nothing left to do in this task or before it. Luigi never looks behind a complete task."""
        if not self._renewed:
            forced = self.stage in self.force and self.job not in jobs_of(self.artefact.manifest)
            self._renewed = not forced and all(task.complete() for task in self.requires().values())
        return self._renewed

    def inputs(self) -> dict[str, Artefact]:
        """The artefacts of the required tasks, by the names that `requires` gives them."""
        return {name: task.artefact for name, task in self.requires().items()}

    def run(self) -> None:
        self.make_artefact()

    def make_artefact(self) -> None:
        building.make_artefact(self)

    def on_failure(self, exception: BaseException) -> str:
        """The report of a failure that the other hosts of the job read."""
        bug = "" if isinstance(exception, self.user_errors) else f"\n{super().on_failure(exception)}"
        return f"{socket.gethostname()}: {exception}{bug}"

    # For `build`

    @property
    def label(self) -> str:
        return f"{self.artefact}"

    @property
    def num_threads(self) -> int:
        """Threads of the stage's arithmetic. Its bytes depend on them, so they must not depend on how many stages run."""
        return self.threads or available_cores()

    @property
    def cores_needed(self) -> tuple[int, int]:
        """The fewest cores that the stage needs, and the most that it can use; `num_cores` says how many it holds."""
        return self.num_threads, self.num_threads

    def host_cores(self):
        """A context in which the task holds the cores that it needs."""
        return building.cores_held(self)

    def describe_inputs(self) -> dict[str, dict]:
        """Stage, key and digest of each required artefact, for the manifest."""
        return {name: describe(artefact) for name, artefact in self.inputs().items()}

    def progress(self, unit: str = "image"):
        """A function that shows the progress of an iteration; see `make_progress`."""
        return make_progress(self.label, unit, self.progress_row)


class ArtefactTarget(luigi.Target):
    """An artefact as Luigi sees it."""

    def __init__(self, artefact: Artefact):
        self.artefact = artefact

    def exists(self) -> bool:
        return self.artefact.exists()

    def __str__(self) -> str:
        return str(self.artefact.folder)


def describe(artefact: Artefact) -> dict:
    return {"stage": artefact.stage, "key": artefact.key, "digest": artefact.manifest["digest"]}


def all_stages(cls: type[CachedTask] = CachedTask) -> list[type[CachedTask]]:
    """All concrete stages that are defined."""
    subclasses = [stage for sub in cls.__subclasses__() for stage in [sub, *all_stages(sub)]]
    return [stage for stage in dict.fromkeys(subclasses) if not inspect.isabstract(stage)]


@cache
def check_stages(names: tuple[str, ...]) -> None:
    """Raises UserError when `--force` names an unknown stage."""
    known = {task.stage for task in all_stages()}
    if unknown := set(names) - known:
        raise UserError(f"--force {','.join(sorted(unknown))}: no such stage; the stages are {', '.join(sorted(known))}")
