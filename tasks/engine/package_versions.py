"""The versions of installed packages."""

from collections.abc import Iterable
from functools import cache
from importlib import metadata


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """The version of each package of `names` that is installed, by name."""
    return {name: version for name in names if (version := _version(name))}


@cache  # it takes a millisecond, and each of thousands of shards asks for eleven
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
