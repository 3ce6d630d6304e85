"""What the stages of sliding windows share: the windows' scales."""

from tasks.engine import parameters
from tasks.networks.base import NetworkTask
from tasks.networks.defaults import defaults_of

WINDOWS = "windows.safetensors"


class WindowTask(NetworkTask):
    """A stage that takes windows of images at several scales."""

    resolved = (*NetworkTask.resolved, "window_scales")

    window_scales = parameters.numbers(
        (), "windows", "scales", "shorter sides of the scaled images, in sides of a window; empty: the backbone's default",
        minimum=0.05,
    )

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(self.window_scales or defaults_of(self.backbone).window_scales)

    def resolve(self) -> dict:
        return {**super().resolve(), "scales": self.scales}
