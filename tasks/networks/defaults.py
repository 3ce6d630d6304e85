"""The defaults of each backbone in all chains: layers, rates, scales, sizes.

"Ours" are settings that were chosen on validation images, unless a comment says otherwise. The rates of ResNets are those of
VGG-16 (He et al. 2016, appendix A), those of MobileNetV3 are EfficientNet-Lite0's. Neither was tried on photographs here.
"""

from dataclasses import dataclass

from pipeline.networks.variants import RESNETS, base_of


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Of one backbone. A rate that is called a multiple is one of the backbone's own rate in that chain."""

    layers: tuple[str, ...]  # that SVMs can read; here, so that a wrong name is an error before hours of work
    finetune_rate: float = 0.001  # pascal_finetune_solver.prototxt of rbgirshick/rcnn; a tenth of ImageNet's (section 2.3)

    spp_scales: tuple[int, ...] = (688,)  # SPP-net, section 4.2
    spp_rate: float = 0.001  # first vstep_lr in pascal_finetune_fc_spm_solver.prototxt of ShaoqingRen/SPP_net
    spp_draws_scales: bool = True  # as the release; else the scale of a training region is the nearest, as in detection

    # Fast and Faster R-CNN
    scale: int = 600  # lib/fast_rcnn/config.py of rbgirshick/fast-rcnn: SCALES
    rate: float = 0.001  # of the trunk: models/*/solver.prototxt and train.prototxt of rbgirshick/fast-rcnn
    output_rate: float = 1.0  # a multiple, of the output layers
    rpn_rate: float = 1.0  # a multiple, of the proposal network
    regions: int = 128  # lib/fast_rcnn/config.py of rbgirshick/fast-rcnn: BATCH_SIZE
    shared_regions: int = 128  # in Faster R-CNN
    joint_regions: int = 128  # of an image, in Faster R-CNN's joint training
    clip_gradients: float = 0.0  # largest norm of a step's gradients on whole images; 0: any
    boxes_on_map: bool = False  # whether Fast R-CNN regresses boxes from the last map of a region: `RegionHead.last_map`
    rfcn_bins: int = 7  # table 4 of Dai et al. 2016: 3 gives one point of mAP less
    rfcn_output_rate: float | None = None  # a multiple, of R-FCN's output layers; None: `output_rate`
    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)  # generate_anchors.py of rbgirshick/py-faster-rcnn

    # SSD, RetinaNet and Mask R-CNN. Ours: the papers' rates are for many more steps.
    detector_channels: int = 256  # of their new maps: Lin et al. 2017
    ssd_rate: float = 0.001
    retinanet_rate: float = 0.0025
    mask_rcnn_rate: float = 0.0025
    detector_new_rate: float = 1.0  # a multiple, of new layers; ours

    localise_side: int = 224  # VGG's input; 227 is CaffeNet's
    localise_iterations: int = 1200  # ours
    localise_rate: float = 0.001  # VGG's, appendix A
    localise_head_rate: float = 30.0  # a multiple; ours
    localise_looks: int = 3  # box error of photographs, held out of training: 20 % after one look, 15 % after three

    # Shorter sides of the scaled images, in sides of a window; each is about the root of 2 times the one before. Ours: an object
    # fits when its longer side is 0.65 of a window.
    window_scales: tuple[float, ...] = (0.6, 0.85, 1.2, 1.7, 2.4)
    window_rate: float = 0.003  # ours
    window_output_rate: float = 3.0  # a multiple; ours

    pose_rate: float = 0.003  # ours
    pose_output_rate: float = 3.0  # a multiple; ours
    # Sides of the windows: those of the backbones' crops. Windows around a joint show less than those of objects. Networks that
    # end with a mean can take smaller ones.
    pose_side: int = 224
    pose_joint_side: int = 224

    @property
    def fully_connected(self) -> tuple[str, ...]:
        """Fast R-CNN's fully connected layers: a backbone without layers of its own gets an `fc6`."""
        return ("fc6",) if self.layers == ("pool5",) else tuple(layer for layer in self.layers if layer.startswith("fc"))


