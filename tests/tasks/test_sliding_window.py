"""Settings of the sliding windows, and what their keys hold."""

import pytest

from tasks.evaluation.evaluate import Evaluate
from tasks.evaluation.summary import Summarise
from tasks.sliding_window.costs import WindowCosts
from tasks.sliding_window.detect import DetectSlidingWindow
from tasks.sliding_window.training import TrainWindows


def test_defaults_of_the_backbone():
    tiny, squeezenet = TrainWindows(), TrainWindows(backbone="squeezenet1_0", weights="imagenet")
    assert tiny.scales == (1.3, 1.85, 2.6, 3.7)
    assert squeezenet.scales == (0.6, 0.85, 1.2, 1.7, 2.4)
    assert tiny.resolve()["lr_step"] == 3 * tiny.window_iterations // 4
    assert squeezenet.resolve()["learning_rate"] == 0.003


def test_a_setting_that_is_the_default_has_the_same_key():
    assert TrainWindows(window_scales=(1.3, 1.85, 2.6, 3.7), window_learning_rate=0.02).key == TrainWindows().key


@pytest.mark.parametrize(("name", "value"), [("window_min_score", 0.9), ("window_merge", "nms"), ("window_merge_threshold", 0.1)])
def test_settings_of_detection_train_nothing_again(name, value):
    changed, default = DetectSlidingWindow(**{name: value}), DetectSlidingWindow()
    assert changed.key != default.key
    assert changed.training_tasks()["network"].key == default.training_tasks()["network"].key
    # Naive and dense windows are the same whatever becomes of them.
    assert WindowCosts(**{name: value}).key == WindowCosts().key


def test_it_is_run_when_asked_for():
    assert "sliding-window" not in Summarise().chains
    assert not any(isinstance(task, WindowCosts) for task in Summarise().requires().values())
    asked = Summarise(chains=("sliding-window",)).requires()
    assert isinstance(asked["window costs"], WindowCosts)
    assert isinstance(asked["evaluate sliding-window"].requires()["detections"], DetectSlidingWindow)
    assert "proposals" not in asked


def test_a_single_chain_can_be_evaluated():
    assert isinstance(Evaluate(chain="sliding-window").detection(), DetectSlidingWindow)
