"""The versions of the packages whose code makes the results."""

from importlib import metadata

PACKAGES = (
    "numpy", "torch", "torchvision", "scikit-learn", "scikit-image", "h5py", "numba", "pillow", "selectivesearch",
    "pycocotools", "luigi",
)


def package_versions() -> dict[str, str]:
    """The version of each of `PACKAGES` that is installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
