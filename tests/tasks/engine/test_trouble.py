"""Troubles that are no bugs are reported in one line; bugs keep their exception. Results that cannot be shown."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import ChangedFile, DamagedFile, PipelineError
from pipeline.files.writing import WriteError, cannot_write
from tasks.engine import trouble
from tasks.engine.artefacts import DamagedArtefact
from tasks.engine.errors import StorageError, UserError
from tasks.engine.storage import ADVICE, UNKNOWN
from tasks.engine.trouble import OF_ANY_FILE, check_file, memory_advice, tell_of_death, told_in_a_line
from tasks.file_checks import FILE_CHECKS


@pytest.fixture
def task(artefact):
    """The attributes of a task that `told_in_a_line` uses."""
    user, storage = (UserError, PipelineError), (WriteError,)
    return SimpleNamespace(
        cache_dir=str(artefact.cache), artefact=artefact, user_errors=user, storage_errors=storage, file_checks=FILE_CHECKS
    )


def outcome(task, error: BaseException) -> BaseException:
    """The error that `told_in_a_line` makes of one that a stage raises."""
    with pytest.raises(type(error) if not isinstance(error, Exception) else Exception) as caught, told_in_a_line(task):
        raise error
    return caught.value


class TestSystemErrors:
    @pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
    @pytest.mark.parametrize("place", ["cache", "cache/.work/Stage-0123456789ab/files/a.npz"])
    def test_about_the_cache(self, task, tmp_path, number, place):
        for name in (str(tmp_path / place), tmp_path / place):
            error = outcome(task, OSError(number, os.strerror(number), name))
            assert type(error) is StorageError
            assert str(error) == f"{tmp_path / place}: {os.strerror(number)}; {ADVICE[number]}"
            assert isinstance(error.__cause__, OSError)

    @pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
    @pytest.mark.parametrize("place", ["data/a.jpg", "cache2/a", "cached"])
    def test_about_a_file_elsewhere(self, task, tmp_path, number, place):
        given = OSError(number, os.strerror(number), str(tmp_path / place))
        error = outcome(task, given)
        if number in OF_ANY_FILE:
            assert str(error).startswith(f"{tmp_path / place}: {os.strerror(number)}; ")
            assert isinstance(error, StorageError)
        else:
            assert error is given

    @pytest.mark.parametrize("name", [None, 7, ""], ids=repr)
    @pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
    def test_about_no_file_name_the_artefact(self, task, number, name):
        error = outcome(task, OSError(number, os.strerror(number), name))
        assert str(error) == f"Stage/0123456789ab: {os.strerror(number)}; {ADVICE[number]}"

    @pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL, errno.EPIPE, errno.ECHILD, None])
    @pytest.mark.parametrize("place", ["cache/a", "data/a"])
    def test_others_are_bugs(self, task, tmp_path, number, place):
        given = OSError(number, "odd", str(tmp_path / place)) if number else OSError("odd")
        assert outcome(task, given) is given

    @pytest.mark.parametrize("place", ["cache/.work/a.npz", "elsewhere/a.npz"])
    def test_what_cannot_be_written_is_told_wherever_it_is(self, task, tmp_path, place):
        error = outcome(task, cannot_write(tmp_path / place, OSError(errno.ENOENT, "x")))
        assert type(error) is StorageError
        assert str(error) == f"{tmp_path / place}: cannot be written: No such file or directory; {UNKNOWN}"

    def test_advice_is_there_for_each_and_names_what_to_do(self):
        assert set(OF_ANY_FILE) <= set(ADVICE)
        assert UNKNOWN not in ADVICE.values()


@pytest.mark.parametrize("error", [
    ZeroDivisionError("a bug"), PipelineError("a message"), KeyboardInterrupt(), DamagedArtefact(Path("cache/a"), "told already"),
], ids=lambda error: type(error).__name__)
def test_other_errors_stay_what_they_are(task, error):
    assert outcome(task, error) is error


class TestMemory:
    def test_too_little(self, task):
        task.memory_settings = ("batch_size", "threads")
        error = outcome(task, MemoryError("Unable to allocate 3 GiB"))
        assert type(error) is UserError
        assert str(error) == (
            "Stage/0123456789ab: not enough memory (Unable to allocate 3 GiB); free some memory, run one stage at a time with "
            "--workers 1, or lower --batch-size or --threads; the same command goes on from here"
        )

    def test_advice_for_a_task_without_settings(self):
        advice = "free some memory, run one stage at a time with --workers 1; the same command goes on from here"
        assert memory_advice(object()) == advice
        assert memory_advice(SimpleNamespace(memory_settings=())) == advice


class TestFiles:
    def test_one_that_can_be_read_after_all_stays(self, task, artefact):
        given = DamagedFile(artefact.folder / "a.json", "a.json: is odd")
        assert outcome(task, given) is given
        assert artefact.json("a.json") == [1]

    def test_damaged_one_has_its_artefact_put_aside(self, task, artefact, monkeypatch):
        monkeypatch.setattr(trouble, "why_unreadable", lambda path, checks: "odd")
        path = artefact.folder / "a.json"
        error = outcome(task, DamagedFile(path, f"{path}: is odd"))
        aside = artefact.cache / ".damaged" / "Stage-0123456789ab-0"
        assert str(error) == f"{path}: is odd; its artefact was moved aside, to {aside}: the same command makes it again"
        assert not artefact.folder.exists()
        assert (aside / "a.json").read_text() == "[1]"

    def test_damaged_one_elsewhere_stays(self, task, tmp_path):
        path = tmp_path / "weights.npz"
        path.write_text("odd")
        assert str(outcome(task, DamagedFile(path, f"{path}: is odd"))) == f"{path}: is odd; make it anew"
        assert path.read_text() == "odd"

    @pytest.mark.parametrize("name", ["a.json", "sub/b.json"])
    @pytest.mark.parametrize("damage", ["[3]", "longer", None])
    def test_changed_one_of_an_artefact_damages_it(self, task, artefact, name, damage):
        path = artefact.folder / name
        path.write_text(damage) if damage else path.unlink()
        error = outcome(task, ChangedFile(path, "changed"))
        assert type(error) is DamagedArtefact
        assert error.path == path
        assert str(path) in str(error)
        assert "moved aside" in str(error)
        assert not artefact.folder.exists()

    def test_changed_one_elsewhere_or_sound_after_all_is_told_as_it_is(self, task, artefact, tmp_path):
        (tmp_path / "a.jpg").write_text("new")
        for path in (tmp_path / "a.jpg", tmp_path / "gone.jpg", artefact.folder / "a.json", artefact.cache / ".work" / "a"):
            given = ChangedFile(path, "changed")
            assert outcome(task, given) is given
            check_file(artefact.cache, path)
        assert artefact.check()


class TestDeath:
    @pytest.mark.parametrize(("code", "message"), [
        ("-9", "its process was ended by SIGKILL, most likely by the system because memory ran out: free some memory"),
        ("-11", "its process was ended by SIGSEGV: free some memory"),
        ("-15", "its process was ended by SIGTERM: free some memory"),
        ("3", "its process was ended by exit code 3: free some memory"),
        ("0", "its process was ended by exit code 0: free some memory"),
        ("-999", "its process was ended by exit code -999: free some memory"),
        ("None", "its process was ended by exit code None: free some memory"),
    ])
    def test_is_told(self, monkeypatch, code, message):
        lines, task = [], SimpleNamespace(memory_settings=("cache_size",))
        monkeypatch.setattr(trouble.logger, "error", lambda *arguments, exc_info: lines.append((arguments, exc_info)))
        tell_of_death(task, f"Task Stage died unexpectedly with exit code {code}")
        ((arguments, (kind, error, trace)),) = lines
        assert arguments == ("%s", task)
        assert (kind, trace) == (UserError, None)
        assert str(error).startswith(message)
        assert "--workers 1, or lower --cache-size; the same command goes on" in str(error)
        assert ("most likely" in str(error)) == (code == f"{-signal.SIGKILL}")


TELL = """
import sys
from tasks.engine.errors import UserError
from tasks.engine.printing import tell
try:
    for _ in range(int(sys.argv[1])):
        tell("a line of the table\\x1b[31m " * 50)
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(30)
"""


def tell(redirection: str, count: int = 1) -> subprocess.CompletedProcess:
    """Prints in a separate program, whose standard output the shell redirects by `redirection`."""
    command = f'"$0" -c "$1" {count} {redirection}; echo "status $?" >&2'
    # Buffered, as a user's is: what could not be written would be tried again, and shown as a traceback, at the program's end.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = ["bash", "-c", command, sys.executable, TELL]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=variables)


class TestStandardOutput:
    def test_gets_printable_lines(self):
        process = tell("")
        assert process.stdout == "a line of the table\\x1b[31m " * 50 + "\n"
        assert process.stderr == "status 0\n"

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
    def test_that_is_full(self):
        error, status = tell("> /dev/full").stderr.splitlines()
        assert error == (
            "standard output: cannot be written: No space left on device; the result is in the cache: free some space there, "
            "or print elsewhere, and give the same command again"
        )
        assert status == "status 30"

    def test_that_is_closed(self):
        stderr = tell(">&-").stderr
        assert "Traceback" not in stderr
        assert stderr.splitlines()[-1] in ("status 0", "status 30")

    def test_whose_reader_has_gone(self):
        process = tell("| true", count=300)
        assert process.stderr == "status 0\n"

    def test_that_cannot_be_written(self):
        stderr = tell("1< /dev/null").stderr
        assert "Traceback" not in stderr
        assert "standard output: cannot be written: Bad file descriptor; " in stderr
        assert stderr.splitlines()[-1] == "status 30"
