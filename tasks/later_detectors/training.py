"""Training of SSD, RetinaNet, Mask R-CNN and torchvision's other detectors."""

import logging
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.later_detectors.names import PAPER, has_masks, model_name
from tasks.data.index import IndexDataset
from tasks.data.instances import drawn_masks, masks_from
from tasks.data.splits import load_split
from tasks.detection import validation_limits
from tasks.engine import parameters
from tasks.engine.digests import MISSING
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.later_detectors.base import MIN_SCORE, NETWORK, SSD, LaterTask
from tasks.networks.base import IMAGE_CACHE_MEGABYTES, SCRATCH, load_backbone, mirror_setting
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import lr_step_of, lr_step_setting
from tasks.networks.training_options import TrainingOptions
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights

logger = logging.getLogger("stages")

# Of the papers, by images in a step: 0.001 for 32 (SSD), 0.01 for 16 (RetinaNet), 0.02 for 16 (Mask R-CNN).
PAPER_RATES = {"ssd": 0.001 / 32, "retinanet": 0.01 / 16, "mask-rcnn": 0.02 / 16}
OTHER_RATE = 0.005 / 2  # of torchvision's other models
IMAGES = {"ssd": 8, "retinanet": 4}


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, without=("split",))
class TrainDetector(LaterTask, TrainingOptions):
    """Trains the detector that `--architecture` names."""

    resolved = (
        *LaterTask.resolved, *TrainingOptions.resolved, "detector_weights", "detector_images", "detector_learning_rate",
        "detector_lr_step", "detector_augment",
    )

    detector_weights = parameters.text(
        "", "detector", "weights",
        "state dict of torchvision's detector, or of the paper's trunk alone, as first weights; empty: random ones",
    )
    detector_iterations = parameters.integer(
        500, "detector", "iterations", "training steps; 0: the detector in --detector-weights as it is"
    )
    detector_images = parameters.integer(
        0, "detector", "images", "images per training step; 0: 8 for SSD, 4 for RetinaNet, 2 for the others"
    )
    detector_learning_rate = parameters.number(
        0, "detector", "learning_rate", "learning rate; 0: the detector's default", minimum=0
    )
    detector_lr_step = lr_step_setting("detector")
    detector_warm_up = parameters.integer(50, "detector", "warm_up", "first steps, over which the learning rate rises")
    detector_augment = parameters.choice(
        "auto", ("auto", "true", "false"), "detector", "augment",
        "SSD's augmentation: colours, smaller objects, patches; auto: for SSD, if its first weights come from a file",
    )
    mirror = mirror_setting()

    @property
    def iterations(self) -> int:
        return self.detector_iterations

    @property
    def parts_a_step(self) -> int:
        return 1  # torchvision's detectors take all images of a step at once

    @property
    def trained(self) -> dict[str, str]:
        return {"network": NETWORK}

    @property
    def changes_light(self) -> bool:
        # The paper's trunks start from a file.
        return self.light == "true" if self.trunk == PAPER else super().changes_light

    @property
    def augments(self) -> bool:
        # NOTE: SSD's paper always does. From random weights and in few steps, objects of a quarter of their size teach nothing.
        is_ssd = self.architecture == SSD or model_name(self.architecture).startswith(SSD)
        from_nothing = self.trunk != PAPER and self.weights == SCRATCH
        return self.detector_augment == "true" or (self.detector_augment == "auto" and is_ssd and not from_nothing)

    def resolve(self) -> dict:
        images = self.detector_images or IMAGES.get(self.architecture, 2)
        if self.trunk == PAPER:
            rate, new_rate = PAPER_RATES.get(self.architecture, OTHER_RATE) * images, 1.0
        else:
            defaults = defaults_of(self.backbone)
            rates = {"ssd": defaults.ssd_rate, "retinanet": defaults.retinanet_rate, "mask-rcnn": defaults.mask_rcnn_rate}
            rate, new_rate = rates[self.architecture], defaults.detector_new_rate
        weights = {}
        if path := self.weights_path:
            weights["detector_weights"] = self.digest_memory.of([path])[path]
        return {
            **super().resolve(), **weights, "images": images, "learning_rate": self.detector_learning_rate or rate,
            "new_rate": new_rate, "lr_step": lr_step_of(self.detector_lr_step, self.detector_iterations),
            "augment": self.augments,
        }

    @property
    def weights_path(self) -> Path | None:
        return Path(self.detector_weights).expanduser() if self.detector_weights else None

    def requires(self) -> dict[str, CachedTask]:
        weights = {} if self.trunk == PAPER else {"weights": first_weights(self)}
        masks = drawn_masks(self, self.architecture, self.train_split)
        return {"train": self.clone(IndexDataset, split=self.train_split), **masks, **weights, **self.validation_tasks()}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.later_detectors.detect import LaterDetection
        from pipeline.later_detectors.training import loss_names, train_detector
        from pipeline.networks.training import Schedule
        from pipeline.networks.weights import save_tensors
        from pipeline.seeding import derive_seed

        device, resolved = self.prepare(), self.resolve()
        split, seed = load_split(self.inputs()["train"]), derive_seed(self.seed, "detector", self.architecture)
        detector = self._new_detector(split, derive_seed(seed, "weights"))
        batches, figures = self._batches(split, seed, resolved)
        schedule = Schedule(self.iterations, resolved["learning_rate"], resolved["lr_step"], self.detector_warm_up)
        validation = self.validation(
            lambda network: LaterDetection(network, device, self.arithmetic, validation_limits(), MIN_SCORE).detect
        )
        with self.training_run(workshop, schedule, seed, device, classes=split.classes, validation=validation) as run:
            losses = train_detector(detector, run, batches, new_rate=resolved["new_rate"])
        save_tensors(detector, workshop.files / NETWORK)
        return {**self.write_curve(workshop, run, losses, loss_names(detector)), **figures}

    def _new_detector(self, split, seed: int):
        import torch

        from pipeline.later_detectors.network import LaterDetector

        backbone = load_backbone(self.inputs()["weights"], self.backbone) if "weights" in self.inputs() else None
        torch.manual_seed(seed)
        detector = LaterDetector(self.design(), len(split.classes) + 1, backbone)
        self._load_file(detector, split.classes)
        return detector

    def _load_file(self, detector, classes: tuple[str, ...]) -> None:
        """Loads `--detector-weights`. Raises PipelineError where the detector cannot do without them."""
        from pipeline.later_detectors.weight_files import check_loaded, load_detector_file

        path = self.weights_path
        if path is None:
            if detector.is_normalised:
                raise PipelineError(
                    f"{self.architecture} on this trunk has batch normalisation, which stays as it is: give --detector-weights "
                    "FILE, or use another trunk with --detector-trunk backbone"
                )
            if not self.detector_iterations:
                raise PipelineError("--detector-iterations 0: nothing is trained; give --detector-weights FILE")
            return
        if self.trunk != PAPER:
            raise PipelineError(f"--detector-weights {path}: only for --detector-trunk paper and torchvision's models")
        if self.digest_memory.of([path])[path] == MISSING:
            raise PipelineError(f"--detector-weights {path}: no such file")
        loaded = load_detector_file(detector, path, classes)
        if not self.detector_iterations:
            check_loaded(path, loaded, classes)

    def _batches(self, split, seed: int, resolved: dict):
        """The batches of training, and figures about images that are not used."""
        from pipeline.images.reading import ImageCache
        from pipeline.later_detectors.sampling import DetectionBatches, Sources, Views
        from pipeline.networks.backbones import IMAGENET, make_backbone

        root = self.requires()["train"].root
        masked = has_masks(self.architecture)
        if masked and resolved["augment"]:
            raise PipelineError(f"--detector-augment true: not for {self.architecture}, whose masks would not follow")
        images, instances, figures = self._masked(split) if masked else (split.images, None, {})
        sources = Sources(ImageCache(root, IMAGE_CACHE_MEGABYTES).read, instances)
        norm = IMAGENET if self.trunk == PAPER else make_backbone(self.backbone).view.norm
        views = Views(self.mirror and split.mirror, resolved["light"], resolved["augment"])
        batches = DetectionBatches(
            images, sources, views, images_a_step=resolved["images"], seed=seed, norm=norm,
            trains_on_difficult=self.architecture == SSD,
        )
        ignored = sum(int(image.ignored.sum()) for image in images)
        if ignored:
            logger.warning(
                "%s: the images have %d regions to ignore; this detector learns them as background", self.label, ignored
            )
        return batches, {**figures, **({"ignored_regions": ignored} if ignored else {})}

    def _masked(self, split):
        """The images whose objects have masks, what reads the masks, and figures."""
        from pipeline.datasets.instances import masked_images

        images, read = masks_from(self, "train", split)
        numbers = masked_images(images, read)
        left_out = len(split.images) - len(numbers)
        if not numbers:
            raise PipelineError(
                f"{self.architecture} learns masks of instances, and no image of split {split.name} has one for each object; "
                "put them into SegmentationObject/, or outlines into COCO's files; or use a chain without masks"
            )
        if left_out:
            logger.warning(
                "%s: %d of %d training images are left out: they lack a mask of some object", self.label, left_out,
                len(split.images),
            )
        return [images[number] for number in numbers], read, ({"unmasked_images": left_out} if left_out else {})
