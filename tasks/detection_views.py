"""Detection by a network that may see each image in several views: at some scales, and mirrored."""

from pipeline.errors import PipelineError
from tasks.data.sources import EMBEDDED
from tasks.detection import DetectByNetwork
from tasks.engine import parameters
from tasks.networks.map_training import ImageScale, longest_side


class DetectInViews(DetectByNetwork, ImageScale):
    """Detections by a network that pools regions from maps of whole images."""

    resolved = (*ImageScale.resolved, *DetectByNetwork.resolved, "test_scales", "test_mirror")

    test_scales = parameters.integers(
        (), "fast", "test_scales",
        "shorter sides of test images; each region is seen at the one where its size is most usual; empty: the scale", minimum=1,
    )
    test_mirror = parameters.switch(
        False, "fast", "test_mirror", "whether test images are seen mirrored too; scores and boxes are averaged"
    )

    def views(self) -> dict:
        """The views of each image where they are not the one that is the default."""
        if not (self.test_scales or self.test_mirror):
            return {}
        if self.test_mirror and self.dataset in EMBEDDED:
            raise PipelineError(f"--test-mirror true: a mirrored digit is another sign; not for --dataset {self.dataset}")
        scales = self.test_scales or self.sides[:1]
        longest = longest_side(self, scales) if self.test_scales else self.sides[1]
        return {"views": {"scales": list(scales), "longest": longest, "mirror": self.test_mirror}}

    def resolve(self) -> dict:
        # The default stays out of keys, so that older keys stay valid.
        return {**super().resolve(), **self.views()}

    def detector_settings(self) -> dict:
        shorter, longest = self.sides
        return {**super().detector_settings(), "shorter_side": shorter, "longest_side": longest, **self.views()}
