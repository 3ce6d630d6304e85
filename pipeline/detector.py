"""A trained detector of any chain, on new images: `Detector.load(folder).detect("photo.jpg")`.

A folder holds all that detection needs: the parts of the chain (weights, SVMs, box regressors) and `detector.json`, which names
their files and holds the classes, the settings and, where the chain needs regions, how they are proposed.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline.detection.candidates import Candidates, Limits
from pipeline.detection.detections import LIMITED_BY, ImageDetections, LeftOut
from pipeline.detection.drawing import draw_detections
from pipeline.detection.thresholds import BEST_F1, lowest_scores, probabilities
from pipeline.detection.tiles import Tiling, detect_in_tiles
from pipeline.detector_folder import ADVICE, SETTINGS, part_paths, read_settings
from pipeline.errors import PipelineError
from pipeline.fast_rcnn.detect import FastRCNNDetector, Views
from pipeline.fast_rcnn.network import restore_fast_rcnn
from pipeline.faster_rcnn.joint import FasterRCNNDetector
from pipeline.faster_rcnn.rpn import ProposalSettings
from pipeline.faster_rcnn.rpn_training import AnchorLayout, restore_rpn
from pipeline.files.npz import load_arrays
from pipeline.files.reading import MAX_MEGAPIXELS, check_regular
from pipeline.images.photographs import read_pixels
from pipeline.later_detectors.names import is_later
from pipeline.localisation.localise import ImageLocaliser
from pipeline.localisation.network import Layout, restore_localiser
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import for_inference, prepare
from pipeline.networks.weights import load_tensors
from pipeline.proposals.propose import propose_for
from pipeline.r_fcn.network import restore_rfcn
from pipeline.rcnn.box_regression import BoxRegressors
from pipeline.rcnn.detect import LinearModels, RCNNDetector
from pipeline.rcnn.features import Extraction
from pipeline.rcnn.softmax import region_scores
from pipeline.sliding_window.detect import SlidingWindowDetector, WindowSettings
from pipeline.sliding_window.network import CELLS, restore_windows
from pipeline.spp_net.detect import SPPNetDetector
from pipeline.spp_net.pyramid_layers import pyramid_backbone
from pipeline.spp_net.spatial_pyramid import pyramid_size
from pipeline.text import flat

if TYPE_CHECKING:
    from pipeline.later_detectors.detect import LaterDetection

    AnyDetector = (
        RCNNDetector | SPPNetDetector | FastRCNNDetector | FasterRCNNDetector | SlidingWindowDetector | ImageLocaliser
        | LaterDetection
    )

logger = logging.getLogger("pipeline")


def build_chain(chain: str, settings: Mapping, parts: Mapping[str, Path], device: torch.device) -> "AnyDetector":
    """The detector of `chain` from the files of its `parts`: what the stages of detection and `Detector` both run.

    `rcnn` and `spp-net` have `backbone`, `svms` and, with box regression, `regressors`; the others have `network`, and
    `faster-rcnn` and `r-fcn` have `rpn` too. Raises PipelineError, naming the file, for one that is damaged or of another
    network.
    """
    name = settings["backbone"]
    limits = Limits(settings["max_per_image"], settings["nms_threshold"], settings["max_detections"])
    if is_later(chain):
        return _build_later(chain, settings, parts["network"], limits, device)
    ready = partial(for_inference, device=device, precision=settings["precision"])
    if chain in ("rcnn", "spp-net"):
        tensors = _read(parts["backbone"]), parts["backbone"]
        if chain == "spp-net" and settings["layer"] != "pool5":
            backbone = pyramid_backbone(name, settings["levels"], *tensors)
        else:
            backbone = make_backbone(name)
            load_tensors(backbone, *tensors)
        svms = region_scores(_read(parts["svms"]))
        regressors = BoxRegressors.from_arrays(_read(parts["regressors"])) if "regressors" in parts else None
        models = LinearModels(svms, regressors)
        if chain == "spp-net":
            pyramid = {name: settings[name] for name in ("scales", "levels", "layer")}
            return SPPNetDetector(ready(backbone), device, models, limits, longest=settings["longest_side"], **pyramid)
        extraction = Extraction(settings["precision"], settings["context_padding"], settings["batch_size"], device)
        return RCNNDetector(ready(backbone), settings["layer"], extraction, models, limits)
    if chain == "sliding-window":
        windows = WindowSettings(*(settings[f"window_{name}"] for name in WindowSettings._fields))
        windows = windows._replace(scales=tuple(windows.scales))
        model = restore_windows(_read(parts["network"]), name, CELLS, str(parts["network"]))
        return SlidingWindowDetector(ready(model), device, windows, limits)
    if chain == "localisation":
        return _build_localiser(settings, parts["network"], device)
    restore = restore_rfcn if chain == "r-fcn" else restore_fast_rcnn
    network = ready(restore(_read(parts["network"]), name, str(parts["network"])))
    sides = settings["shorter_side"], settings["longest_side"]
    several = settings.get("views")  # none in folders of older versions
    views = Views(tuple(several["scales"]), several["longest"], several["mirror"]) if several else None
    if chain == "fast-rcnn":
        return FastRCNNDetector(network, device, *sides, limits, views=views)
    layout = AnchorLayout(tuple(settings["anchor_scales"]), tuple(settings["anchor_ratios"]))
    rpn = ready(restore_rpn(_read(parts["rpn"]), name, layout, str(parts["rpn"])))
    proposals = ProposalSettings(settings["before_nms"], settings["after_nms"])
    return FasterRCNNDetector(network, rpn, device, *sides, proposals=proposals, limits=limits, views=views)


def _build_localiser(settings: Mapping, path: Path, device: torch.device) -> ImageLocaliser:
    """The network that finds one object in an image, from its file."""
    tensors = _read(path)
    layout = Layout(
        settings["backbone"], len(tensors["scores.bias"]), settings["side"], settings["box_head"], settings["head_after"]
    )
    model = restore_localiser(tensors, layout, str(path))
    return ImageLocaliser(model, device, settings["precision"], mirror=settings["mirror"], looks=settings["looks"])


def _build_later(chain: str, settings: Mapping, path: Path, limits: Limits, device: torch.device) -> "LaterDetection":
    """The detector of SSD, RetinaNet, Mask R-CNN or one of torchvision's models, from the file of its network."""
    from pipeline.later_detectors.detect import LaterDetection  # here: torchvision takes two seconds, which others can do without
    from pipeline.later_detectors.network import Design, restore_detector

    design = Design(chain, *(settings[name] for name in ("trunk", "size", "channels", "regions")))
    network = restore_detector(_read(path), design, str(path))
    return LaterDetection(network, device, settings["precision"], limits, settings["min_score"])


