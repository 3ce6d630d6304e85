"""`rcnn`: which stage a command runs with which words, experiments by name, completion, and a quick start."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rcnn
import tasks
from tasks.console import command_line, front
from tasks.console.completion import script

REPOSITORY = Path(__file__).resolve().parents[3]
ENDED = 30  # the status with which Luigi ends in these tests


@pytest.fixture
def given(monkeypatch):
    """The words that Luigi gets. `rcnn` may set LUIGI_CONFIG_PATH; it is put back."""
    calls = []

    def run(words):
        calls.append(words)
        raise SystemExit(ENDED)

    monkeypatch.setattr(front, "luigi_run", run)
    monkeypatch.setattr(command_line, "GIVEN", [])
    monkeypatch.setenv("LUIGI_CONFIG_PATH", "before.cfg")
    return calls


class TestStages:
    @pytest.mark.parametrize(("command", "words"), [
        ("run --chains rcnn", "FullPipeline --chains rcnn"), ("run", "FullPipeline"),
        ("detect photos --chain rcnn", "DetectImages --images photos --chain rcnn"),
        ("detect --images photos", "DetectImages --images photos"), ("export --chain rcnn", "ExportDetector --chain rcnn"),
        ("stage TrainSVMs --svm-c 1", "TrainSVMs --svm-c 1"),
    ])
    def test_gets_the_words(self, given, command, words):
        assert rcnn.main(command.split()) == ENDED
        assert given == [["--module", "tasks", *words.split()]]
        assert os.environ["LUIGI_CONFIG_PATH"] == "before.cfg"

    def test_are_listed_with_what_they_do(self, capsys):
        assert rcnn.main(["stage"]) == 0
        lines = capsys.readouterr().out.splitlines()[2:]
        assert [line.split()[0] for line in lines] == tasks.__all__
        assert "TrainSVMs               Trains one linear SVM per class, with" in "\n".join(lines)

    def test_messages_name_the_command_that_was_given(self, monkeypatch, capsys):
        monkeypatch.setattr(command_line, "GIVEN", [])
        assert rcnn.main(["stage", "TrainSVM"]) == 2
        assert capsys.readouterr().err == "rcnn: there is no stage TrainSVM (did you mean TrainSVMs?)\n"
        assert command_line.GIVEN == ["rcnn stage TrainSVM"]

    def test_an_option_of_other_stages_is_said_to_be_one(self, monkeypatch, capsys):
        monkeypatch.setattr(command_line, "GIVEN", [])
        assert rcnn.main(["stage", "TrainFasterRCNN", "--test-split", "val"]) == 2
        assert capsys.readouterr().err.startswith("rcnn: TrainFasterRCNN has no option --test-split (other stages have it); ")


class TestExperiments:
    @pytest.mark.parametrize("words", [["--experiment", "voc2007-vgg16"], ["--experiment=voc2007-vgg16.cfg"]])
    def test_are_found_by_name(self, given, words):
        rcnn.main(["run", *words, "--device", "cuda"])
        assert given == [["--module", "tasks", "FullPipeline", "--device", "cuda"]]
        assert Path(os.environ["LUIGI_CONFIG_PATH"]).resolve() == REPOSITORY / "experiments" / "voc2007-vgg16.cfg"

    def test_a_file_of_the_user_wins(self, given, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("voc2007-vgg16").write_text("")
        rcnn.main(["run", "--experiment", "voc2007-vgg16"])
        assert os.environ["LUIGI_CONFIG_PATH"] == "voc2007-vgg16"

    @pytest.mark.parametrize(("words", "hint"), [(["voc2007-vg16"], " (did you mean voc2007-vgg16?)"), ([], ""), (["a/b"], "")])
    def test_an_unknown_one_is_an_error(self, given, capsys, words, hint):
        assert rcnn.main(["run", "--experiment", *words]) == 2
        assert f"found no such file{hint}; give a file, or a name from `rcnn experiments`\n" in capsys.readouterr().err
        assert given == []

    def test_are_listed(self, capsys):
        rcnn.main(["experiments"])
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == sorted(path.stem for path in (REPOSITORY / "experiments").glob("*.cfg"))
        assert len({line.index(line.split()[1]) for line in lines}) == 1  # the files are in one column


@pytest.mark.parametrize(("words", "message"), [
    (["rnu"], "there is no command 'rnu' (did you mean run?); `rcnn --help` lists the commands"),
    (["stage", "--svm-c", "1"], "expected the name of a stage before '--svm-c'; `rcnn stage` lists the stages"),
    (["completion", "fish"], "expected `rcnn completion bash|zsh`"),
])
def test_a_wrong_request_is_one_line(capsys, words, message):
    assert rcnn.main(words) == 2
    assert capsys.readouterr().err == f"rcnn: {message}\n"


def test_tools_have_the_name_that_was_given(capsys, tmp_path):
    assert rcnn.main(["cache", "--cache-dir", str(tmp_path / "none"), "ls"]) == 2
    assert capsys.readouterr().err.startswith("rcnn cache: ")
    with pytest.raises(SystemExit):
        rcnn.main(["data", "--help"])
    assert capsys.readouterr().out.startswith("usage: rcnn data [-h]")


@pytest.mark.slow
def test_starts_quickly():
    seconds = []
    for _ in range(3):  # the best of them: other tests take the cores as well
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rcnn"], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(("words", "completed"), [
    (["r"], {"run"}), (["cache", ""], {"ls", "show", "verify", "diff", "du", "prune"}), (["stage", "TrainSV"], {"TrainSVMs"}),
    (["run", "--svm-c"], {"--svm-c"}), (["stage", "GenerateDigits", "--digits-se"], {"--digits-seed"}),
    (["stage", "GenerateDigits", "--svm"], set()), (["run", "rcn"], set()), (["data", "c"], {"convert"}),
])
def test_completion(tmp_path, words, completed):
    file = tmp_path / "completion"
    file.write_text(script("bash", rcnn.COMMANDS, rcnn.STAGES))
    ask = '. "$0"; COMP_WORDS=(rcnn "$@"); COMP_CWORD=$#; _rcnn; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", ask, file, *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert completed <= set(done.stdout.split())
    assert completed or not done.stdout.split()


def test_completion_for_zsh_uses_that_of_bash():
    for_zsh, for_bash = (script(shell, rcnn.COMMANDS, rcnn.STAGES) for shell in ("zsh", "bash"))
    assert for_zsh.endswith(for_bash)
    assert "bashcompinit" in for_zsh.removesuffix(for_bash)
