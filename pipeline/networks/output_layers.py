"""A backbone and new linear layers on its last layer, in training: R-CNN's classifier, Fast R-CNN's two.

Where a backbone has no layers of its own on `pool5`, the first new layer is there: with `hidden` a new `fc6` of that size, else
the outputs. What that layer sees is standardised while it is trained (`pipeline.networks.standard`), and folded into it after.

Shape shorthand: N crops or regions, S side of a crop in pixels, D features of a layer.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from pipeline.networks.backbones import DROPOUT, Backbone, FullyConnected
from pipeline.networks.standard import Standard


class OutputLayers(nn.Module):
    """The backbone and, where `calibrate` found one, the `standard` of its `pool5`."""

    NORM = 20.0  # rcnn_scale_features.m of rbgirshick/rcnn brings the features of every layer to it
    standard: Standard | None

    def __init__(self, backbone: Backbone, hidden: int = 0):
        super().__init__()
        self.backbone, self.standard = backbone, None
        self.was_trained = bool(backbone.fc) and not backbone.has_own_layers  # the first new layer, on what it sees as it is
        if hidden and not backbone.fc:
            backbone.add_layer("fc6", FullyConnected(backbone.sizes[backbone.last_layer], hidden))

    @property
    def starts_on_pool5(self) -> bool:
        """Whether the first layer on `pool5` is a new one."""
        return not self.backbone.has_own_layers

    def output_layer(self, num_outputs: int, std: float, num_inputs: int = 0) -> nn.Linear:
        """A new layer on the last one, or on `num_inputs` other values, whose weights are normal with deviation `std`."""
        layer = nn.Linear(num_inputs or self.backbone.sizes[self.backbone.last_layer], num_outputs)
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
        return layer

    def calibrate(self, pool5: Tensor) -> None:
        """Standardises what the first new layer sees, over these [N x D]; does nothing where no new layer is on `pool5`.

        A new layer that was trained before stays the function of `pool5` that it is.
        """
        if self.starts_on_pool5:
            self.standard = self.standard_of(pool5, self.backbone.view.channels, self._on_pool5())

    def standard_of(self, values: Tensor, channels: int, layers: Iterable[nn.Linear]) -> Standard:
        """What standardises the `channels` of `values` [N x D], which the new `layers` see."""
        standard = Standard.over(values, channels, self.NORM)
        if self.was_trained:
            for layer in layers:
                standard.unfold_from(layer)
        return standard

    def fold_calibration(self) -> None:
        """Moves the standard into the weights of the layers on `pool5`, which then apply to it as it is."""
        if self.standard is not None:
            for layer in self._on_pool5():
                self.standard.fold_into(layer)
            self.standard, self.was_trained = None, True

    def _on_pool5(self) -> list[nn.Linear]:
        """The new layers that apply to `pool5`."""
        layers = self.backbone.fc.values() or self.children()
        return [layer for layer in layers if isinstance(layer, nn.Linear)]

    def last_layer(self, pool5: Tensor) -> Tensor:
        """What the output layers are applied to, from `pool5` [N x D]."""
        if self.standard is not None:
            pool5 = self.standard(pool5)
        if self.backbone.fc:
            return self.backbone.head(pool5, self.backbone.last_layer)
        return nn.functional.dropout(pool5, DROPOUT, self.training)


class Classifier(OutputLayers):
    """R-CNN's network in fine-tuning: a score for each class, the background being class 0."""

    def __init__(self, backbone: Backbone, num_outputs: int):
        super().__init__(backbone)
        self.scores = self.output_layer(num_outputs, 0.01)  # fc8_pascal in pascal_finetune_train.prototxt of rbgirshick/rcnn

    def forward(self, crops: Tensor) -> Tensor:
        """[N x 3 x S x S] -> scores [N x num_outputs], before the softmax."""
        return self.scores(self.last_layer(self.backbone.pool5(crops)))
