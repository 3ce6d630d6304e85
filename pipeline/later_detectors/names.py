"""The detectors after Faster R-CNN that torchvision builds, by name. Needs no torch, so that settings can be checked quickly.

A chain is one of `ARCHITECTURES`, or `torchvision:` and one of `MODELS`.
"""

ARCHITECTURES = ("ssd", "retinanet", "mask-rcnn")
TORCHVISION = "torchvision"
# The functions of torchvision.models.detection. NOTE: without keypointrcnn_resnet50_fpn, which trains on keypoints alone.
MODELS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2", "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)
PAPER = "paper"  # the trunk of the paper, in place of one of our backbones


def family(chain: str) -> str:
    """The chain without the name of a model: `torchvision` for `torchvision:fcos_resnet50_fpn`."""
    return chain.partition(":")[0]


def model_name(chain: str) -> str:
    """The name of torchvision's function; empty for one of `ARCHITECTURES`."""
    return chain.partition(":")[2]


def is_later(chain: str) -> bool:
    """Whether `chain` is one of these detectors."""
    return chain in ARCHITECTURES or (family(chain) == TORCHVISION and model_name(chain) in MODELS)


def has_masks(chain: str) -> bool:
    """Whether the detector also predicts a mask of each object."""
    return chain == "mask-rcnn" or model_name(chain).startswith("maskrcnn")
