"""`--class-weights`: in the keys of the trainings that use it, and in no key by default."""

import pytest

from tasks import FineTune, FineTuneSPP, TrainFasterRCNN, TrainFastRCNN, TrainRPN, TrainSharedFastRCNN
from tasks.engine.parameters import SettingError

WEIGHTED = FineTune, FineTuneSPP, TrainFastRCNN, TrainSharedFastRCNN, TrainFasterRCNN


@pytest.mark.parametrize("stage", WEIGHTED)
def test_default_is_in_no_key(stage):
    assert "class_weights" not in str(stage().key_inputs())
    keys = {stage(class_weights=text).key for text in ("none", "balanced", "cat=2", "cat=3")}
    assert len(keys) == 4


def test_equal_weights_have_one_key():
    assert {TrainFastRCNN(class_weights=text).class_weights for text in ("dog=1,cat=2.0", " cat = 2 ,dog=1")} == {"cat=2,dog=1"}


@pytest.mark.parametrize(("step", "depends"), [("1", False), ("3", True)])
def test_proposals_depend_on_it_only_after_the_first_detector(step, depends):
    assert (TrainRPN(rpn_step=step, class_weights="balanced").key != TrainRPN(rpn_step=step).key) == depends


def test_wrong_weights_are_an_error():
    with pytest.raises(SettingError, match=r"^--class-weights: found 'cat', expected none, balanced or name=weight"):
        TrainFastRCNN(class_weights="cat")
