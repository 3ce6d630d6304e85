"""Joint training that goes on from a finished one, and that is validated: Faster R-CNN and R-FCN."""

import copy

import pytest
import torch

from pipeline.fast_rcnn.network import FastRCNN
from pipeline.networks.continuing import Start
from pipeline.networks.validation import Validation
from pipeline.r_fcn.network import RFCN
from tests.pipeline.faster_rcnn.joint_runs import fit, same_weights

pytestmark = pytest.mark.usefixtures("one_thread")
MAKERS = {"faster r-cnn": lambda backbone: FastRCNN(backbone, 2, True), "r-fcn": lambda backbone: RFCN(backbone, 2, 3)}


@pytest.mark.parametrize("chain", MAKERS)
def test_a_training_goes_on_with_the_functions_that_were_learnt(images, chain):
    networks = []
    validation = Validation(2, 0, lambda pair: networks.append(pair) or len(networks))
    model, rpn, _ = fit(images, 2, make_detector=MAKERS[chain], validation=validation)
    # What is validated is the pair of finished networks.
    assert same_weights(networks[-1][0], model)
    assert same_weights(networks[-1][1], rpn)
    start = Start(2, {"network": copy.deepcopy(model.state_dict()), "rpn": copy.deepcopy(rpn.state_dict())}, "Train/abc")
    again, same_rpn, _ = fit(images, 2, make_detector=MAKERS[chain], start=start)
    for first, second in ((again, model), (same_rpn, rpn)):
        for name, value in first.state_dict().items():
            torch.testing.assert_close(value, second.state_dict()[name])
    longer, _, losses = fit(images, 3, make_detector=MAKERS[chain], start=start)
    assert (losses.sum(axis=1) > 0).tolist() == [False, False, True]
    assert not same_weights(longer, again)
