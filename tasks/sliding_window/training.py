"""Training the network of the sliding windows."""

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import IMAGE_CACHE_MEGABYTES, load_backbone, mirror_setting
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import PlainTraining, lr_step_of, lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights
from tasks.sliding_window.base import WINDOWS, WindowTask


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, without=("split",))
class TrainWindows(WindowTask, PlainTraining):
    """Trains the network of the sliding windows: classes and background, and a box, for every window of tiles of images."""

    resolved = (*WindowTask.resolved, "light", "window_learning_rate", "window_lr_step")

    window_iterations = parameters.integer(600, "windows", "iterations", "training steps", minimum=1)
    window_tiles = parameters.integer(
        32, "windows", "tiles", "tiles of images per training step, each of 6 x 6 windows, at most 16 of which are learnt from",
        minimum=1,
    )
    window_learning_rate = rate_setting("windows")
    window_lr_step = lr_step_setting("windows")
    window_box_weight = parameters.number(
        0.1, "windows", "box_weight", "how much the box loss counts; 0 trains the classifier alone", minimum=0
    )
    mirror = mirror_setting()
    seed = parameters.seed()

    def resolve(self) -> dict:
        return {
            **super().resolve(), "learning_rate": self.window_learning_rate or defaults_of(self.backbone).window_rate,
            "output_rate": defaults_of(self.backbone).window_output_rate,
            "lr_step": lr_step_of(self.window_lr_step, self.window_iterations),
        }

    def requires(self) -> dict[str, CachedTask]:
        return {"train": self.clone(IndexDataset, split=self.train_split), "weights": first_weights(self)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.seeding import derive_seed
        from pipeline.sliding_window.layout import layout_of
        from pipeline.sliding_window.network import CELLS
        from pipeline.sliding_window.sampling import TileSampler, unmatched_objects
        from pipeline.sliding_window.training import LOSSES, train_windows

        device, inputs, resolved = self.prepare(), self.inputs(), self.resolve()
        split, seed = load_split(inputs["train"]), derive_seed(self.seed, "windows")
        layout = layout_of(self.backbone, CELLS)
        unmatched = unmatched_objects(split.images, layout, self.scales)
        if unmatched:
            self._warn(unmatched, sum(int(image.counted.sum()) for image in split.images))
        backbone = load_backbone(inputs["weights"], self.backbone)
        sampler = TileSampler(
            split.images, layout, self.scales, tiles=self.window_tiles, mirror=self.mirror and split.mirror,
            light=resolved["light"], norm=backbone.view.norm, seed=seed,
        )
        run = self.new_run(workshop, seed, device, iterations=self.window_iterations, resolved=resolved)
        images = ImageCache(self.requires()["train"].root, IMAGE_CACHE_MEGABYTES)
        model, losses = train_windows(
            backbone, run, sampler=sampler, num_classes=len(split.classes), read=images.read,
            box_weight=self.window_box_weight, output_rate=resolved["output_rate"],
        )
        return {
            **self.save_network(workshop, WINDOWS, model, run, losses, names=LOSSES),
            "window_side": layout.side, "window_step": layout.stride,
            **({"unmatched_objects": unmatched} if unmatched else {}),
        }

    def _warn(self, unmatched: int, total: int) -> None:
        import logging

        logging.getLogger("stages").warning(
            "%s: %d of %d training objects match no window at any scale, so that nothing like them is learnt; give more "
            "--window-scales to use them", self.label, unmatched, total,
        )
