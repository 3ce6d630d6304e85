"""What the stages of Faster R-CNN share: the anchors, and training on them."""

from tasks.engine import parameters
from tasks.file_checks import read_tensors
from tasks.networks.defaults import defaults_of
from tasks.networks.map_training import ImageScale, MapTraining, warn_of_unused

# Settings that distinguish the artefacts of one stage. They are not inherited: a stage sets them when it requires another stage.
OF_ONE_STAGE = ("split", "rpn_step", "fast_step", "map_scales", "map_longest_side", "map_mirrored")
RPN_FILE = "rpn.safetensors"
# In detection: the best anchors of an image that go into suppression, 0 for all, and the most proposals.
# NOTE: BEFORE_NMS is 6000 in the release. After short trainings the largest anchors of all cells score best, and suppression
# leaves only 150 boxes: the recall of VOC's objects at IoU 0.5 was 0.62; with all anchors it was 0.75.
BEFORE_NMS, TEST_PROPOSALS = 0, 300


class AnchorTask(ImageScale):
    """A stage that uses anchors."""

    resolved = (*ImageScale.resolved, "anchor_scales")

    anchor_scales = parameters.numbers(
        (), "rpn", "anchor_scales", "sides of anchors in units of 16 pixels; empty: 8,16,32, or the backbone's default",
        minimum=0.0625,
    )
    anchor_ratios = parameters.numbers(
        (0.5, 1.0, 2.0), "rpn", "anchor_ratios", "heights of anchors divided by their widths", minimum=0.01
    )

    def resolve(self) -> dict:
        scales = self.anchor_scales or defaults_of(self.backbone).anchor_scales
        return {**super().resolve(), "scales": scales}

    def layout(self):
        from pipeline.faster_rcnn.rpn_training import AnchorLayout

        return AnchorLayout(tuple(self.resolve()["scales"]), self.anchor_ratios)


class AnchorTraining(AnchorTask, MapTraining):
    """A stage that trains on anchors."""

    version = 3
    resolved = (*AnchorTask.resolved, *MapTraining.resolved)

    def anchor_sampler(self, split, seed: int, images_a_step: int):
        """Chooses the images and anchors of each step; warns if the anchors do not suit the images."""
        import logging

        from pipeline.faster_rcnn.rpn_training import AnchorSampler, misfits, only_difficult
        from pipeline.networks.whole_images import Scaling

        warn = logging.getLogger("stages").warning
        left_out = [image.id for image in split.images if only_difficult(image)]
        if left_out:
            examples = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
            warn("%s: %d images with difficult objects alone are left out (%s)", self.label, len(left_out), examples)
        # Of several scales the largest: an image is of use if an anchor fits into it there.
        shorter = max(self.train_scales or self.sides[:1])
        scalings = [Scaling.of(image.height, image.width, shorter, self.train_longest) for image in split.images]
        for misfit in misfits(self.layout(), split.images, scalings):
            warn("%s: %s", self.label, misfit)
        mirror = self.mirror and split.mirror
        sampler = AnchorSampler(
            split.images, scalings, self.layout(), mirror=mirror, images_a_step=images_a_step, seed=seed, scales=self.train_scales
        )
        unused = len(split.images) - sampler.num_usable
        warn_of_unused(self.label, unused, len(split.images), "no anchor fits into them; lower --anchor-scales to use them")
        return sampler


def background_setting():
    # TRAIN.BG_THRESH_LO is 0 in faster_rcnn_alt_opt.yml and faster_rcnn_end2end.yml of rbgirshick/py-faster-rcnn.
    # NOTE: ours is Fast R-CNN's value, which leaves out the easiest regions: 3 points of mAP more in short trainings on digits.
    return parameters.number(
        0.1, "faster", "background_overlap", "lowest IoU of background regions in training (release: 0)", minimum=0, maximum=0.5
    )


def load_rpn(artefact, backbone: str, layout):
    """The proposal network in an artefact of a stage that writes RPN_FILE, in float32 on the CPU."""
    from pipeline.faster_rcnn.rpn_training import restore_rpn

    return restore_rpn(read_tensors(artefact, RPN_FILE), backbone, layout, repr(artefact))
