"""The setting `--class-weights` of stages that train with a softmax loss."""

from pipeline.errors import PipelineError
from pipeline.networks.class_weight_text import BALANCED, NONE, parse_weights
from tasks.engine import parameters
from tasks.stage import Stage


class ClassWeights(parameters.Setting):
    """`none`, `balanced`, or weights by name; equal weights are the same text."""

    def normalize(self, value) -> str:
        text = str(value).strip() or NONE
        if text in (NONE, BALANCED):
            return text
        try:
            weights = parse_weights(text)
        except PipelineError as error:
            raise parameters.SettingError(f"{self.option}: {error}") from None
        return ",".join(f"{name}={weight:.12g}" for name, weight in sorted(weights.items()))


class WeightedClasses(Stage):
    """A stage whose log loss may weigh classes."""

    resolved = ("class_weights",)

    class_weights = ClassWeights(
        default=NONE, config_path={"section": "network", "name": "class_weights"},
        description="how much a region of each class counts in the softmax loss: none; balanced: by the numbers of objects; "
                    "or name=weight,... with 1 for the others and the background",
    )

    def resolve(self) -> dict:
        # The default stays out of keys, so that older keys stay valid.
        return {**super().resolve(), **({"class_weights": self.class_weights} if self.class_weights != NONE else {})}

    def weights_of_classes(self, split):
        """The weights [C + 1] for the training `split`, or None."""
        from pipeline.networks.class_weights import class_weights

        return class_weights(self.class_weights, split.classes, split.images)
