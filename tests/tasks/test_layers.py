"""Which parts of the code may use which, that imports are quick, and that the settings that a stage reads are in its key."""

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import luigi
import pytest

import tasks
from tasks.data.sharded import ShardedTask
from tasks.engine import parameters
from tasks.engine.task import CachedTask, all_stages
from tasks.engine.workshop import Workshop

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINE = sorted((REPOSITORY / "pipeline").rglob("*.py"))
HEAVY = ("dask", "distributed", "torch", "torchvision", "numba", "sklearn", "skimage", "h5py", "scipy", "numpy", "PIL")
# Tests define stages as well.
STAGES = [stage for stage in dict.fromkeys(all_stages()) if stage.__module__.startswith("tasks.")]
# The results of these methods are in the key.
KEYED = ("requires", "upstream", "index_task", "resolve", "key_inputs", "record_key")
MAKERS = ("build", "build_shard", "merge_shards")


def imports(tree: ast.AST) -> set[str]:
    """The modules that the code imports anywhere; relative imports begin with a dot."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            modules |= {module, *(f"{module}.{name.name}" for name in node.names)}
    return modules


@pytest.mark.parametrize("path", PIPELINE, ids=[str(path.relative_to(REPOSITORY)) for path in PIPELINE])
def test_pipeline_knows_neither_luigi_nor_the_stages(path):
    roots = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
    assert not roots & {"luigi", "tasks", "tests", "benchmarks"}
    assert "" not in roots, "a relative import, which this test does not follow"


OUTSIDE_THE_ENGINE = {"dask", "distributed", "fsspec", "luigi", "threadpoolctl", "tqdm", "yaml", *sys.stdlib_module_names}
ENGINE = sorted((REPOSITORY / "tasks" / "engine").glob("*.py"))


@pytest.mark.parametrize("path", ENGINE, ids=[path.name for path in ENGINE])
def test_the_engine_knows_no_stage_and_nothing_of_the_pipeline(path):
    roots = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
    assert roots - {""} <= OUTSIDE_THE_ENGINE, "its own modules are imported with a dot"


# The folders and files of the methods, on both floors, and which of them a method builds on.
METHODS = {
    "rcnn": {"spp_net"}, "spp_net": {"rcnn"}, "fast_rcnn": {"rcnn", "spp_net"}, "faster_rcnn": {"rcnn", "fast_rcnn"},
    "localisation": set(), "later_detectors": set(),
    "sliding_window": set(),
}
OF_METHODS = [path for path in sorted((REPOSITORY / "pipeline").rglob("*.py")) + sorted((REPOSITORY / "tasks").rglob("*.py"))
              if set(path.relative_to(REPOSITORY).with_suffix("").parts) & METHODS.keys()]


@pytest.mark.parametrize("path", OF_METHODS, ids=[str(path.relative_to(REPOSITORY)) for path in OF_METHODS])
def test_a_method_uses_no_private_part_of_another(path):
    own = set(path.relative_to(REPOSITORY).with_suffix("").parts) & METHODS.keys()
    for name in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        others = set(parts) & METHODS.keys() - own
        if parts[0] in ("pipeline", "tasks") and others:
            assert not parts[-1].startswith("_"), f"{name} is private to {others}"
            assert others <= METHODS[next(iter(own))], f"{path.name} builds on {others}"


def test_import_of_the_stages_is_lean():
    code = "import json, sys, tasks; print(json.dumps(sorted(sys.modules)))"
    environment = {name: value for name, value in os.environ.items() if name != "LUIGI_CONFIG_PATH"}
    loaded = json.loads(subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, check=True, text=True
    ).stdout)
    assert "luigi" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def reads(function, receiver: str, cls: type, seen: set) -> set[str]:
    """The parameters of `cls` that `function` reads from its argument `receiver`, directly, in methods, or in helpers."""
    if (function, receiver) in seen:
        return set()
    seen.add((function, receiver))
    names, names_of = set(), dict(cls.get_params())
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == receiver:
            names |= {node.attr} if node.attr in names_of else reads_of_attribute(cls, node.attr, seen)
        elif isinstance(node, ast.Call):
            names |= reads_of_helper(function, node, receiver, cls, seen)
    return names


def reads_of_attribute(cls: type, name: str, seen: set) -> set[str]:
    """The parameters that the method or property `name` of `cls` reads, in all classes that define it."""
    names = set()
    for base in cls.__mro__ if name not in KEYED else ():
        value = vars(base).get(name)
        value = getattr(value, "fget", None) or getattr(value, "func", None) or value
        if inspect.isfunction(value) and not base.__module__.startswith("luigi"):
            names |= reads(value, next(iter(inspect.signature(value).parameters)), cls, seen)
    return names


def reads_of_helper(function, call: ast.Call, receiver: str, cls: type, seen: set) -> set[str]:
    """The parameters that a function of one of our modules reads from the task that is its argument."""
    helper = inspect.getmodule(function).__dict__.get(getattr(call.func, "id", None))
    if not inspect.isfunction(helper) or not helper.__module__.startswith("tasks."):
        return set()
    names = set()
    for argument, parameter in zip(call.args, inspect.signature(helper).parameters):
        if isinstance(argument, ast.Name) and argument.id == receiver:
            names |= reads(helper, parameter, cls, seen)
    return names


def read_by(stage: type) -> set[str]:
    """The significant parameters that the stage reads while it makes its files."""
    seen: set = set()
    names = set().union(*(reads_of_attribute(stage, name, seen) for name in MAKERS))
    return {name for name in names if dict(stage.get_params())[name].significant}


def keyed_in(task: CachedTask) -> set[str]:
    """The parameters whose values are in the task's key: its own, those in `resolve`, those of the tasks that it requires."""
    names = set(task.own_parameters) | reads(type(task).resolve, "self", type(task), set())
    open_ends, seen = list(task.requires().values()), set()
    while open_ends:
        required = open_ends.pop()
        if required.task_id not in seen:
            seen.add(required.task_id)
            # A resolved parameter is not in the key itself; `resolve` of its stage replaces it.
            names |= set(required.own_parameters) - set(required.resolved)
            open_ends += required.requires().values()
    return names


