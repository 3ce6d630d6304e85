"""Region proposals and their quality, as stages."""

import json

import pytest


@pytest.fixture(scope="module")
def measured(miniatures):
    """The miniature, after a run, and what that printed."""
    project = miniatures()
    return project, project.run("ProposalQuality", "--split", "test")


def test_the_table_is_shown_and_the_files_are_named(measured):
    project, output = measured
    (folder,) = (project.cache / "ProposalQuality").iterdir()
    assert f"results: cache/ProposalQuality/{folder.name}/ (quality.json, table.txt, curve.svg)" in output
    table = (folder / "table.txt").read_text()
    assert table in output
    assert table.startswith("proposals 'balanced' on 4 images of 'test', ")
    assert (folder / "curve.svg").stat().st_size > 1000


def test_quality_as_json(measured):
    project, _ = measured
    found = json.loads(next(project.cache.glob("ProposalQuality/*/quality.json")).read_text())
    assert (found["method"], found["split"], found["images"]) == ("balanced", "test", 4)
    assert found["core_seconds_per_image"] > 0
    assert found["counts"][-1] == 60  # max_proposals
    assert len(found["recalls"]) == len(found["counts"])
    assert found["recalls"][-1][0] > 0.9
    assert found["mabo"][-1] > 0.7


def test_it_is_shown_again_without_being_computed_again(measured):
    project, output = measured
    before = project.manifests()
    again = project.run("ProposalQuality", "--split", "test")
    assert not project.made(before)
    assert again.splitlines()[-3:] == output.splitlines()[-3:]


@pytest.mark.parametrize("settings", [("--proposals", "fast"), ("--image-width", "200"), ("--proposals", "selectivesearch")])
def test_other_settings_give_other_proposals(measured, settings):
    project, _ = measured
    before = project.manifests()
    project.run("ProposalQuality", "--split", "test", *settings)
    assert set(project.made(before)) == {"RegionProposals", "ProposalQuality"}


@pytest.mark.parametrize(("settings", "message"), [
    (("--proposals", "edges"), "--proposals: found 'edges', expected one of balanced, single, fast, quality, selectivesearch"),
    (("--image-width", "-3"), "--image-width: found -3"),
])
def test_bad_settings_are_named(miniatures, settings, message):
    assert message in miniatures().run("ProposalQuality", *settings, status=40)
