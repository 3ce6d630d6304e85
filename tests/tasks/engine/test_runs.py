"""The cache under Luigi as the user runs it: forced, killed, twice at once, with workers, with errors."""

import os
import re
import signal

import psutil
import pytest

pytestmark = pytest.mark.slow

CHAIN = ["ListNumbers", "RaiseNumbers 0", "RaiseNumbers 1", "RaiseNumbers 2", "RaiseNumbers whole", "SumNumbers"]


def alive(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


class TestRun:
    def test_whole_chain_and_then_nothing(self, project):
        output = project.run("SumNumbers")
        assert project.built() == CHAIN
        assert re.search(r"^\d\d:\d\d:\d\d SumNumbers/[0-9a-f]{12}: done in [\d.]+ s \(sum 385\)$", output, re.M)
        assert "RaiseNumbers/" in output
        assert "(shard 3 of 3): running" in output
        assert "Nothing to do" in project.run("SumNumbers")
        assert project.run("RaiseNumbers") == ""
        assert project.built() == []
        assert project.leftovers() == []

    def test_workers_change_no_byte(self, project, tmp_path_factory):
        second = type(project)(tmp_path_factory.mktemp("other"))
        project.run("SumNumbers", "--workers", "1")
        second.run("SumNumbers", "--workers", "2")
        assert project.digests() == second.digests()
        assert len(project.digests()) == 6
        assert second.built() == CHAIN

    def test_settings_from_experiment_file_and_command_line(self, project):
        project.run("SumNumbers", "--power", "3")
        project.built()
        with open(project.config, "a") as file:
            file.write("\n[trivial]\npower = 3.00\n")
        project.run("SumNumbers")
        assert project.built() == []
        output = project.run("SumNumbers", "--power", "0", "--offset", "-10")
        assert "(sum 0)" in output


class TestTwoRunsAtOnce:
    def test_share_the_work(self, project):
        moods = {"ListNumbers": "slow", "RaiseNumbers": "slow", "SumNumbers": "slow"}
        runs = [project.start("SumNumbers", moods=moods) for _ in range(2)]
        outputs = [run.communicate(timeout=60)[0] for run in runs]
        assert [run.returncode for run in runs] == [0, 0], outputs
        assert project.built() == CHAIN
        assert re.search(rf"waiting for process ({runs[0].pid}|{runs[1].pid}) on .+, which is building it", "".join(outputs))
        assert project.leftovers() == []
        project.run("SumNumbers")
        assert project.built() == []

    def test_second_goes_on_when_the_first_is_killed(self, project):
        first = project.start("SumNumbers", moods={"SumNumbers": "hang"})
        project.wait_until(lambda: project.lines("hanging"), first)
        second = project.start("SumNumbers")
        assert f"waiting for process {first.pid} on " in second.stdout.readline()
        first.send_signal(signal.SIGKILL)
        first.communicate()
        output = second.communicate(timeout=60)[0]
        assert second.returncode == 0, output
        assert project.leftovers() == []


class TestKill:
    def test_leaves_no_artefact_and_the_rerun_makes_the_same(self, project, tmp_path_factory):
        undisturbed = type(project)(tmp_path_factory.mktemp("other"))
        undisturbed.run("SumNumbers")
        project.kill_when_hanging(project.start("SumNumbers", moods={"RaiseNumbers": "hang"}))
        assert [name.partition("/")[0] for name in project.digests()] == ["ListNumbers"]
        project.built()
        project.run("SumNumbers")
        assert project.built() == CHAIN[1:]
        assert project.digests() == undisturbed.digests()
        assert project.leftovers() == []

    def test_leftovers_are_swept_by_the_next_run_of_anything(self, project):
        project.kill_when_hanging(project.start("ListNumbers", moods={"ListNumbers": "hang"}))
        assert len(project.leftovers()) == 2 + len(os.sched_getaffinity(0))  # work, its lock, and a lock for each core
        project.numbers.write_text("1")
        project.run("ListNumbers")
        assert project.leftovers() == []

    def test_checkpoint_is_offered_to_the_same_key_alone(self, project, tmp_path_factory):
        undisturbed = type(project)(tmp_path_factory.mktemp("other"))
        undisturbed.run("SumNumbers")
        project.kill_when_hanging(project.start("SumNumbers", moods={"SumNumbers": "hang"}))
        project.run("SumNumbers", "--offset", "1")
        assert project.lines("resumed") == []
        assert len(project.leftovers()) == 1
        project.run("SumNumbers")
        assert project.lines("resumed") == ["SumNumbers"]
        assert project.digests().items() >= undisturbed.digests().items()
        assert project.leftovers() == []

    def test_workers_die_with_their_parent(self, project):
        run = project.start("RaiseNumbers", "--workers", "2", moods={"RaiseNumbers": "hang"})
        workers = project.kill_when_hanging(run, count=2)
        assert len({run.pid, *workers}) == 3
        project.wait_until(lambda: not any(map(alive, workers)), seconds=5)
        project.built()
        project.run("RaiseNumbers")
        assert project.built() == CHAIN[1:5]


class TestForce:
    @pytest.mark.parametrize(("forced", "workers", "rebuilt"), [
        pytest.param("ListNumbers", 1, CHAIN[:1], marks=pytest.mark.exhaustive),
        pytest.param("RaiseNumbers", 1, CHAIN[1:5], marks=pytest.mark.exhaustive),
        ("RaiseNumbers", 2, CHAIN[1:5]),
        pytest.param("SumNumbers,ListNumbers", 1, [CHAIN[0], CHAIN[5]], marks=pytest.mark.exhaustive),
    ])
    def test_computes_these_stages_again_once(self, project, forced, workers, rebuilt):
        project.run("SumNumbers")
        project.built()
        before = project.digests()
        project.run("SumNumbers", "--force", forced, "--workers", str(workers))
        assert project.built() == rebuilt
        assert project.digests() == before
        assert project.leftovers() == []
        project.run("SumNumbers")
        assert project.built() == []

    def test_on_an_empty_cache_builds_once(self, project):
        project.run("SumNumbers", "--force", "RaiseNumbers,SumNumbers")
        assert project.built() == CHAIN

    def test_kill_keeps_the_old_artefact(self, project):
        project.run("SumNumbers")
        before = project.digests()
        project.kill_when_hanging(project.start("SumNumbers", "--force", "RaiseNumbers", moods={"RaiseNumbers": "hang"}))
        assert project.digests() == before
        project.run("SumNumbers")
        assert project.digests() == before

    def test_unknown_stage_is_an_error_even_when_nothing_is_to_do(self, project):
        project.run("SumNumbers")
        output = project.run("SumNumbers", "--force", "SumNumber", status=40)
        assert "--force SumNumber: no such stage; the stages are" in output
        assert "Traceback" not in output


class TestErrors:
    """Exit statuses are those of luigi.cfg."""

    def test_of_the_user_in_build(self, project):
        output = project.run("SumNumbers", moods={"RaiseNumbers": "user error"}, status=30)
        assert "ERROR: RaiseNumbers failed: numbers.txt: found a mood\n  expected none; cheer up\n" in output
        assert "Traceback" not in output
        assert project.leftovers() == []

    def test_of_the_user_in_build_of_a_worker(self, project):
        output = project.run("SumNumbers", "--workers", "2", moods={"ListNumbers": "user error"}, status=30)
        assert "ListNumbers failed: numbers.txt: found a mood" in output
        assert "Traceback" not in output

    def test_of_ours_in_build(self, project):
        output = project.run("SumNumbers", moods={"SumNumbers": "bug"}, status=30)
        assert "Traceback (most recent call last)" in output
        assert "ZeroDivisionError: a bug" in output
        assert [name.partition("/")[0] for name in project.digests()].count("SumNumbers") == 0

    def test_of_the_user_in_the_key(self, project):
        output = project.run("SumNumbers", moods={"keys": "user error"}, status=35)
        assert output == "ERROR: SumNumbers failed: numbers.txt: found a mood\n  expected none; cheer up\n"
        assert "Traceback" not in output

    def test_of_ours_in_the_key(self, project):
        output = project.run("SumNumbers", moods={"keys": "bug"}, status=35)
        assert "Traceback" in output
        assert "ZeroDivisionError: a bug" in output

    def test_of_a_setting(self, project):
        output = project.run("SumNumbers", "--power", "11", status=40)
        assert output == "ERROR: --power: found 11, expected a number from 0 to 10\n"


def flip(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


class TestDamage:
    def test_of_a_manifest_is_mended(self, project):
        project.run("SumNumbers")
        before = project.digests()
        project.built()
        next(project.cache.glob("SumNumbers/*/manifest.json")).write_text("")
        project.run("SumNumbers")
        assert project.built() == ["SumNumbers"]
        assert project.digests() == before

    @pytest.mark.parametrize(("damage", "message"), [
        pytest.param(lambda path: path.write_text("["), "1 bytes", marks=pytest.mark.exhaustive),
        pytest.param(os.unlink, "no file", marks=pytest.mark.exhaustive),
        (flip, "its content differs"),
    ])
    def test_of_a_file_is_an_error_that_names_it_and_the_same_command_mends_it(self, project, damage, message):
        project.run("RaiseNumbers")
        before = project.digests()
        path = min(project.cache.glob("RaiseNumbers/*/powers.json"))
        damage(path)
        output = project.run("SumNumbers", status=30)
        assert f"SumNumbers failed: {path.relative_to(project.folder)}: " in output
        assert message in output
        assert f"its artefact was moved aside, to cache/.damaged/RaiseNumbers-{path.parent.name}-0: the same command" in output
        assert "Traceback" not in output
        assert not any(name.startswith("SumNumbers") for name in project.digests())
        project.run("SumNumbers")
        assert project.digests().items() >= before.items()


def test_a_command_with_nothing_to_do_imports_nothing_slow(project):
    """Its result is shown by a fork, after which the command would import what later stages need."""
    project.fresh = True
    (project.folder / "h5py.py").write_text("print('imported what is slow')")
    assert "imported what is slow" in project.run("SumNumbers", "--workers", "2")
    assert "imported what is slow" not in project.run("SumNumbers", "--workers", "2")