@pytest.mark.parametrize("stage", STAGES, ids=[stage.__name__ for stage in STAGES])
def test_what_a_stage_reads_is_in_its_key(stage):
    loose = read_by(stage) - keyed_in(stage())
    assert not loose, f"{stage.__name__} reads {', '.join(sorted(loose))}: make it a parameter of its own, or require its stage"


class TestTheTest:
    """The test above must find every kind of mistake in this stage."""

    @pytest.fixture(scope="class")
    def careless(self):
        @parameters.inherits(tasks.TrainSVMs, without=("svm_bias",))
        class Careless(CachedTask):
            svm_bias = parameters.number(1.0, "careless", "bias", "own")

            def requires(self):
                return {"index": self.clone(tasks.IndexDataset, split=self.train_split)} if self.layer else {}

            def build(self, workshop: Workshop) -> dict:
                helper(self)
                return {"a": self.svm_bias + self.cost, "split": self.train_split, "cores": self.num_threads}

            @property
            def cost(self):
                return self.svm_c if self.method() else self.seed

            def method(self):
                return [self.dataset for _ in range(3)]

        Careless.__module__ = "careless"  # not one of the stages
        yield Careless
        luigi.task_register.Register.clear_instance_cache()

    def test_reads(self, careless):
        assert read_by(careless) == {"svm_bias", "svm_c", "seed", "dataset", "train_split"}

    def test_keyed(self, careless):
        loose = read_by(careless) - keyed_in(careless())
        assert loose == {"svm_c", "seed", "dataset"}

    def test_helpers(self):
        module = importlib.import_module("tasks.networks.finetune")
        assert reads(module.trained_network, "task", tasks.DetectRCNN, set()) == {"finetune_iterations", "weights"}

    def test_shards(self):
        assert issubclass(tasks.DetectRCNN, ShardedTask)
        limits = {"max_per_image", "mean_per_image", "max_detections", "nms_threshold"}
        assert read_by(tasks.DetectRCNN) == {"shard", "shard_size", *limits}


def helper(task):
    return task.device
