"""Projects after whole runs on the miniature. Each run is made once a session, and copied."""

import shutil

import pytest

from tasks.evaluation.evaluate import DEFAULT_CHAINS
from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import NOTHING, REPORT, check_docs


@pytest.fixture(scope="module")
def cold(cold_run, miniatures):
    """A project after its first run, what that printed, and the manifests that it left."""
    cache, output = cold_run
    project = miniatures(cache)
    return project, output, project.manifests()


@pytest.fixture(scope="module")
def project(cold):
    """The project of `cold`; each test adds other artefacts to its cache. The docs have to name all that is in them."""
    yield cold[0]
    check_docs(cold[0])


@pytest.fixture
def copy(cold_run, miniatures):
    """A project of its own with the cache of the first run."""
    return miniatures(cold_run[0])


@pytest.fixture(scope="module")
def reported(cold_run, shared_run, miniatures):
    """A project with the cache of the first run after a run with a report, and what that printed."""

    def report(folder):
        project = Miniature(folder, cold_run[0])
        before = project.manifests()
        output = project.run("FullPipeline", "--report", "true")
        assert project.made(before) == REPORT
        return output

    folder, output = shared_run("reported", report)
    return miniatures(folder / "cache"), output


@pytest.fixture(scope="module", params=["fast-rcnn", pytest.param(",".join(DEFAULT_CHAINS), marks=pytest.mark.exhaustive)])
def photographed(cold_run, shared_run, miniatures, request):
    """A project in which the embedded set lies as the user's own folder `photos`, after a run of `project.chains` on it."""

    def photograph(folder):
        project = Miniature(folder, cold_run[0])
        shutil.copytree(embedded_set(cold_run[0]), folder / "photos")
        before = project.manifests()
        output = project.run("FullPipeline", "--dataset", "photos", "--chains", request.param)
        assert project.made(before) != NOTHING
        return output

    folder, _ = shared_run(f"photographed-{request.param}", photograph)
    project = miniatures(folder / "cache")
    project.chains = request.param
    shutil.copytree(folder / "photos", project.folder / "photos")
    return project


def embedded_set(cache):
    return next(cache.glob("GenerateDigits/*/digits"))


@pytest.fixture
def copied(cold_run, tmp_path):
    """A copy of the user's folder at another place."""
    return shutil.copytree(embedded_set(cold_run[0]), tmp_path / "photos")
