"""Figures that the papers give for the chains, and the runs that they belong to."""

from tasks.features.stores import POOL5
from tasks.networks.finetune_pyramid import layer_of

SPP_NET = "spp-net"
# With VGG-16 on a GPU: hours of training, and seconds per image without proposals (Girshick 2015, table 4). Faster R-CNN: Ren et
# al. 2015, table 5, which gives no hours. Proposals: 1.51 s (table 5 there).
PUBLISHED_TIMES: dict[str, tuple[float | None, float | None]] = {
    "rcnn": (84, 47.0), "spp-net": (25, 2.3), "fast-rcnn": (9.5, 0.32), "faster-rcnn": (None, 0.198),
    "r-fcn": (None, None), "sliding-window": (None, None),
}
PUBLISHED_PROPOSALS = 1.51
# From the image to detections: 1.83 s with selective search, 0.198 s with the network's proposals (table 5 there).
PUBLISHED_GAIN = 1.83 / 0.198

# mAP in percent with VGG-16, by the data set that is trained on: Girshick 2015, tables 1 and 4, and Ren et al. 2015, table 3.
VGG16_MAP = {
    "voc2007": {"rcnn": 66.0, "spp-net": 63.1, "fast-rcnn": 66.9, "faster-rcnn": 69.9},
    "voc0712": {"fast-rcnn": 70.0, "faster-rcnn": 73.2},
}
# A run with other settings than these has no published figure. The lengths of the trainings are not among them.
VGG16_SETTINGS = {
    "backbone": "vgg16", "weights": "imagenet", "train_split": "trainval", "test_split": "test", "classes": (),
    "box_regression": True, "svd_fc6": 0, "svd_fc7": 0, "faster_training": "alternating",
}



# mAP on VOC 2007 of parts of the chains, each with the settings that it needs beside VOC2007. `finetuned`: whether the network is
# fine-tuned. R-CNN: Girshick et al. 2014, tables 2 and 3 of the version of 2014-10, with CaffeNet, and appendix B. Fast R-CNN:
# Girshick 2015, tables 4 to 6; SVD keeps 1024 and 256 singular values.
ALEXNET, VGG16 = {"backbone": "alexnet"}, {"backbone": "vgg16"}
VOC2007 = {"dataset": "voc2007", "weights": "imagenet", "train_split": "trainval", "test_split": "test", "classes": ()}
RCNN = {"chain": "rcnn", "region_classifier": "svm", "svm_negative_overlap": 0.3, "context_padding": 16}
SOFTMAX = RCNN | {"region_classifier": "softmax"}
ALONE = {"box_regression": False}
ONE_SCALE = {"train_scales": (), "test_scales": ()}
FAST = ONE_SCALE | {"chain": "fast-rcnn", "freeze": "first", "fast_ohem": False, "class_agnostic": False}
SVD = {"svd_fc6": 1024, "svd_fc7": 256}
NO_SVD = {"svd_fc6": 0, "svd_fc7": 0}
PARTS: tuple[tuple[dict, float], ...] = (
    (RCNN | ALEXNET | ALONE | {"finetuned": False, "layer": "pool5"}, 44.2),
    (RCNN | ALEXNET | ALONE | {"finetuned": False, "layer": "fc6"}, 46.2),
    (RCNN | ALEXNET | ALONE | {"finetuned": False, "layer": "fc7"}, 44.7),
    (RCNN | ALEXNET | ALONE | {"finetuned": True, "layer": "pool5"}, 47.3),
    (RCNN | ALEXNET | ALONE | {"finetuned": True, "layer": "fc6"}, 53.1),
    (RCNN | ALEXNET | ALONE | {"finetuned": True, "layer": "fc7"}, 54.2),
    (SOFTMAX | ALEXNET | ALONE | {"finetuned": True, "layer": "fc7"}, 50.9),
    (RCNN | ALEXNET | {"finetuned": True, "layer": "fc7", "box_regression": True}, 58.5),
    (RCNN | VGG16 | ALONE | {"finetuned": True, "layer": "fc7"}, 62.2),
    (RCNN | VGG16 | {"finetuned": True, "layer": "fc7", "box_regression": True}, 66.0),
    (FAST | ALEXNET | NO_SVD, 57.1),
    (FAST | ALEXNET | SVD, 56.5),
    (FAST | VGG16 | NO_SVD, 66.9),
    (FAST | VGG16 | SVD, 66.6),
    (FAST | VGG16 | NO_SVD | {"freeze": "all"}, 61.4),
    (FAST | VGG16 | NO_SVD | {"dataset": "voc0712"}, 70.0),
)


def published_part(chain: str, settings, dataset: str) -> float | None:
    """mAP in percent as published for a run of `chain` with exactly these `settings` (attributes); None if there is none."""
    values = {"chain": chain, "dataset": dataset, "finetuned": settings.finetune_iterations > 0}
    for needed, figure in PARTS:
        if all(values.get(name, getattr(settings, name, None)) == value for name, value in (VOC2007 | needed).items()):
            return figure
    return published_map(chain, settings, dataset) if chain not in ("rcnn", "fast-rcnn") else None


def published_map(chain: str, settings, dataset: str) -> float | None:
    """mAP of `chain` in percent as published for a run with these `settings` (attributes); None if there is none."""
    if any(getattr(settings, name) != value for name, value in VGG16_SETTINGS.items()):
        return None
    if chain == SPP_NET and layer_of(settings) == POOL5:
        return None  # the published SVMs read fine-tuned fully connected layers
    return VGG16_MAP.get(dataset, {}).get(chain)


def published_times(chain: str) -> tuple[float | None, float | None, float | None]:
    """Hours of training, seconds per image without proposals, and with them; None where the papers give none."""
    hours, seconds = PUBLISHED_TIMES.get(chain, (None, None))
    return hours, seconds, seconds and seconds + (0 if chain == "faster-rcnn" else PUBLISHED_PROPOSALS)
