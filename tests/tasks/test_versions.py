"""A stage's `version` is raised when its code changes what it writes: stage_versions.json holds a fingerprint of that code.

A fingerprint is a SHA-256 over the syntax trees of the stage's class and of what it uses of `tasks`, and of the modules of
`pipeline` that these import, transitively. Comments, docstrings, layout, the declarations of parameters (their values are in the
key) and `version` itself don't count; nor does what only carries files and processes (`PLUMBING`).

    python -m tests.tasks.test_versions --record    after raising `version`, or where the bytes stay the same
"""

import ast
import hashlib
import importlib
import inspect
import json
import re
import sys
import textwrap
from functools import cache
from pathlib import Path

import luigi

import tasks
from tasks.engine.task import CachedTask, all_stages

REPOSITORY = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("stage_versions.json")
PLUMBING = ("tasks.engine.", "tasks.console.")  # packages that make no stage's bytes
NO_CODE = ("kind", "type_comment")  # fields of syntax trees
STAGES = {stage.__name__: stage for stage in all_stages() if stage.__module__.startswith("tasks.")}


def canonical(node) -> object:
    """A syntax tree as nested lists, the same in every version of Python: without places, docstrings and empty fields."""
    if isinstance(node, list):
        return [canonical(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, []) and name not in NO_CODE}
    if "body" in fields and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
        fields["body"] = [item for item in node.body if not is_docstring(item)]
    if isinstance(node, ast.JoinedStr):  # Python 3.12 puts empty strings between the parts
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    return [type(node).__name__, *([name, canonical(value)] for name, value in fields.items())]


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def fingerprint(stage: type) -> str:
    """The fingerprint of the code that makes the stage's files."""
    code: dict[str, object] = {}
    for base in stage.__mro__:
        if issubclass(base, CachedTask) and base is not CachedTask:
            add_definition(base.__module__, base.__name__, code, stage)
    # As sorted JSON; code that many stages use is converted once.
    entries = (f"{json.dumps(place)}: {json_of(place, code[place])}" for place in sorted(code))
    return hashlib.sha256(f"{{{', '.join(entries)}}}".encode()).hexdigest()


_json: dict[str, str] = {}


def json_of(place: str, code: object) -> str:
    if place not in _json:
        _json[place] = json.dumps(code)
    return _json[place]


def add_definition(module: str, name: str, code: dict, stage: type) -> None:
    """Adds what `name` is in `module`, a module of ours, and all that it uses in turn."""
    place = f"{module}.{name}"
    if place in code or module.startswith(PLUMBING) or (definition := definitions(module).get(name)) is None:
        return
    if isinstance(definition, tuple):  # imported from another module of ours
        add_imported(*definition, code, stage)
        return
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) and issubclass(value, luigi.Task):
        if value is CachedTask or not issubclass(stage, value):
            return  # another stage: its key is in this one's
        definition = without_settings(definition, value)
    code[place] = canonical(definition)
    for node in ast.walk(definition):
        if isinstance(node, ast.Name):
            add_definition(module, node.id, code, stage)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for source, imported in imported_names(node):
                add_imported(source, imported, code, stage)


def add_imported(module: str, name: str | None, code: dict, stage: type) -> None:
    if module.startswith("tasks") and name:
        add_definition(module, name, code, stage)
    elif module.split(".")[0] == "pipeline":
        add_module(module, code)
        if name:
            add_module(f"{module}.{name}", code)


def add_module(module: str, code: dict) -> None:
    """Adds a whole module of `pipeline`, the packages that it is in, and what it imports of `pipeline`."""
    if module in code or module_path(module) is None:
        return
    code[module], names = module_code(module)
    for name in (module.rpartition(".")[0], *names):
        add_module(name, code)


def without_settings(definition: ast.ClassDef, stage: type) -> ast.ClassDef:
    """A stage's class without decorators, `version` and parameters."""
    body = [node for node in definition.body if not (
        isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and (node.targets[0].id == "version" or isinstance(getattr(stage, node.targets[0].id, None), luigi.Parameter))
    )]
    return ast.ClassDef(definition.name, definition.bases, definition.keywords, body, [])


