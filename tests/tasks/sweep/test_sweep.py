"""`Sweep`: what is refused before any work, and a sweep on the miniature that reuses the first run."""

import json
from collections import Counter

import pytest

from tasks.engine.parameters import SettingError

COMMAND = "luigi --module tasks Sweep"


def refused(task_of, options: str) -> str:
    task = task_of(f"{COMMAND} {options}")
    with pytest.raises(SettingError) as raised:
        task.requires()
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestRefused:
    def test_a_setting_that_changes_nothing(self, task_of):
        message = refused(task_of, "--chain fast-rcnn --vary 'svm_c=0.1,1 nms_threshold=0.3,0.5'")
        assert message == "--vary: svm_c changes nothing in these runs (values 0.1, 1.0); leave it out"

    def test_a_setting_that_matters_in_some_rows_is_kept(self, task_of):
        plan = task_of(f"{COMMAND} --vary 'finetune_iterations=0,3 finetune_learning_rate=0.1,0.2'").plan
        assert len(plan.rows) == 4

    def test_a_row_that_is_the_same_run_as_an_earlier_one(self, task_of, tmp_path):
        path = tmp_path / "some.rows"
        path.write_text("[first]\n[second]\nspp_layer = pool5\n")
        assert refused(task_of, f"--rows {path}") == (
            f"{path}: [second] is the same run as [first]: its settings change nothing; leave it out"
        )

    def test_a_value_that_only_the_stages_know_to_be_wrong(self, task_of):
        message = refused(task_of, "--vary layer=pool5,fc9")
        assert message == "row 'layer=fc9': --layer fc9: backbone tiny has only pool5, fc6"

    def test_a_command_without_rows(self, task_of):
        with pytest.raises(SettingError, match="nothing to vary"):
            task_of(COMMAND).deps()


class TestKey:
    def test_names_and_seeds_are_in_the_key_and_the_place_of_the_file_is_not(self, task_of, tmp_path):
        def key(place: str, text: str, seeds: str = "0,1") -> str:
            path = tmp_path / place
            path.write_text(text)
            return task_of(f"{COMMAND} --rows {path} --vary seed={seeds}").key

        rows = "[a]\n[b]\nsvm_c = 1\n"
        assert key("one", rows) == key("other", rows) == key("third", rows + "# a comment\n")
        others = [key("one", rows.replace("[b]", "[c]")), key("one", rows.replace("1", "2")), key("one", rows, "0,2"),
                  key("one", rows + "published_difference = 1\n")]
        assert len({key("one", rows), *others}) == 5


@pytest.fixture(scope="module")
def swept(cold_run, miniatures):
    """A project after a sweep of which the second row fails, and after the whole sweep; what each printed, and what was made."""
    project = miniatures(cold_run[0])
    before = project.manifests()
    failed = project.run("Sweep", "--vary", "svm_negative_overlap=0.3,0.5,0", status=30)
    between = project.manifests()
    whole = project.run("Sweep", "--vary", "svm_negative_overlap=0.3,0.5")
    counts = [Counter(manifest["stage"] for name, manifest in now.items() if name not in earlier)
              for earlier, now in ((before, between), (between, project.manifests()))]
    sweeps = [json.loads(path.read_text()) for path in sorted(project.cache.glob("Sweep/*/sweep.json"),
                                                              key=lambda path: path.stat().st_mtime)]
    return project, (failed, whole), counts, sweeps


class TestOnTheMiniature:
    def test_a_row_makes_only_what_it_changes(self, swept):
        _, _, (counts, _), _ = swept
        assert counts == {"TrainSVMs": 1, "DetectRCNN": 3, "Evaluate": 1, "Sweep": 1}

    def test_rows_that_fail_do_not_lose_the_others(self, swept):
        _, (failed, _), _, (partial, _) = swept
        assert "Sweep: 2 of 3 rows are finished; not 'svm_negative_overlap=0.0'" in failed
        assert "not finished: svm_negative_overlap=0.0" in failed
        assert [row["name"] for row in partial["rows"]] == ["svm_negative_overlap=0.3", "svm_negative_overlap=0.5"]
        assert partial["unfinished"] == ["svm_negative_overlap=0.0"]
        assert "failed" in failed

    def test_the_table_and_the_file(self, swept):
        _, (_, whole), (_, counts), (partial, sweep) = swept
        assert counts == {"Sweep": 1}
        assert f"This command computed 0 of the {sweep['costs']['computed']['artefacts']} artefacts behind the table" in whole
        assert sweep["unfinished"] == []
        assert sweep["rows"] == partial["rows"]
        first, second = sweep["rows"]
        assert first["results"]["difference"] is None
        assert second["cost"]["computed"]["artefacts"] == 5
        assert sweep["costs"]["separate"]["artefacts"] > 1.5 * sweep["costs"]["computed"]["artefacts"]

    def test_rows_are_judged_as_by_evaluate(self, swept):
        project, _, _, (_, sweep) = swept
        for row in sweep["rows"]:
            (name,) = row["artefacts"]
            evaluation = json.loads((project.cache / name / "evaluation.json").read_text())
            assert row["results"]["map"] == evaluation["map_07"]
            assert row["results"]["classes"]["one"]["ap"] == evaluation["classes"]["one"]["ap_07"]

    def test_the_page(self, swept):
        project, _, _, _ = swept
        for path in project.cache.glob("Sweep/*/sweep.html"):
            page = path.read_text()
            assert page.count("<h2>") == 4
            assert "svm_negative_overlap=0.5" in page
