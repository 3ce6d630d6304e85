"""Trainings that are killed go on to the same bytes."""


import pytest
import torch

from pipeline.networks import training
from tests.pipeline.networks.training_runs import STEPS, Killed, bytes_of, killed_at, make_model, run

pytestmark = pytest.mark.usefixtures("one_thread")

class TestResume:
    def test_an_undisturbed_run_repeats_to_the_same_bytes(self):
        (first, first_losses, taken), (second, second_losses, _) = run(), run()
        assert taken == list(range(STEPS))
        assert bytes_of(first) == bytes_of(second)
        assert first_losses.tobytes() == second_losses.tobytes()
        assert bytes_of(first) != bytes_of(make_model())

    def test_dropout_depends_on_the_seed(self):
        assert run(seed=3)[1].tobytes() != run(seed=4)[1].tobytes()

    @pytest.mark.usefixtures("saves_every_step")
    @pytest.mark.parametrize("last", [0, 1, 5, 6, STEPS - 1])
    def test_a_killed_run_goes_on_to_the_same_bytes(self, tmp_path, last):
        model, losses, _ = run()
        with pytest.raises(Killed):
            run(tmp_path, killed_at(last))
        torch.manual_seed(99)
        resumed, resumed_losses, taken = run(tmp_path)
        assert taken == list(range(last, STEPS))
        assert bytes_of(resumed) == bytes_of(model)
        assert resumed_losses.tobytes() == losses.tobytes()

    def test_steps_after_the_last_checkpoint_are_taken_again(self, tmp_path, monkeypatch):
        def before_step(step):
            monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0 if step < 3 else 1e9)
            killed_at(7)(step)

        with pytest.raises(Killed):
            run(tmp_path, before_step)
        resumed, losses, taken = run(tmp_path)
        assert taken == list(range(3, STEPS))
        assert bytes_of(resumed) == bytes_of(run()[0])
        assert losses.tobytes() == run()[1].tobytes()

    @pytest.mark.usefixtures("saves_every_step")
    def test_killed_twice(self, tmp_path):
        for last in (4, 9):
            with pytest.raises(Killed):
                run(tmp_path, killed_at(last))
        resumed, _, taken = run(tmp_path)
        assert taken == [9, 10, 11]
        assert bytes_of(resumed) == bytes_of(run()[0])

    @pytest.mark.usefixtures("saves_every_step")
    def test_a_finished_run_has_nothing_left_to_do(self, tmp_path):
        model, losses, _ = run(tmp_path)
        again, losses_again, taken = run(tmp_path)
        assert taken == []
        assert bytes_of(again) == bytes_of(model)
        assert losses_again.tobytes() == losses.tobytes()

    @pytest.mark.usefixtures("saves_every_step")
    def test_a_checkpoint_leaves_one_file_and_holds_the_layout_of_the_weights(self, tmp_path):
        run(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
        assert run(tmp_path)[0][0].weight.is_contiguous(memory_format=torch.channels_last)

    def test_nothing_is_saved_before_its_time(self, tmp_path):
        run(tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("saves_every_step")
    @pytest.mark.parametrize("place", [0, 9, 100, -1, -40, -300])
    def test_a_damaged_checkpoint_is_told_of_and_not_gone_on_from(self, tmp_path, place, caplog, monkeypatch):
        monkeypatch.setattr(training.logger, "propagate", True)
        with pytest.raises(Killed):
            run(tmp_path, killed_at(5))
        path = tmp_path / "checkpoint.safetensors"
        content = bytearray(path.read_bytes())
        content[place] ^= 16
        path.write_bytes(content)
        model, _, taken = run(tmp_path)
        assert taken == list(range(STEPS))
        assert bytes_of(model) == bytes_of(run()[0])
        assert f"{path}: not readable (" in caplog.text
        assert "training starts anew" in caplog.text

    @pytest.mark.usefixtures("saves_every_step")
    def test_a_checkpoint_that_cannot_be_saved_does_not_end_the_training(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(training.logger, "propagate", True)
        (tmp_path / "checkpoint.part").mkdir()
        model, _, taken = run(tmp_path)
        assert taken == list(range(STEPS))
        assert bytes_of(model) == bytes_of(run()[0])
        assert f"{tmp_path / 'checkpoint.part'}: cannot be written: Is a directory; " in caplog.text
        assert "goes on without a checkpoint" in caplog.text

    @pytest.mark.usefixtures("saves_every_step")
    def test_a_half_written_checkpoint_is_of_no_account(self, tmp_path):
        (tmp_path / "checkpoint.part").write_bytes(b"half")
        assert run(tmp_path)[2] == list(range(STEPS))
