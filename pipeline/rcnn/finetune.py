"""Training R-CNN's network on warped windows: from nothing on object crops, then fine-tuning for detection (section 2.3).

Fine-tuning replaces the classifier by a random layer of C + 1 scores, which learns ten times as fast as the rest, and descends
on batches of 32 windows on objects and 96 on background.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from pipeline.datasets.records import ImageRecord, Split
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.output_layers import Classifier
from pipeline.networks.parts import parts_of
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.rcnn.crop_memory import crops_to_tensor
from pipeline.rcnn.windows import CropSettings, FineTuneSampler, JitteredObjectSampler, Windows, window_batches
from pipeline.seeding import derive_seed

# fc8_pascal's blobs_lr in pascal_finetune_train.prototxt of rbgirshick/rcnn: 10 and 20, against 1 and 2 elsewhere
CLASSIFIER_RATE = 10.0


def finetune(
    backbone: Backbone, run: TrainingRun, *, windows: Windows, split: Split, read: Callable[[ImageRecord], np.ndarray],
    mirror: bool, padding: int, light: bool = False, class_weights: np.ndarray | None = None, readers: int = 1,
) -> tuple[Classifier, np.ndarray]:
    """Fine-tunes `backbone` in place on labelled `windows` of `split`; returns the classifier and the loss of each step.

    `mirror` and `light`: see `FineTuneSampler`; `padding` and `readers`: see `CropSettings`.
    `class_weights` [C + 1] are factors of the log loss.
    """
    sampler = FineTuneSampler(windows, run.seed, mirror, light=light)
    batches = partial(window_batches, sampler, split.images, read, _crop_settings(backbone, run, padding, readers))
    return _train(
        backbone, run, num_outputs=len(split.classes) + 1, rate=CLASSIFIER_RATE, batches=batches, class_weights=class_weights
    )


def pretrain(
    backbone: Backbone, run: TrainingRun, *, split: Split, read: Callable[[ImageRecord], np.ndarray], mirror: bool, padding: int,
    readers: int = 1,
) -> tuple[Classifier, np.ndarray]:
    """Trains `backbone` in place to classify crops of the objects of `split`; returns the same as `finetune`."""
    sampler = JitteredObjectSampler(split, run.seed, mirror)
    batches = partial(window_batches, sampler, split.images, read, _crop_settings(backbone, run, padding, readers))
    return _train(backbone, run, num_outputs=len(split.classes), rate=1.0, batches=batches)


def _crop_settings(backbone: Backbone, run: TrainingRun, padding: int, readers: int) -> CropSettings:
    return CropSettings(backbone.crop_size, padding, backbone.view.norm, run.device, readers)


def _train(
    backbone: Backbone, run: TrainingRun, *, num_outputs: int, rate: float,
    batches: Callable[..., Iterator[tuple[np.ndarray, np.ndarray]]], class_weights: np.ndarray | None = None,
) -> tuple[Classifier, np.ndarray]:
    """Trains a classifier of `num_outputs` scores, whose last layer learns `rate` times as fast as the backbone."""
    device = run.device
    torch.manual_seed(derive_seed(run.seed, "classifier"))
    model = Classifier(backbone, num_outputs).to(device).to(memory_format=torch.channels_last)
    weights = None if class_weights is None else torch.from_numpy(class_weights).to(device)
    if model.starts_on_pool5:
        few = next(batches(0))[0]
        few = few[:: max(1, len(few) // parts_of(len(few), backbone.crop_size)[0].stop)]  # of all images of the batch
        with torch.no_grad():
            model.calibrate(backbone.pool5(crops_to_tensor(few, device, torch.float32)))

    def loss_of(batch: tuple[np.ndarray, np.ndarray], rows: slice) -> torch.Tensor:
        crops, labels = crops_to_tensor(batch[0][rows], device, torch.float32), torch.from_numpy(batch[1][rows]).to(device)
        with mixed_precision(device, run.precision):
            scores = model(crops)
        return nn.functional.cross_entropy(scores.float(), labels, weights, reduction="sum") / len(batch[1])

    def losses_of(batch: tuple[np.ndarray, np.ndarray]) -> list[Part]:
        return [partial(loss_of, batch, rows) for rows in parts_of(len(batch[1]), backbone.crop_size)]

    groups = parameter_groups(backbone) + parameter_groups(model.scores, rate)
    losses = train(model, run, groups=groups, batches=partial(batches, ranks=run.ranks), losses_of=losses_of)
    model.fold_calibration()
    return model, losses
