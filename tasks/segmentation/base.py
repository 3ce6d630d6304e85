"""Semantic segmentation: the names of the methods and of the ways to upsample, without any slow import."""

from tasks.engine import parameters

# The chains of `--chains`, in the lecture's order. `full-resolution` is a method too; it is there for its cost.
CHAINS = ("patches", "fcn32s", "fcn16s", "fcn8s", "unpooling")
FULL_RESOLUTION = "full-resolution"
METHODS = (*CHAINS, FULL_RESOLUTION)
PATCHES, UNPOOLING = "patches", "unpooling"
# What an FCN with finer skips is trained from, stage after stage.
BEFORE = {"fcn16s": "fcn32s", "fcn8s": "fcn16s"}
FIGURES = ("mean_iu", "pixel_accuracy", "mean_accuracy", "fw_iu")


def method_setting():
    return parameters.choice("fcn8s", METHODS, "segmentation", "method", "the method that segments")
