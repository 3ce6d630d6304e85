"""Faster R-CNN trained in four steps (Ren et al. 2015, section 3.2). Each starts from the first weights unless it says otherwise.

1. `TrainRPN` trains the proposal network with its own trunk; `RPNProposals` are its proposals.
2. `TrainSharedFastRCNN` trains on these with another trunk, the shared one from now on; `SharedConvFeatures` are its maps.
3. `TrainRPN` trains another proposal network on the shared maps; `RPNProposals` are its proposals.
4. `TrainSharedFastRCNN` trains on the shared maps and these proposals. Its fully connected layers start from those of step 2.
"""

import time

from tasks.data.index import IndexDataset
from tasks.data.sharded import ShardedTask
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.fast_rcnn import FastRCNNTraining, load_model
from tasks.faster_rcnn.base import OF_ONE_STAGE, RPN_FILE, AnchorTask, AnchorTraining, background_setting, load_rpn
from tasks.networks.base import BACKBONE, load_backbone
from tasks.networks.conv_maps import ImageMaps, open_maps
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import lr_step_setting, rate_setting
from tasks.networks.weights import LoadWeights, PretrainClassifier, first_weights
from tasks.proposals.reach import network_advice, reach_figures, warn_of_crowds
from tasks.proposals.regions import load_proposals, save_proposals, sum_proposals

# NOTE: The figures below are of digits of another seed, whose photographs and scans are those of `test`.
FIRST = 1  # the priority of all steps: the longest chain of stages starts first
RELEASE_LR_STEP = 60000  # models/pascal_voc/VGG16/faster_rcnn_alt_opt of rbgirshick/py-faster-rcnn: stage1_rpn_solver60k80k.pt


