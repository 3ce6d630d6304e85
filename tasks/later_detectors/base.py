"""What the stages of the later detectors share: which detector it is, and what it is built from."""

from pipeline.later_detectors.names import ARCHITECTURES, MODELS, PAPER, TORCHVISION, is_later, model_name
from tasks.engine import parameters
from tasks.networks.base import NetworkTask
from tasks.networks.defaults import defaults_of

NETWORK, MASKS = "detector.safetensors", "masks.npz"
BACKBONE_TRUNK = "backbone"
SSD = "ssd"
MIN_SCORE = 0.01
REGIONS = 64  # ours: what trains on two cores
PAPER_CHANNELS, PAPER_REGIONS = 256, 512
PAPER_SIZES = {"ssd": 300, "retinanet": 800, "mask-rcnn": 800}


class ArchitectureName(parameters.Text):
    """The chain of one of the later detectors."""

    def normalize(self, value: str) -> str:
        if not is_later(value):
            expected = f"one of {', '.join(ARCHITECTURES)}, or {TORCHVISION}: and one of {', '.join(MODELS)}"
            raise parameters.SettingError(f"{self.option}: found {value!r}, expected {expected}")
        return value


def architecture_setting():
    description = f"the detector ({', '.join(ARCHITECTURES)}, or {TORCHVISION}: and the name of one of its models)"
    return ArchitectureName(default=SSD, config_path={"section": "detector", "name": "architecture"}, description=description)


class LaterTask(NetworkTask):
    """A stage that runs one of these detectors."""

    resolved = (*NetworkTask.resolved, "detector_trunk", "detector_size", "detector_channels", "detector_regions")

    architecture = architecture_setting()
    detector_trunk = parameters.choice(
        BACKBONE_TRUNK, (BACKBONE_TRUNK, PAPER), "detector", "trunk",
        "backbone: that of --backbone; paper: VGG-16 of SSD, ResNet-50 of the others. torchvision's models have their own",
    )
    detector_size = parameters.integer(
        0, "detector", "size", "SSD: 300 or 512; others: shorter side of images. 0: 300, or the backbone's default, or 800"
    )
    detector_channels = parameters.integer(
        0, "detector", "channels", "channels of the new maps; 0: 256, or 64 for tiny. The paper's trunks always have 256"
    )
    detector_regions = parameters.integer(
        0, "detector", "regions", "Mask R-CNN: regions of an image that a training step sees; 0: 64, or 512 on the paper's trunk"
    )

    @property
    def trunk(self) -> str:
        """`paper`, or the name of the backbone."""
        return PAPER if self.detector_trunk == PAPER or model_name(self.architecture) else self.backbone

    @property
    def design_values(self) -> dict:
        """The chosen values of what the detector is built from, as JSON."""
        of_paper = self.trunk == PAPER
        size = self.detector_size or (0 if model_name(self.architecture) else self._default_size(of_paper))
        channels = PAPER_CHANNELS if of_paper else self.detector_channels or defaults_of(self.backbone).detector_channels
        regions = self.detector_regions or (PAPER_REGIONS if of_paper else REGIONS)
        return {"trunk": self.trunk, "size": size, "channels": channels, "regions": regions}

    def _default_size(self, of_paper: bool) -> int:
        if of_paper or self.architecture == SSD:
            return PAPER_SIZES[self.architecture]
        return defaults_of(self.backbone).scale

    def design(self):
        from pipeline.later_detectors.network import Design

        return Design(self.architecture, **self.design_values)

    def resolve(self) -> dict:
        return {**super().resolve(), "design": self.design_values}
