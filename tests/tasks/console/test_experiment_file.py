"""Experiment files: errors are reported, and right settings reach the whole run or one stage."""

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from pipeline.errors import PipelineError
from tasks.console.experiment_file import check_experiment_file, settings
from tasks.engine.task import all_stages

REPOSITORY = Path(__file__).resolve().parents[3]
OURS = [*sorted((REPOSITORY / "experiments").glob("*.cfg")), REPOSITORY / "luigi.cfg", REPOSITORY / "luigi-cluster.cfg"]

# Prints the chosen setting and key of the task that a command line means, and of the SVMs that it needs.
TELL = """
import json, sys, tasks
from luigi.cmdline_parser import CmdlineParser
with CmdlineParser.global_instance(sys.argv[1:]) as parser:
    task = parser.get_task_obj()
    task = getattr(task, "of", task)
svms = task.clone(tasks.TrainSVMs)
print(json.dumps({"cost": task.svm_c, "key of SVMs": svms.key, "iterations": task.finetune_iterations}))
"""


@pytest.fixture
def experiment(tmp_path):
    """A function that writes an experiment file and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "mine.cfg"
        path.write_text(text)
        return str(path)

    return write


def python(folder: Path, code: str, *arguments: str, config: str | None = None, status: int = 0) -> str:
    """Runs `code` in the folder of a run, with the experiment file `config`; returns its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LUIGI_", "RCNN_"))}
    environment |= {"PYTHONPATH": str(REPOSITORY)} | ({"LUIGI_CONFIG_PATH": config} if config else {})
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


class TestCheck:
    @pytest.mark.parametrize("path", OURS, ids=[path.name for path in OURS])
    def test_our_own_files_pass(self, path):
        check_experiment_file(str(path))

    @pytest.mark.parametrize("path", OURS, ids=[path.name for path in OURS])
    def test_values_in_our_own_files_can_be_had(self, path):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(path)
        checked = set()
        for stage in all_stages():
            for _, parameter in stage.get_params():
                place = getattr(parameter, "place", None) or {"section": "", "name": ""}
                if value := parser.get(place["section"], place["name"], fallback=""):
                    parameter.normalize(parameter.parse(value))
                    checked.add((place["section"], place["name"]))
        sections = parser.sections() if path.parent.name == "experiments" else ()
        assert checked == {(section, name) for section in sections for name in parser[section]}

    @pytest.mark.parametrize("path", [None, ""])
    def test_no_file_is_no_error(self, path):
        check_experiment_file(path)

    def test_known_settings_pass(self, experiment):
        text = "\n".join(f"[{section}]\n" + "\n".join(f"{name} = 1" for name in names) for section, names in settings().items())
        check_experiment_file(experiment(text))
        check_experiment_file(experiment("[svm]\nretrain-limit = 1\n[core]\nanything = 1\n"))

    def test_settings_are_those_of_the_stages(self):
        known = settings()
        assert {"c", "positive_weight", "bias"} <= known["svm"]
        assert {"cache_dir", "seed", "threads", "shard_size", "chains"} <= known["run"]
        assert not {"SVM", "TrainSVMs", "core"} & known.keys()
        for stage in (tasks.FullPipeline, tasks.LoadWeights):
            places = [place for _, parameter in stage.get_params() if (place := getattr(parameter, "place", None))]
            assert len(places) > 5
            assert all(place["name"] in known[place["section"]] for place in places)

    @pytest.mark.parametrize(("text", "message"), [
        ("[svm]\ncost = 1\n", "unknown setting [svm] cost; the known ones are "),
        ("[svm]\nc = 1\nC2 = 1\n[run]\nsede = 1\n", "unknown setting [svm] c2, [run] sede; the known ones are "),
        ("[TrainSVMs]\nsvm_c = 1\n", "unknown setting [TrainSVMs] svm_c, [TrainSVMs]; the known ones are "),
        ("[swm]\n", "unknown setting [swm]; the known ones are "),
    ])
    def test_unknown_settings_are_listed_with_the_known_ones(self, experiment, text, message):
        path = experiment(text)
        with pytest.raises(PipelineError) as error:
            check_experiment_file(path)
        assert str(error.value).startswith(f"{path}: {message}")
        assert "[svm] bias, c, " in str(error.value)

    @pytest.mark.parametrize("path", ["nowhere.cfg", "."])
    def test_missing_file(self, path):
        with pytest.raises(PipelineError, match=rf"^LUIGI_CONFIG_PATH={path}: no such file; run in the project's folder or"):
            check_experiment_file(path)

    @pytest.mark.parametrize("text", ["c = 1\n", "[svm]\nc = 1\nc = 2\n", "[svm\n"])
    def test_not_a_configuration_file(self, experiment, text):
        path = experiment(text)
        with pytest.raises(PipelineError) as error:
            check_experiment_file(path)
        assert str(error.value).startswith(f"{path}: not a configuration file: ")

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"a\x1b[31m\nb", b"[svm]\n\xe9 = 1"])
    def test_no_text(self, tmp_path, content):
        (tmp_path / "mine.cfg").write_bytes(content)
        with pytest.raises(PipelineError, match=r"mine\.cfg: not a configuration file: ") as error:
            check_experiment_file(str(tmp_path / "mine.cfg"))
        assert str(error.value).isprintable()

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.cfg")
        with pytest.raises(PipelineError, match=r"pipe\.cfg: cannot be read \(it is a named pipe, not a regular file\); give"):
            check_experiment_file(str(tmp_path / "pipe.cfg"))

    def test_percent_signs_are_text(self, experiment):
        check_experiment_file(experiment("[dataset]\nname = 100%\n"))


class TestUse:
    def tell(self, folder: Path, *arguments: str, config: str | None = None) -> dict:
        return json.loads(python(folder, TELL, *arguments, config=config))

    def test_sets_a_knob_for_the_whole_run_and_for_one_stage(self, tmp_path, experiment):
        config = experiment("[svm]\nc = 0.5\n[finetune]\niterations = 7\n")
        plain = self.tell(tmp_path, "FullPipeline")
        whole = self.tell(tmp_path, "FullPipeline", config=config)
        stage = self.tell(tmp_path, "TrainSVMs", config=config)
        assert plain["cost"] == tasks.TrainSVMs.svm_c.task_value("TrainSVMs", "svm_c") == 0.001
        assert (whole["cost"], whole["iterations"]) == (0.5, 7)
        assert whole == stage
        assert plain["key of SVMs"] != whole["key of SVMs"]

    def test_command_line_overrides_it(self, tmp_path, experiment):
        config = experiment("[svm]\nc = 0.5\n")
        overridden = self.tell(tmp_path, "FullPipeline", "--svm-c", "0.001", config=config)
        assert overridden == self.tell(tmp_path, "FullPipeline")
        assert overridden == self.tell(tmp_path, "Evaluate", "--svm-c", "1e-3", config=config)

    @pytest.mark.parametrize(("config", "message"), [
        ("mine.cfg", "error: mine.cfg: unknown setting [svm] cost; the known ones are "),
        ("nowhere.cfg", "error: LUIGI_CONFIG_PATH=nowhere.cfg: no such file; "),
    ])
    def test_wrong_file_ends_the_command(self, tmp_path, experiment, config, message):
        experiment("[svm]\ncost = 1\n")
        output = python(tmp_path, "import tasks", config=config, status=1)
        assert output.startswith(message)
        assert output.count("\n") == 1
