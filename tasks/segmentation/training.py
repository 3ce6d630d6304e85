"""Semantic segmentation: the training of one method's network."""

import logging

from tasks.data.index_masks import IndexMasks
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.file_checks import read_tensors
from tasks.networks.base import CURVE, IMAGE_CACHE_MEGABYTES, Training, load_backbone, mirror_setting, recent_loss
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights
from tasks.segmentation.base import BEFORE, UNPOOLING, UPSAMPLINGS, method_setting

logger = logging.getLogger("stages")

MODEL = "segmenter.safetensors"
TRAINED = "all", "last"
BALANCE = "none", "median"


@parameters.inherits(LoadWeights, PretrainClassifier, IndexMasks, without=("split",))
class TrainSegmenter(Training):
    """Trains the network of one method on the label maps of whole images; `patches` on windows around single pixels.

    `fcn16s` starts from the trained `fcn32s`, and `fcn8s` from the trained `fcn16s`, or at once from the first weights.
    """

    resolved = (*Training.resolved, "segment_learning_rate", "segment_lr_step", "upsampling")

    segment_method = method_setting()
    upsampling = parameters.choice(
        "unpool", UPSAMPLINGS, "segmentation", "upsampling", "how the method unpooling goes back up"
    )
    mirror = mirror_setting()
    seed = parameters.seed()