@cache
def definitions(module: str) -> dict[str, ast.AST | tuple[str, str]]:
    """The functions, classes and constants of a module by their names; (module, name) for what it imports."""
    by_name: dict[str, ast.AST | tuple[str, str]] = {}
    for node in module_tree(module).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            by_name[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = getattr(node, "targets", None) or [node.target]
            by_name |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            by_name |= {name: (source, name) for source, name in imported_names(node)}
    return by_name


def imported_names(node: ast.AST) -> list[tuple[str, str | None]]:
    """(module, name) for each name that an import statement takes; a whole module has the name None."""
    if isinstance(node, ast.Import):
        return [(name.name, None) for name in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import, which fingerprints do not follow"
        return [(node.module, name.name) for name in node.names]
    return []


def module_path(module: str) -> Path | None:
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    path = REPOSITORY.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def module_code(module: str) -> tuple[object, tuple[str, ...]]:
    """The part of a module's syntax tree that counts, and the names in `pipeline` that it imports."""
    tree, names = module_tree(module), {}
    for node in ast.walk(tree):
        for source, name in imported_names(node):
            names |= dict.fromkeys((source, f"{source}.{name}"))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names[node.value] = None  # perhaps for `import_module`
    return canonical(tree), tuple(name for name in names if name.startswith("pipeline."))


@cache
def module_tree(module: str) -> ast.Module:
    return ast.parse(module_path(module).read_text())


def current() -> dict[str, dict]:
    return {name: {"version": stage.version, "fingerprint": fingerprint(stage)} for name, stage in sorted(STAGES.items())}


def faults(recorded: dict[str, dict], stages: dict[str, dict]) -> list[str]:
    """What is wrong with the record, one line a stage."""
    lines = [f"{name}: in the record, but there is no such stage" for name in recorded.keys() - stages.keys()]
    for name, now in stages.items():
        if name not in recorded:
            lines.append(f"{name}: not in the record")
        elif now["version"] < recorded[name]["version"]:
            lines.append(f"{name}: version {now['version']}, after {recorded[name]['version']}; versions only rise")
        elif now["version"] > recorded[name]["version"]:
            lines.append(f"{name}: version {now['version']} is not in the record")
        elif now["fingerprint"] != recorded[name]["fingerprint"]:
            lines.append(f"{name}: its code changed and its version, {now['version']}, did not")
    return sorted(lines)


def test_versions_rise_with_the_code():
    wrong = faults(json.loads(RECORD.read_text()), current())
    assert not wrong, "\n".join([
        *wrong, "Raise `version` of the stages whose files can come out different, then run",
        "  python -m tests.tasks.test_versions --record",
    ])


FOUND = {"A": {"version": 2, "fingerprint": "x"}}


FAULTS = [
    (FOUND, []),
    ({}, ["A: not in the record"]),
    ({"A": {"version": 2, "fingerprint": "y"}}, ["A: its code changed and its version, 2, did not"]),
    ({"A": {"version": 1, "fingerprint": "y"}}, ["A: version 2 is not in the record"]),
    ({"A": {"version": 3, "fingerprint": "y"}}, ["A: version 2, after 3; versions only rise"]),
    ({**FOUND, "B": {}}, ["B: in the record, but there is no such stage"]),
]


def test_faults():
    for recorded, expected in FAULTS:
        assert faults(recorded, FOUND) == expected


class TestFingerprint:
    def code_of(self, stage: type) -> dict:
        code: dict = {}
        add_definition(stage.__module__, stage.__name__, code, stage)
        return code

    def test_holds_what_the_stage_uses(self):
        code = self.code_of(tasks.TrainSVMs)
        names = ("rcnn.TrainSVMs", "rcnn.SVMS", "rcnn.scale_of", "rcnn.save_arrays", "features.stores.open_features")
        modules = ("rcnn", "rcnn.svm", "rcnn.svm_solver", "rcnn.shared_rows", "rcnn.scaling", "seeding", "feature_store")
        assert {*(f"tasks.{name}" for name in names), *(f"pipeline.{name}" for name in modules)} <= code.keys()

    def test_holds_nothing_else(self):
        code = self.code_of(tasks.TrainSVMs)
        others = ("rcnn.DetectRCNN", "rcnn.TrainBoxRegressors", "features.stores.ExtractFeatures", "engine.artefacts.Artefact")
        modules = ("proposals", "rcnn.box_regression", "rcnn.warp")
        assert not {*(f"tasks.{name}" for name in others), *(f"pipeline.{name}" for name in modules)} & code.keys()

    def test_follows_imports_of_other_task_modules_and_packages(self):
        code = self.code_of(tasks.ExtractFeatures)
        networks = {"tasks.networks.base.load_backbone", "tasks.networks.base.BACKBONE"}
        assert networks | {"tasks.proposals.regions.load_proposals"} <= code.keys()
        assert {"pipeline.networks", "pipeline.networks.backbones"} <= code.keys()
        proposals = {"tasks.proposals.regions._propose", "pipeline.proposals", "pipeline.proposals.package"}
        assert proposals <= self.code_of(tasks.RegionProposals).keys()

    def tree(self, text: str) -> object:
        return canonical(ast.parse(textwrap.dedent(text)))

    def test_comments_docstrings_and_layout_do_not_count(self):
        first = '''
            """Module."""
            def f(a, b=(1, 2)):
                """Function."""
                return [a, b]  # what it returns
        '''
        second = '''
            def f(a,
                  b=(1,
                     2,)):
                return [a,
                        b]
        '''
        assert self.tree(first) == self.tree(second)

    def test_code_counts(self):
        trees = [self.tree(text) for text in (
            "def f(a): return a", "def f(b): return b", "def f(a): return -a", "def f(a): return 'a'", "def f(a=1): return a",
            "def f(a=1.0): return a", "def f(a=True): return a",
        )]
        assert len({json.dumps(tree) for tree in trees}) == len(trees)

    def test_version_and_settings_do_not_count(self):
        definition = ast.parse("class TrainSVMs(CachedTask):\n    version = 7\n    svm_c = 3\n    LIMIT = 4").body[0]
        stage = type("Stage", (), {"version": 7, "svm_c": luigi.IntParameter(), "LIMIT": 4})
        assert [node.targets[0].id for node in without_settings(definition, stage).body] == ["LIMIT"]


def test_changes_tell_the_versions_of_today():
    """The owner of a large cache must know what an upgrade makes again."""
    rows = re.findall(r"^\| (`.*`) \| \d+ to (\d+) \|", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    versions = {name: int(version) for names, version in rows for name in re.findall(r"`(\w+)`", names)}
    assert len(versions) > 15
    assert versions == {name: STAGES[name].version for name in versions}


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit("usage: python -m tests.tasks.test_versions --record")
    RECORD.write_text(json.dumps(current(), indent=1) + "\n")
    print(f"recorded {len(STAGES)} stages in {RECORD}")