# Ours. The conv layers are not trained on the maps. So objects must be about as large in them as in the crops of their own
# training. SqueezeNet: mAP 43 on validation photographs with these scales, 37 with 360, 34 with 688. `tiny`, on training digits
# that were held out: 77 with its own, 66 with 240 alone.
SPP_SCALES = (240, 360, 540, 800)
# EfficientNet-Lite0 keeps its batch normalisation apart from its weights. Rates were chosen on validation photographs: of Faster
# R-CNN, and in localisation, pose and segmentation. Those of sliding windows and of R-FCN, SSD, RetinaNet and Mask R-CNN were not
# tried since. Two cores train at a side of 360 in a quarter of an hour.
SMALL = Defaults(
    layers=("pool5", "head"), spp_scales=SPP_SCALES, scale=360, rate=0.004, rpn_rate=4.0, clip_gradients=5.0,
    # With 32 regions in place of 128 a step takes half the time.
    joint_regions=32, anchor_scales=(2.0, 4.0, 8.0, 16.0), boxes_on_map=True, detector_new_rate=4.0,
    localise_rate=0.0004, pose_rate=0.0005, pose_output_rate=20.0, pose_joint_side=112,
)
RESNET = Defaults(layers=("pool5", "head"), spp_scales=SPP_SCALES, window_rate=0.001, pose_rate=0.001, pose_joint_side=112)

DEFAULTS = {
    "alexnet": Defaults(
        layers=("pool5", "fc6", "fc7"), localise_side=227, window_rate=0.001, pose_rate=0.001, pose_side=227, pose_joint_side=227
    ),
    "vgg16": Defaults(layers=("pool5", "fc6", "fc7"), window_rate=0.001, pose_rate=0.001),
    "squeezenet1_0": Defaults(
        layers=("pool5",), spp_scales=SPP_SCALES, rate=0.003, output_rate=3.0, rpn_rate=2.0, detector_new_rate=2.0,
        localise_rate=0.0003, pose_side=227, pose_joint_side=227,
    ),
    "efficientnet_lite0": SMALL,
    "mobilenet_v3_large": SMALL,
    **dict.fromkeys(RESNETS, RESNET),
    "tiny": Defaults(
        layers=("pool5", "fc6"),
        finetune_rate=0.01,  # it was trained for a minute, not on ImageNet, so there is little to preserve
        spp_scales=(120, 170, 240, 340), spp_rate=0.01,
        # With random scales it had a mAP of 74 on training digits that were held out, 79 with the nearest.
        spp_draws_scales=False,
        scale=360,  # a cell of the map covers most of an object of `digits`; the smallest object covers three cells
        rate=0.02, rpn_rate=5.0,
        regions=512,  # regions cost little compared with the maps, and more regions allow a higher learning rate
        shared_regions=1024,  # with 512 an earlier `tiny` lost 1 point
        rfcn_bins=3,  # the smallest object of `digits` covers three cells of its map
        rfcn_output_rate=9.0,  # a score is the mean of 9 maps, so each gets a ninth of the gradient that Fast R-CNN's layer gets
        anchor_scales=(3.0, 4.5, 7.0),  # sides of 48 to 112 pixels, as most objects of `digits` have at its scale
        detector_channels=64,  # what trains on two cores
        ssd_rate=0.005, retinanet_rate=0.01, mask_rcnn_rate=0.01,
        localise_side=256,  # at 192 the smallest objects of `digits` are 22 pixels wide, and a quarter got a wrong class on `val`
        localise_iterations=3000,  # error on `val` 8.0 %; with side 192 17.5 % after 1200 steps, 10.5 after 2400, 10.0 after 4000
        localise_rate=0.004, localise_head_rate=1.0, localise_looks=1,
        window_scales=(1.3, 1.85, 2.6, 3.7),  # for objects of `digits`, 0.15 to 0.5 of the shorter side
        window_rate=0.02, window_output_rate=1.0, pose_rate=0.02, pose_output_rate=1.0, pose_side=64, pose_joint_side=64,
    ),
}


def defaults_of(backbone: str) -> Defaults:
    """The defaults of a backbone, which are those of its variants too."""
    return DEFAULTS[base_of(backbone)]
