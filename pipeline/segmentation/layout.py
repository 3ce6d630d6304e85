"""What makes a segmentation network: its backbone, its classes, and its kind. Imports no torch."""

from dataclasses import dataclass

from pipeline.errors import PipelineError

NEAREST, BED_OF_NAILS, UNPOOL, TRANSPOSED = WAYS = "nearest", "bed-of-nails", "unpool", "transposed"
PATCHES, FULL_RESOLUTION, UNPOOLING = "patches", "full-resolution", "unpooling"
SKIPS = {"fcn32s": (32,), "fcn16s": (32, 16), "fcn8s": (32, 16, 8)}  # the strides of the maps that are scored
BACKBONES = ("alexnet", "vgg16", "squeezenet1_0", "efficientnet_lite0", "tiny")
WITHOUT_POOLING = ("efficientnet_lite0",)  # its convolutions of stride 2 do what others pool for
KINDS = (PATCHES, FULL_RESOLUTION, *SKIPS, UNPOOLING)


@dataclass(frozen=True)
class Layout:
    """What makes a network: the name of its backbone, K classes (the background is one where a data set has it), its kind.

    `upsampling`: how the decoder of kind "unpooling" upsamples, one of WAYS; the other kinds have transposed convolutions.
    `learned`: whether the transposed convolutions of the FCNs are trained; they are bilinear at the start.
    `at_once`: whether an FCN with skips is trained from the backbone, not from the FCN before it; the release then scales skips.
    `window` and `patch_stride`: of kind "patches", in pixels; 0 for the backbone's own.
    """

    backbone: str
    num_classes: int
    kind: str
    upsampling: str = TRANSPOSED
    learned: bool = False
    at_once: bool = False
    window: int = 0
    patch_stride: int = 0

    def __post_init__(self):
        for value, values in (self.backbone, BACKBONES), (self.kind, KINDS), (self.upsampling, WAYS):
            if value not in values:
                raise PipelineError(f"segmentation: {value!r} is none of {', '.join(values)}")
        if self.kind != UNPOOLING and self.upsampling != TRANSPOSED:
            raise PipelineError(f"segmentation: {self.kind} upsamples with transposed convolutions; --upsampling "
                                f"{self.upsampling} is for the kind unpooling alone")
        if self.remembers and self.backbone in WITHOUT_POOLING:
            raise PipelineError(f"segmentation: {self.backbone} has no max pooling, so it remembers no positions to unpool to; "
                                "choose --upsampling nearest, bed-of-nails or transposed, or another backbone")
        if not 1 <= self.num_classes <= 255:
            raise PipelineError(f"segmentation: {self.num_classes} classes; label maps hold 1 to 255, and 255 is void")

    @property
    def remembers(self) -> bool:
        """Whether the encoder remembers where its maxima were."""
        return self.kind == UNPOOLING and self.upsampling == UNPOOL
