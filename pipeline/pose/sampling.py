"""What the networks of a pose are trained on: windows of objects and, for later stages, windows around single joints.

Step t draws from a generator of its own, so that a training that was killed goes on with the same windows.

Shape shorthand: B windows in a batch, k joints.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.images.light import relight
from pipeline.networks.backbones import Normalisation
from pipeline.networks.window_inputs import crop_batch, whole_pixels
from pipeline.pose.geometry import enlarged, longer_sides, mirrored_parts, to_window, windows_around
from pipeline.pose.objects import PosedObjects
from pipeline.prefetch import prefetch
from pipeline.seeding import make_generator

# Ours: windows of a training are up to so many times as large or small, and moved by up to so many sides. The paper: 40 crops.
SCALES = 0.25
SHIFT = 0.1


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows: the numbers of their images and whole pixels [B x 4]; N(y; b) of the joints, float32 [B x k x 2].

    `labelled` bool [B x k] says which count. The window is `mirrored` (bool [B]), and so are its targets.
    """

    image: np.ndarray
    windows: np.ndarray
    targets: np.ndarray
    labelled: np.ndarray
    mirrored: np.ndarray


class ObjectWindows:
    """The windows of stage 1: an object's box, `context` times as large, with other scales and places in each step."""

    def __init__(
        self, objects: PosedObjects, order: np.ndarray, seed: int, *, batch_size: int, mirror: bool, context: float,
        square: bool, stage: str = "1",
    ):
        self.objects, self.order, self.seed = objects, order, seed
        self.batch_size, self.mirror, self.context, self.square, self.stage = batch_size, mirror, context, square, stage

    def draw(self, step: int) -> Batch:
        generator = make_generator(self.seed, "windows", self.stage, step)
        rows = generator.integers(len(self.objects), size=self.batch_size)
        boxes = enlarged(self.objects.boxes[rows], self.context, self.square)
        sides = boxes[:, 2:] - boxes[:, :2]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + generator.uniform(-SHIFT, SHIFT, (len(rows), 2)) * sides
        sides = sides * np.exp(generator.uniform(-SCALES, SCALES, (len(rows), 1))) / 2
        windows = whole_pixels(np.concatenate([centres - sides, centres + sides], axis=1))
        targets = to_window(self.objects.joints[rows], windows[:, None].astype(np.float64))
        return self._finish(rows, windows, targets, self.objects.labelled[rows], generator)

    def _finish(
        self, rows: np.ndarray, windows: np.ndarray, targets: np.ndarray, labelled: np.ndarray, generator: np.random.Generator
    ) -> Batch:
        """The batch, with half of its windows mirrored."""
        mirrored = (generator.random(len(rows)) < 0.5) & self.mirror
        targets[mirrored] = mirrored_parts(targets[mirrored], self.order)
        labelled = labelled.copy()
        labelled[mirrored] = labelled[mirrored][:, self.order]
        return Batch(self.objects.image[rows], windows, targets.astype(np.float32), labelled, mirrored)


class JointWindows(ObjectWindows):
    """The windows of later stages: around a joint, moved as the stage before errs (section 3.2).

    `error_mean` and `error_deviation` [k x 2] are of the earlier stage's poses minus the true ones, in longer sides of the box.
    A window's side is `sigma` times the longer side.
    """

    def __init__(
        self, objects: PosedObjects, order: np.ndarray, seed: int, *, batch_size: int, mirror: bool, sigma: float,
        error_mean: np.ndarray, error_deviation: np.ndarray, stage: str,
    ):
        super().__init__(objects, order, seed, batch_size=batch_size, mirror=mirror, context=1, square=True, stage=stage)
        self.sigma, self.error_mean, self.error_deviation = sigma, error_mean, error_deviation
        self.examples = np.argwhere(objects.labelled)  # object and joint

    def draw(self, step: int) -> Batch:
        generator = make_generator(self.seed, "windows", self.stage, step)
        rows, joints = self.examples[generator.integers(len(self.examples), size=self.batch_size)].T
        diameters = longer_sides(self.objects.boxes[rows])
        errors = generator.normal(self.error_mean[joints], self.error_deviation[joints])
        true = self.objects.joints[rows, joints]
        places = true + errors * diameters[:, None]
        windows = whole_pixels(windows_around(places[:, None], self.sigma * diameters)[:, 0])
        parts = to_window(true, windows.astype(np.float64))
        targets = np.zeros((len(rows), self.objects.labelled.shape[1], 2))
        labelled = np.zeros(targets.shape[:2], bool)
        every = np.arange(len(rows))
        targets[every, joints], labelled[every, joints] = parts, True
        return self._finish(rows, windows, targets, labelled, generator)


def pose_batches(
    sampler: ObjectWindows, images: Sequence[ImageRecord], read: Callable[[ImageRecord], np.ndarray], first: int, *,
    side: int, norm: Normalisation, light: bool,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yields (inputs float32 [B x side x side x 3], batch) for the steps from `first` on, without end, computed ahead."""

    def work() -> Iterator[tuple[np.ndarray, Batch]]:
        step = first
        while True:
            batch = sampler.draw(step)
            values = crop_batch(images, read, batch.image, batch.windows, batch.mirrored, side=side, norm=norm)
            if light:
                relight(values, make_generator(sampler.seed, "light", sampler.stage, step))
            yield values, batch
            step += 1

    return prefetch(work())
