"""Folders such as `ExportDetector` writes, of detectors with random weights and the classes `cat` and `dog`."""

import json
from pathlib import Path

import numpy as np
import torch

from pipeline.detector_folder import WITHOUT_PROPOSALS
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.faster_rcnn.rpn_training import AnchorLayout, make_rpn
from pipeline.later_detectors.names import ARCHITECTURES
from pipeline.later_detectors.network import Design, LaterDetector
from pipeline.localisation.network import Layout, Localiser
from pipeline.networks.backbones import Backbone, make_backbone
from pipeline.networks.weights import save_tensors
from pipeline.r_fcn.network import RFCN
from pipeline.rcnn.box_regression import BoxRegressors
from pipeline.rcnn.svm import EVENT, LinearSVMs
from pipeline.sliding_window.network import WindowNetwork
from pipeline.spp_net.pyramid_layers import put_on_pyramid

CLASSES = ("cat", "dog")
COMMON = {"precision": "float32", "max_per_image": 20, "nms_threshold": 0.3, "max_detections": 30}
SIDES = {"shorter_side": 120, "longest_side": 200}
ANCHORS = {"anchor_scales": [1, 2, 4], "anchor_ratios": [0.5, 1, 2], "before_nms": 0, "after_nms": 30}
LATER = {"trunk": "tiny", "size": 64, "channels": 16, "regions": 8, "min_score": 0.01}
SETTINGS = {
    "rcnn": {"context_padding": 16, "batch_size": 32},
    "spp-net": {"scales": [120, 200], "longest_side": 400, "levels": [1, 2]},
    "fast-rcnn": SIDES, "faster-rcnn": SIDES | ANCHORS, "r-fcn": SIDES | ANCHORS,
    "sliding-window": {
        "window_scales": [0.5, 1], "window_min_score": 0.2, "window_merge": "greedy", "window_merge_threshold": 0.7,
    },
    "localisation": {"side": 64, "box_head": "specific", "head_after": "conv", "mirror": False, "looks": 2},
    **dict.fromkeys(ARCHITECTURES, LATER),
    "ssd": LATER | {"size": 300},
}
PROPOSALS = {"method": "balanced", "max_boxes": 40, "image_width": 0, "seed": 0}


def write_folder(folder: Path, chain: str, name: str = "tiny") -> Path:
    """Makes `folder` with a detector of `chain` on the backbone `name`. Returns it."""
    torch.manual_seed(0)
    folder.mkdir()
    backbone = make_backbone(name)
    settings = {"backbone": name} | COMMON | SETTINGS[chain]
    if chain in ("rcnn", "spp-net"):
        settings["layer"] = layer = svm_layer(chain, backbone)
        names = write_linear_models(folder, chain, backbone, layer)
    else:
        names = write_network(folder, chain, backbone)
    (folder / "detector.json").write_text(json.dumps({
        "chain": chain, "classes": CLASSES, "settings": settings, "parts": {name.partition(".")[0]: name for name in names},
        "proposals": None if chain in WITHOUT_PROPOSALS else PROPOSALS,
    }))
    return folder


def svm_layer(chain: str, backbone: Backbone) -> str:
    layer = backbone.last_layer
    return layer if chain == "rcnn" or layer.startswith("fc") else "pool5"


def write_linear_models(folder: Path, chain: str, backbone: Backbone, layer: str) -> tuple[str, ...]:
    """Writes the parts of R-CNN or SPP-net. Returns their names."""
    names = ("backbone.safetensors", "svms.npz", "regressors.npz")
    generator, count = np.random.default_rng(0), np.zeros(2, np.int64)
    pooled = backbone.sizes["pool5"]
    if chain == "spp-net":
        pooled = 5 * backbone.view.channels
        if layer != "pool5":
            put_on_pyramid(backbone, (1, 2))
    save_tensors(backbone, folder / names[0])
    size = pooled if layer == "pool5" else backbone.sizes[layer]
    weights = generator.normal(size=(size, 2)) / size
    svms = LinearSVMs(CLASSES, weights, count, 1.0, count, count, count, np.zeros(0, EVENT), np.zeros((0, 3), int))
    beta, eyes = generator.normal(size=(2, pooled + 1, 4)) / pooled, np.tile(np.eye(4), (2, 1, 1))
    regressors = BoxRegressors(CLASSES, np.zeros((2, 4)), eyes, eyes, beta, 0.1, 1000.0, count, count)
    np.savez(folder / names[1], **svms.to_arrays())
    np.savez(folder / names[2], **regressors.to_arrays())
    return names


def write_network(folder: Path, chain: str, backbone: Backbone) -> tuple[str, ...]:
    """Writes the parts of another chain. Returns their names."""
    name = backbone.name
    names = ("network.safetensors", "rpn.safetensors") if chain in ("faster-rcnn", "r-fcn") else ("network.safetensors",)
    if chain in ARCHITECTURES:
        values = (SETTINGS[chain][key] for key in ("size", "channels", "regions"))
        network = LaterDetector(Design(chain, backbone.name, *values), 1 + len(CLASSES), backbone)
    else:
        layout = list(SETTINGS["localisation"].values())[:3]
        networks = {
            "sliding-window": WindowNetwork, "r-fcn": lambda backbone, classes: RFCN(backbone, classes, 3),
            "localisation": lambda backbone, classes: Localiser(backbone, Layout(name, classes, *layout)),
        }
        network = networks.get(chain, FastRCNN)(backbone, len(CLASSES))
    save_tensors(network, folder / names[0])
    if len(names) > 1:
        save_tensors(make_rpn(backbone, AnchorLayout((1, 2, 4), (0.5, 1, 2))), folder / names[1])
    return names
