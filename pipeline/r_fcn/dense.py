"""A backbone's layers of one region, run over whole maps instead, at the stride of the trunk (Dai et al. 2016, section 2).

Such layers halve the map once. Here they do not: the convolution with stride 2 gets stride 1, and those after it are dilated, so
that they see the same cells as before ("a trous"). What the layers made at every second cell they now make at every cell.

NOTE: in the release (conv5 of a ResNet) the convolution that had the stride is dilated, too. Then no cell has the values that the
first weights were trained for.
"""

from torch import nn


def run_densely(layers: nn.Module) -> None:
    """Takes the stride out of `layers`, in place: a sequence of convolutions with odd kernels, whose padding is half of them.

    Strides of parallel convolutions count once. Raises ValueError where a stride is neither 1 nor 2.
    """
    dilation = 1
    for layer in layers.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        strided = layer.stride[0] > 1
        if strided and layer.stride != (2, 2):
            raise ValueError(f"a convolution has stride {layer.stride}, expected 1 or 2")
        layer.stride = (1, 1)
        layer.dilation = (1, 1) if strided else (dilation, dilation)
        layer.padding = tuple(step * (side // 2) for step, side in zip(layer.dilation, layer.kernel_size, strict=True))
        if strided:
            dilation = 2
