"""Whether another process has the same code: the versions of packages, and a digest of each source file."""

import importlib.util
import platform
from functools import cache
from pathlib import Path

from .digests import digest_file
from .package_versions import package_versions

NONE = "none"


def code_of(task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the packages and of the sources that make the results of the stage `task`."""
    stages = [cls for cls in type(task).__mro__ if hasattr(cls, "packages")]
    sources = {cls.__module__.partition(".")[0] for cls in stages} | set(task.sources)
    return (*task.packages, "dask", "distributed"), tuple(sorted(sources))


@cache
def describe_code(packages: tuple[str, ...], sources: tuple[str, ...]) -> dict[str, str]:
    """The version of Python and of each of the `packages`, and the digest of each file of the `sources`, by name."""
    described = {"Python": ".".join(platform.python_version_tuple()[:2]), **package_versions(packages)}
    for source in sources:
        for name, path in _files(source):
            described[name] = digest_file(path)[:12]
    return described


def _files(source: str) -> list[tuple[str, Path]]:
    """The files of a package or module, by names that do not depend on where it is installed."""
    spec = importlib.util.find_spec(source)
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        return [(f"{source}.py", Path(spec.origin))] if spec.origin else []
    paths = [(folder, path) for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [(f"{source}/{path.relative_to(folder).as_posix()}", path) for folder, path in paths]


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """What differs, each in a few words."""
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return [f"{name} differs" if name.endswith(".py") else f"{name} {theirs.get(name, NONE)}, here {ours.get(name, NONE)}"
            for name in names]
