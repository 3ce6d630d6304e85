"""What the stages of sliding windows share: the windows' scales."""

from tasks.engine import parameters
from tasks.networks.base import NetworkTask

WINDOWS = "windows.safetensors"
# Shorter sides of the scaled images, in sides of a window; each is the root of 2 times the one before, as near as is worth it.
# Ours: an object fits when its longer side is 0.65 of a window. `tiny`: for those of `digits`, 0.15 to 0.5 of the shorter side.
SCALES = {"tiny": (1.3, 1.85, 2.6, 3.7)}
OTHER_SCALES = (0.6, 0.85, 1.2, 1.7, 2.4)


class WindowTask(NetworkTask):
    """A stage that takes windows of images at several scales."""

    resolved = (*NetworkTask.resolved, "window_scales")

    window_scales = parameters.numbers(
        (), "windows", "scales", "shorter sides of the scaled images, in sides of a window; empty: the backbone's default",
        minimum=0.05,
    )

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(self.window_scales or SCALES.get(self.backbone, OTHER_SCALES))

    def resolve(self) -> dict:
        return {**super().resolve(), "scales": self.scales}