def _read(path: Path) -> dict:
    """The tensors of a safetensors file, or the arrays of an .npz file."""
    check_regular(path)
    try:
        return load_file(path) if path.suffix == ".safetensors" else load_arrays(path)
    except Exception as error:
        raise PipelineError(f"{path}: cannot be read ({flat(error)}); export the detector again") from error


def _check_models(chain: str, settings: Mapping, detector, classes: Sequence[str], parts: Mapping[str, Path]) -> None:
    """Raises PipelineError, naming the file, when a part has other classes or another layer than the settings say."""
    if "network" in parts:
        if is_later(chain):
            num_classes = detector.num_classes
        else:
            model = detector.detector.model if "rpn" in parts else detector.model
            if chain == "sliding-window":
                num_classes = len(model.scores.outputs.bias) - 1
            else:
                num_classes = model.layout.num_classes if chain == "localisation" else model.num_classes
        if num_classes != len(classes):
            raise PipelineError(f"{parts['network']}: is of {num_classes} classes, {SETTINGS} of {len(classes)}; {ADVICE}")
        return
    (svms, regressors), backbone, count = detector.models, detector.backbone, len(classes)
    backbone.check_layer(settings["layer"])
    size, pooled = backbone.sizes[settings["layer"]], backbone.sizes["pool5"]
    if chain == "spp-net":
        pooled = pyramid_size(backbone.view.channels, settings["levels"])
        size = pooled if settings["layer"] == "pool5" else size
    shapes = {"svms": (svms, {"W": (size, count), "B": (count,), "scale": ()})}
    if regressors is not None:
        inner = {"mu": (count, 4), "T_inv": (count, 4, 4), "Beta": (count, pooled + 1, 4), "scale": ()}
        shapes["regressors"] = regressors, inner
    for part, (model, expected) in shapes.items():
        if model.classes != tuple(classes):
            raise PipelineError(f"{parts[part]}: is of other classes than {SETTINGS}; {ADVICE}")
        for name, shape in expected.items():
            array = np.asarray(getattr(model, name))
            if array.dtype.kind not in "fiu" or array.shape != shape or not np.isfinite(array).all():
                fault = f"{name} is {array.dtype} {list(array.shape)}"
                raise PipelineError(f"{parts[part]}: {fault}, expected finite numbers {list(shape)}; {ADVICE}")


def limits_of(settings: Mapping) -> LeftOut:
    """The most proposals of an image, candidates per class and image, and detections of an image; 0 for no limit.

    `settings` are those of a detector's folder.
    """
    chain, proposals = settings["settings"], settings["proposals"]
    return LeftOut(proposals["max_boxes"] if proposals else 0, chain["max_per_image"], chain["max_detections"])


