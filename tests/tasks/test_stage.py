"""What all stages of this product share: how many cores each takes."""

import threading

import pytest

from tasks import FullPipeline, RegionProposals, TimeDetection, TrainFastRCNN, TrainSVMs
from tasks import stage as stage_module
from tasks.engine import cores
from tasks.evaluation import timing


class TestCores:
    @pytest.fixture(autouse=True)
    def eight_cores(self, monkeypatch):
        for module in (stage_module, cores, timing):
            monkeypatch.setattr(module, "available_cores", lambda: 8)

    def test_of_a_small_network_are_half_of_all(self):
        for backbone, threads in (("tiny", 4), ("squeezenet1_0", 8), ("vgg16", 8)):
            for stage in (TrainFastRCNN, TrainSVMs, FullPipeline):
                task = stage(backbone=backbone)
                assert (task.num_threads, task.cores_needed) == (threads, (threads, threads))
        assert TrainFastRCNN(backbone="tiny", threads=3).cores_needed == (3, 3)

    def test_of_a_single_one_is_that_one(self, monkeypatch):
        monkeypatch.setattr(stage_module, "available_cores", lambda: 1)
        assert TrainFastRCNN(backbone="tiny").num_threads == 1

    def test_of_proposals_are_as_many_as_are_free(self, tmp_path):
        settings = {"cache_dir": str(tmp_path), "shard": 0}
        proposals, training = RegionProposals(**settings), TrainFastRCNN(cache_dir=str(tmp_path))
        with proposals.host_cores():
            assert (proposals.num_cores, proposals.progress_row) == (8, 0)
        with training.host_cores(), proposals.host_cores():
            assert (training.num_cores, training.progress_row) == (4, 0)
            assert (proposals.num_cores, proposals.progress_row) == (4, 1)

    def test_of_a_timing_are_all(self):
        for threads in (0, 1):
            assert TimeDetection(threads=threads).cores_needed == (8, 8)

    def test_are_shared_by_stages_on_one_cache(self, tmp_path):
        first, second, third = (TrainFastRCNN(seed=seed, cache_dir=str(tmp_path / "cache")) for seed in range(3))
        entered = threading.Event()

        def run():
            with third.host_cores():
                entered.set()

        with first.host_cores():
            with second.host_cores():
                assert {first.progress_row, second.progress_row} == {0, 1}
                waiting = threading.Thread(target=run)
                waiting.start()
                assert not entered.wait(0.3)
                with TrainFastRCNN(cache_dir=str(tmp_path / "other"), threads=8).host_cores():
                    pass  # on another cache: not their business
            assert entered.wait(5)
        waiting.join()

    def test_more_threads_than_cores_are_all_cores(self, tmp_path):
        task = TrainFastRCNN(cache_dir=str(tmp_path), threads=99)
        with task.host_cores():
            assert (task.num_cores, task.num_threads) == (8, 99)
