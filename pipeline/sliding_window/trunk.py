"""The trunk of a backbone as sliding windows use it: without padding where that is possible."""

from torch import nn

from pipeline.networks.backbones import Backbone

# The last pooling of a trunk that ends with convolutions after it; the pooling from offsets takes its place. A module's number.
LAST_POOLING = {"tiny": 7}
PLAIN = (nn.Conv2d, nn.MaxPool2d, nn.ReLU)


def window_trunk(backbone: Backbone) -> nn.Sequential:
    """The trunk of `backbone` as windows use it: the same layers, without padding where they follow one another plainly.

    Changes the backbone's own modules.
    """
    modules = [module for number, module in enumerate(backbone.trunk) if number != LAST_POOLING.get(backbone.base)]
    trunk = nn.Sequential(*modules)
    if all(isinstance(module, PLAIN) for module in modules):
        for module in modules:
            if not isinstance(module, nn.ReLU):
                module.padding = (0, 0)  # type: ignore[assignment]  # torch types each attribute as a tensor or a module
    return trunk


def is_unpadded(trunk: nn.Module) -> bool:
    """Whether no layer of `trunk` pads its input."""
    paddings = [module.padding for module in trunk.modules() if isinstance(module, (nn.Conv2d, nn.MaxPool2d))]
    return all(padding in (0, (0, 0)) for padding in paddings)
