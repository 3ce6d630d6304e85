"""SPP-net's fine-tuning: of the fully connected layers alone, on regions that are pooled from cached maps."""

from functools import partial

from pipeline.errors import PipelineError
from tasks.data.index import IndexDataset
from tasks.data.sources import EMBEDDED
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask, load_backbone, mirror_setting, save_training
from tasks.networks.class_weights import WeightedClasses
from tasks.networks.conv_maps import LONGEST_SIDE, ConvFeatures, open_maps
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import lr_step_of, lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights
from tasks.proposals.regions import RegionProposals, load_proposals
from tasks.stage import Stage

PYRAMID_LAYERS = ("pool5", "fc6", "fc7")  # others, such as convolutions, read a map of one grid
RELEASE_LR_STEP = 30000  # vstep_size in pascal_finetune_fc_spm_solver.prototxt of ShaoqingRen/SPP_net
AUTO, RANDOM, NEAREST = "auto", "random", "nearest"


class Pyramid(Stage):
    """A stage that pools regions in SPP-net's pyramid."""

    pyramid_levels = parameters.integers((1, 2, 3, 6), "spp", "levels", "bins per side in each level of the pyramid", minimum=1)
    spp_scales = parameters.integers(
        (), "spp", "scales", "shorter sides of images; empty: 688, or the backbone's default", minimum=1
    )
    spp_longest_side = parameters.integer(LONGEST_SIDE, "spp", "longest_side", "limit of the longer side", minimum=1)

    @property
    def scales(self) -> tuple[int, ...]:
        return self.spp_scales or defaults_of(self.backbone).spp_scales

    def maps_of(self, split: str, **settings) -> ConvFeatures:
        """The task of the maps of `split` at these scales."""
        maps = {"map_scales": self.scales, "map_longest_side": self.spp_longest_side, "map_mirrored": False, **settings}
        return self.clone(ConvFeatures, split=split, **maps)


@parameters.inherits(
    LoadWeights, PretrainClassifier, RegionProposals, ConvFeatures,
    without=("split", "map_scales", "map_longest_side", "map_mirrored", "map_originals"),
)
class FineTuneSPP(WeightedClasses, NetworkTask, Pyramid):
    """Trains the fully connected layers for detection on the pyramid: per step 32 regions of objects and 96 of the background."""

    resolved = (
        *NetworkTask.resolved, *WeightedClasses.resolved, "spp_scales", "spp_training_scale", "spp_learning_rate", "spp_lr_step"
    )

    spp_iterations = parameters.integer(
        1500, "spp", "iterations", "training steps of the fully connected layers, with 128 regions each; 0: not fine-tuned"
    )
    spp_learning_rate = rate_setting("spp")
    spp_lr_step = lr_step_setting("spp", ", at most 30000")
    spp_training_scale = parameters.choice(
        AUTO, (AUTO, RANDOM, NEAREST), "spp", "training_scale",
        "the scale of a training region: a random one, or as in detection the nearest; auto: random, nearest for tiny",
    )
    mirror = mirror_setting()
    seed = parameters.seed()

    @property
    def draws_scales(self) -> bool:
        by_default = self.spp_training_scale == AUTO and defaults_of(self.backbone).spp_draws_scales
        return (by_default or self.spp_training_scale == RANDOM) and len(self.scales) > 1

    def resolve(self) -> dict:
        rate = self.spp_learning_rate or defaults_of(self.backbone).spp_rate
        lr_step = lr_step_of(self.spp_lr_step, self.spp_iterations, RELEASE_LR_STEP)
        chosen = {"learning_rate": rate, "lr_step": lr_step, "draws_scales": self.draws_scales}
        return {**super().resolve(), "scales": self.scales, **chosen}

    def requires(self) -> dict[str, CachedTask]:
        sources = {
            "train": self.clone(IndexDataset, split=self.train_split), "weights": first_weights(self),
            "proposals": self.clone(RegionProposals, split=self.train_split), "maps": self.maps_of(self.train_split),
        }
        if self.mirror and self.dataset not in EMBEDDED:
            sources["mirrored maps"] = self.maps_of(self.train_split, map_mirrored=True, map_originals=False)
        return sources

    def build(self, workshop: Workshop) -> dict:
        from pipeline.networks.training import Schedule, TrainingRun
        from pipeline.rcnn.windows import label_windows
        from pipeline.seeding import derive_seed
        from pipeline.spp_net.finetune import finetune_layers
        from pipeline.spp_net.pyramid_layers import put_on_pyramid
        from pipeline.spp_net.sampling import (
            BACKGROUND_OVERLAP,
            BlockSampler,
            block_steps,
            nearest_scales,
            pooled_batches,
        )
        from pipeline.spp_net.spatial_pyramid import pool_regions

        device, inputs, resolved = self.prepare(), self.inputs(), self.resolve()
        split, seed = load_split(inputs["train"]), derive_seed(self.seed, "finetune spp-net")
        backbone = load_backbone(inputs["weights"], self.backbone)
        put_on_pyramid(backbone, self.pyramid_levels)
        windows = label_windows(split.images, load_proposals(inputs["proposals"]).__getitem__, BACKGROUND_OVERLAP)
        stores = [open_maps(inputs[name], split.images) for name in ("maps", "mirrored maps") if name in inputs]
        nearest = nearest_scales(windows, split.images, self.scales, self.spp_longest_side, backbone.crop_size)
        sampler = BlockSampler(
            windows, seed, mirror=len(stores) == 2, scales=len(self.scales) if self.draws_scales else nearest,
            steps=block_steps(backbone.sizes["pool5"]),
        )

        def read(image: int, scale: int, mirrored: bool):
            return stores[mirrored].read(image, self.scales[scale], mirrored)

        def pool(stored, boxes):
            return pool_regions(stored, boxes, backbone.view, self.pyramid_levels)

        schedule = Schedule(self.spp_iterations, resolved["learning_rate"], resolved["lr_step"])
        run = TrainingRun(
            schedule, seed, device, self.arithmetic, workshop.checkpoint, progress=self.progress("step"),
        )
        batches = partial(pooled_batches, sampler, split.images, read, pool)
        weights = self.weights_of_classes(split)
        model, losses = finetune_layers(
            backbone, run, num_classes=len(split.classes), batches=batches, class_weights=weights
        )
        foreground = int((windows.labels > 0).sum())
        counts = {"foreground": foreground, "background": len(windows) - foreground}
        return {**counts, **save_training(workshop, model, losses, schedule)}


def layer_of(task: CachedTask) -> str:
    """The layer that SPP-net's SVMs read for `task`. Raises PipelineError for a layer that the backbone does not have."""
    layers = [layer for layer in defaults_of(task.backbone).layers if layer in PYRAMID_LAYERS]
    layer = layers[-1] if task.spp_layer == AUTO else task.spp_layer
    if layer not in layers:
        raise PipelineError(f"--spp-layer {layer}: backbone {task.backbone} has only {', '.join(layers)}")
    return layer