class Detector:
    """A chain that was trained, ready for images of up to `max_megapixels`. `settings` are those in its folder."""

    def __init__(self, settings: dict, chain, max_megapixels: float = MAX_MEGAPIXELS):
        self.settings, self.chain, self.max_megapixels = settings, chain, max_megapixels
        self._warned: set[str] = set()
        self.classes = tuple(settings["classes"])

    @classmethod
    def load(
        cls, folder: Path | str, device: str = "cpu", threads: int | None = None, max_megapixels: float = MAX_MEGAPIXELS
    ) -> "Detector":
        """The detector that `ExportDetector` wrote to `folder`, on `threads` threads (torch's own number).

        Images, as files or as Pillow's, may have `max_megapixels` millions of pixels. Raises PipelineError, naming the
        file, for a folder that is damaged, is not a detector's or links to files elsewhere, and for an unknown device.
        """
        folder_settings = read_settings(folder)
        chain, settings, parts = folder_settings["chain"], folder_settings["settings"], part_paths(folder, folder_settings)
        prepared = prepare(device, threads or torch.get_num_threads())
        try:
            detector = build_chain(chain, settings, parts, prepared)
            _check_models(chain, settings, detector, folder_settings["classes"], parts)
        except PipelineError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of tensors of any kind
            fault = f"{type(error).__name__}: {flat(error)}"
            raise PipelineError(f"{Path(folder) / SETTINGS}: not a detector's file ({fault}); {ADVICE}") from error
        return cls(folder_settings, detector, max_megapixels)

    def detect(
        self, image: Path | str | Image.Image | np.ndarray, name: str | None = None, *, warn: bool = True
    ) -> ImageDetections:
        """The detections in a photograph: the path of a file, a PIL image, or uint8 RGB pixels [height x width x 3].

        Files and PIL images are turned as EXIF says. `name` stands for the image's id in a data set and seeds the order of its
        proposals: the path's stem, or empty. The stage of detection finds the same on pixels that EXIF leaves as they are, unless
        it limits the whole split (`--mean-per-image`). What the detector's own limits leave out is counted in `left_out`; with
        `warn` the log tells of each kind once. Raises PipelineError for an image that cannot be used.
        """
        pixels = read_pixels(image, self.max_megapixels)
        name = name if name is not None else Path(image).stem if isinstance(image, (Path, str)) else ""
        made_how, proposals, surplus = self.settings["proposals"], [], 0  # null where the chain makes its own
        if made_how:
            boxes, surplus = propose_for(pixels, name, **made_how)
            proposals = [boxes]
        candidates: Candidates = self.chain.detect(pixels, *proposals)
        order = np.argsort(-candidates.score, kind="stable")
        order = order[candidates.survives[order]]
        left_out = candidates.left_out._replace(proposals=surplus)
        if warn:
            self._warn(name, left_out)
        masks = getattr(candidates, "masks", None)
        return ImageDetections(
            candidates.boxes[order], candidates.score[order], candidates.class_index[order], self.classes, left_out,
            None if masks is None else masks[order],
        )

    def detect_in_tiles(
        self, image: Path | str | Image.Image | np.ndarray, name: str | None = None, *, side: int = 800, overlap: float = 0.2,
        warn: bool = True,
    ) -> ImageDetections:
        """As `detect`, but in square tiles of `side` pixels too, for small objects of a large image: see `detection.tiles`."""
        pixels = read_pixels(image, self.max_megapixels)
        name = name if name is not None else Path(image).stem if isinstance(image, (Path, str)) else ""
        threshold = self.settings["settings"]["nms_threshold"]
        return detect_in_tiles(partial(self.detect, warn=warn), pixels, name, Tiling(side, overlap), threshold)

    def _warn(self, name: str, left_out: LeftOut) -> None:
        for kind, count, limit in zip(LeftOut._fields, left_out, limits_of(self.settings), strict=True):
            if count and kind not in self._warned:
                self._warned.add(kind)
                logger.warning(
                    "image '%s': the detector's %s of %d leaves out %d %s; to keep more, export it with a larger one. "
                    "`left_out` counts those of further images", name, LIMITED_BY[kind], limit, count, kind,
                )

    def draw(
        self, image: Path | str | Image.Image | np.ndarray, detections: ImageDetections, min_score: float | str = BEST_F1
    ) -> Image.Image:
        """The image with the boxes, class names and scores of the detections that score `min_score` or more.

        `min_score` is a number, or as in `lowest_scores`.
        """
        return draw_detections(read_pixels(image, self.max_megapixels), detections, self.lowest_scores(min_score))

    def lowest_scores(self, score: float | str = BEST_F1) -> np.ndarray:
        """The lowest score of each class that counts, float32 [C]; `score` as in `pipeline.detection.thresholds`."""
        return lowest_scores(self.settings, score)

    def probabilities(self, detections: ImageDetections) -> np.ndarray | None:
        """The calibrated probabilities [N] of `detections`; NaN for a class without; None if it was exported without them."""
        return probabilities(self.settings, detections.scores, detections.labels)