def step_setting(section: str, steps: tuple[str, ...], description: str):
    return parameters.choice(steps[-1], steps, section, "step", description)


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, without=("split",))
class TrainRPN(AnchorTraining):
    """Trains the region proposal network of step 1 or 3."""

    priority = FIRST
    resolved = (*AnchorTraining.resolved, "rpn_iterations", "rpn_shared_iterations", "rpn_learning_rate", "rpn_lr_step")
    validates = False  # a proposal network alone detects nothing

    rpn_step = step_setting("rpn", ("1", "3"), "which of the four steps")
    rpn_iterations = parameters.integer(
        300, "rpn", "iterations", "training steps in step 1, with 256 anchors per image", minimum=1
    )
    # On digits of another seed an earlier `tiny` found 0.75 of the objects at IoU 0.7 after 300 steps, 0.82 after 1000.
    rpn_shared_iterations = parameters.integer(
        1000, "rpn", "shared_iterations", "training steps in step 3, with 256 anchors per image, on cached maps", minimum=1
    )
    rpn_images = parameters.integer(1, "rpn", "images", "images per training step", minimum=1)
    rpn_learning_rate = rate_setting("rpn")
    rpn_lr_step = lr_step_setting("rpn", ", at most 60000")

    @property
    def iterations(self) -> int:
        return self.rpn_iterations if self.rpn_step == "1" else self.rpn_shared_iterations

    def resolve(self) -> dict:
        rates = self.settle(self.iterations, self.rpn_learning_rate, self.rpn_lr_step, RELEASE_LR_STEP, "rpn_rate")
        return {**super().resolve(), **rates, "iterations": self.iterations}

    @property
    def trained(self) -> dict[str, str]:
        return {"rpn": RPN_FILE, "trunk": BACKBONE} if self.rpn_step == "1" else {"rpn": RPN_FILE}

    def requires(self) -> dict[str, CachedTask]:
        if self.rpn_step == "1":
            return {"train": self.train_index(), "weights": first_weights(self), **self.frozen_maps()}
        return {"train": self.train_index(), "maps": self.train_maps_of(SharedConvFeatures)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.fast_rcnn.training import freeze
        from pipeline.faster_rcnn.rpn import LOSSES
        from pipeline.faster_rcnn.rpn_training import train_rpn
        from pipeline.networks.backbones import make_backbone
        from pipeline.networks.weights import save_tensors
        from pipeline.seeding import derive_seed

        device, inputs = self.prepare(), self.inputs()
        split, seed = load_split(inputs["train"]), derive_seed(self.seed, "rpn", self.rpn_step)
        sampler = self.anchor_sampler(split, seed, self.rpn_images)
        # In step 3 the maps are cached: of the trunk that made them, only the sizes are needed.
        weights = inputs.get("weights")
        backbone = load_backbone(weights, self.backbone) if weights else make_backbone(self.backbone)
        freeze(backbone, "all" if "maps" in inputs else self.freeze)
        resolved = self.resolve()
        with self.training_run(workshop, self.schedule(resolved), seed, device, classes=split.classes) as run:
            rpn, losses = train_rpn(
                backbone, run, sampler=sampler, layout=self.layout(), inputs=self.map_inputs(split, inputs.get("maps")),
                rate=resolved["rpn_rate"], light=resolved["light"],
            )
        save_tensors(rpn, workshop.files / RPN_FILE)
        if weights:
            save_tensors(backbone, workshop.files / BACKBONE)
        figures = self.write_curve(workshop, run, losses, LOSSES)
        return {**figures, "unused_images": len(split.images) - sampler.num_usable}


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier)
class RPNProposals(AnchorTask, ShardedTask):
    """Region proposals of one split by the network of step 1 or 3, in the format of `RegionProposals`."""

    version = 2

    priority = FIRST
    resolved = (*AnchorTask.resolved, *ShardedTask.resolved)

    rpn_step = step_setting("rpn", ("1", "3"), "which of the four steps")
    rpn_before_nms = parameters.integer(0, "rpn", "before_nms", "best anchors per image that go into suppression; 0: all")
    # As many as in detection. On digits of another seed 1000 are no better. With 2000, most of which are far from any object, an
    # earlier `tiny` lost 3 points of mAP.
    rpn_proposals = parameters.integer(
        300, "rpn", "proposals", "most proposals per training image (the release: 2000)", minimum=1
    )

    def index_task(self) -> IndexDataset:
        return self.clone(IndexDataset)

    def upstream(self) -> dict[str, CachedTask]:
        rpn = {"rpn": self.clone(TrainRPN)}
        return rpn if self.rpn_step == "1" else {**rpn, "maps": self.maps_of(SharedConvFeatures, self.split)}

    def record_key(self, split, record) -> dict:
        return {"id": record.id, **record.pixels_key()}

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.faster_rcnn.rpn import ProposalSettings, propose_regions
        from pipeline.networks.compute import DTYPES, for_inference

        device, inputs = self.prepare(), self.inputs()
        rpn = for_inference(load_rpn(inputs["rpn"], self.backbone, self.layout()), device, self.arithmetic)
        settings = ProposalSettings(self.rpn_before_nms, self.rpn_proposals)
        boxes, start = [], time.process_time()
        for values, scaling in self.progress()(self._maps(split, device), len(split.images)):
            outputs = rpn(values.to(DTYPES[self.arithmetic]))
            boxes.append(propose_regions(rpn, outputs, values.shape[1:], scaling, settings))
        seconds = time.process_time() - start
        save_proposals(workshop, boxes, split)
        return {"images": len(boxes), "boxes": sum(map(len, boxes)), "core_seconds": seconds}

    def merge_shards(self, workshop: Workshop, shards) -> dict:
        split, proposals = self.load_split(), (boxes for shard in shards for boxes in load_proposals(shard))
        warn_of_crowds(self.label, split, self.rpn_proposals, "--rpn-proposals")
        return {**sum_proposals(shards), **reach_figures(self.label, split, proposals, network_advice)}

    def _maps(self, split, device):
        """The map of every image, from the trunk of step 1 or from the cache, and the scaling of the image."""
        import torch

        from pipeline.images.reading import ImageCache
        from pipeline.networks.compute import for_inference
        from pipeline.networks.whole_images import Scaling, conv_map
        from pipeline.prefetch import prefetch

        inputs = self.inputs()
        if "maps" in inputs:
            maps = open_maps(inputs["maps"], split.images)
            for stored in prefetch(maps.read(number, self.sides[0]) for number in range(len(split.images))):
                yield torch.from_numpy(stored.cells).to(device).permute(2, 0, 1), stored.scaling
            return
        backbone = for_inference(load_backbone(inputs["rpn"], self.backbone), device, self.arithmetic)
        for pixels in prefetch(map(ImageCache(self.index_task().root, 0).read, split.images)):
            scaling = Scaling.of(*pixels.shape[:2], *self.sides)
            with torch.inference_mode():
                yield conv_map(backbone, pixels, scaling, device), scaling


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier, without=("split",))
class TrainSharedFastRCNN(FastRCNNTraining):
    """Trains Fast R-CNN on the proposals of step 1, or on those of step 3 with the shared trunk."""

    priority = FIRST
    resolved = (*FastRCNNTraining.resolved, "shared_iterations")  # step 2 does not depend on it

    fast_step = step_setting("fast", ("2", "4"), "which of the four steps")
    shared_iterations = parameters.integer(
        500, "faster", "iterations", "training steps in step 4, on cached maps", minimum=1
    )
    background_overlap = background_setting()

    @property
    def background_overlaps(self) -> tuple[float, float]:
        return self.background_overlap, super().background_overlaps[1]

    @property
    def iterations(self) -> int:
        return super().iterations if self.fast_step == "2" else self.shared_iterations

    def resolve(self) -> dict:
        return {**super().resolve(), "iterations": self.iterations}

    def sources(self) -> dict[str, CachedTask]:
        proposals = {"proposals": self.proposals_of(self.train_split)}
        if self.fast_step == "2":
            return {"weights": first_weights(self), **proposals, **self.frozen_maps()}
        maps = self.train_maps_of(SharedConvFeatures)
        return {"weights": self.clone(TrainSharedFastRCNN, fast_step="2"), **proposals, "maps": maps}

    def proposals_of(self, split: str) -> CachedTask:
        return self.clone(RPNProposals, rpn_step="1" if self.fast_step == "2" else "3", split=split)

    def default_regions(self) -> int:
        return defaults_of(self.backbone).shared_regions

    def first_backbone(self, weights):
        return load_backbone(weights, self.backbone) if self.fast_step == "2" else load_model(weights, self.backbone).backbone

    def training_images(self, split):
        # As in steps 1 and 3 and in joint training. Only the release of Fast R-CNN also trains on difficult objects.
        from pipeline.faster_rcnn.rpn_training import without_difficult

        return [without_difficult(image) for image in split.images]


@parameters.inherits(IndexDataset, LoadWeights, PretrainClassifier)
class SharedConvFeatures(ImageMaps):
    """The maps of the shared trunk, the result of step 2."""

    priority = FIRST

    def upstream(self) -> dict[str, CachedTask]:
        return {"network": self.clone(TrainSharedFastRCNN, fast_step="2")}

    def load_layers(self):
        return load_model(self.inputs()["network"], self.backbone).backbone


# Each step needs results of other steps, and so the settings of all steps.
STEPS = (TrainRPN, RPNProposals, TrainSharedFastRCNN, SharedConvFeatures)
parameters.share(*STEPS, without=OF_ONE_STAGE)
