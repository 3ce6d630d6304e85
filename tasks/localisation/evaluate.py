"""Classification + localisation: the errors of a network, the time that it takes, and the table of the four kinds of network."""

import logging
from collections.abc import Callable
from pathlib import Path

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, show_table, tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.chapter import ChainEvaluation
from tasks.evaluation.evaluate import EVALUATION, Evaluate, shared_figures
from tasks.evaluation.timing import TimePrediction
from tasks.localisation.localise import PREDICTIONS, Localise
from tasks.localisation.training import BOX_HEADS, PLACES, TrainLocaliser
from tasks.stage import Stage

logger = logging.getLogger("stages")

SUMMARISED = ("top1_error", "top5_error", "top1_class_error", "box_error", "mean_box_error", "mean_iou")


@parameters.inherits(Localise)
class EvaluateLocalisation(ChainEvaluation):
    """Errors of classification + localisation on the test split, with bootstrap intervals, beside those of the mean box."""

    chain = "localisation"
    title = "Classification + localisation"

    bootstrap_resamples = Evaluate.bootstrap_resamples
    seed = parameters.seed()

    def splits(self) -> dict[str, IndexDataset]:
        return {name: self.clone(TrainLocaliser).index(getattr(self, f"{name}_split")) for name in ("train", "test")}

    def requires(self) -> dict[str, CachedTask]:
        return {**self.splits(), "predictions": self.clone(Localise)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.localisation.evaluation import evaluate, localisation_table
        from pipeline.localisation.localise import Predictions
        from pipeline.localisation.windows import target_fractions
        from pipeline.seeding import make_generator

        inputs = self.inputs()
        test = load_split(inputs["test"])
        predictions = Predictions.load(inputs["predictions"].path(PREDICTIONS))
        mean_box = target_fractions(load_split(inputs["train"]).images).mean(axis=0)
        result = evaluate(
            predictions, test.images, test.classes, mean_box, resamples=self.bootstrap_resamples,
            generator=make_generator(self.seed, "bootstrap"),
        )
        workshop.write(EVALUATION, canonical_json(result) + "\n")
        workshop.write(TABLE, localisation_table(result) + "\n")
        if result["images_without_object"]:
            logger.warning("%s: %d images have no object and are not evaluated", self.label, result["images_without_object"])
        figures = {name: result[name] for name in ("images_without_object", *SUMMARISED)}
        return {**shared_figures(self, test), **figures}

    def show(self) -> None:
        show_table(self.artefact, EVALUATION, TABLE)

    def training_tasks(self) -> dict[str, CachedTask]:
        return {"network": self.clone(Localise).network()}

    def timing(self) -> CachedTask:
        return self.clone(TimeLocalisation)

    def summary(self, evaluation: dict) -> dict:
        one_object = evaluation["one_object"]
        return {
            "dataset": Path(self.clone(TrainLocaliser).own_dataset).resolve().name,
            **{name: evaluation[name] for name in SUMMARISED},
            "interval_95": {name: evaluation["interval_95"][name] for name in SUMMARISED},
            "one_object": {
                "images": one_object["images"], **{name: one_object[name] for name in SUMMARISED},
                "interval_95": {name: one_object["interval_95"][name] for name in SUMMARISED},
            },
        }

    def section(self, album, number: int) -> dict:
        from pipeline.images.reading import ImageCache
        from pipeline.localisation.evaluation import ALL, COLUMNS, ONE_OBJECT
        from pipeline.localisation.localise import Predictions
        from pipeline.report.localisation import choose_images, marks_of

        result, train, test = self.artefact.json(EVALUATION), *(load_split(self.inputs()[name]) for name in ("train", "test"))
        predictions = Predictions.load(self.inputs()["predictions"].path(PREDICTIONS))
        read = ImageCache(self.splits()["test"].root, 0).read
        chosen = choose_images(predictions, test.images, number)
        records = [(test.images[image], image) for image in chosen]
        shown = [(album.add(record, read), marks_of(predictions, record, image, test.classes)) for record, image in records]
        return {
            "template": "localisation.html", "headers": list(COLUMNS.values()), "figures": list(COLUMNS),
            "rows": list(result["classes"].items()), "totals": [(ONE_OBJECT, result["one_object"]), (ALL, result)],
            "without": result["images_without_object"], "images": result["images"], "shown": shown,
            "training_images": len(train.images),
            "box_head": {"agnostic": "one for each image", "specific": "one for each class"}[self.box_head],
            "head_after": {"conv": "after the last map", "fc": "after the last fully connected layer"}[self.head_after],
        }


@parameters.inherits(Localise)
class TimeLocalisation(TimePrediction):
    """Seconds per image from pixels to class and box: one image at a time, after a warm-up."""

    def test_index(self) -> IndexDataset:
        return self.clone(Localise).index_task()

    def requires(self) -> dict[str, CachedTask]:
        localise = self.clone(Localise)
        return {"test": self.test_index(), "predictions": localise, "network": localise.network()}

    def predictor(self, split) -> Callable:
        localiser = self.clone(Localise).load_localiser(len(split.classes))
        return lambda number, record, pixels: localiser.predict(pixels)


@parameters.inherits(EvaluateLocalisation, without=("box_head", "head_after"))
class CompareLocalisers(Stage):
    """The table of the four kinds of network: one box or a box for each class, after the last map or the last layer."""

    computes = False

    def requires(self) -> dict[str, CachedTask]:
        kinds = ((box_head, place) for box_head in BOX_HEADS for place in PLACES)
        return {f"{box_head} {place}": self.clone(EvaluateLocalisation, box_head=box_head, head_after=place)
                for box_head, place in kinds}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.localisation.evaluation import variants_table

        evaluations = {tuple(name.split()): artefact.json(EVALUATION) for name, artefact in self.inputs().items()}
        workshop.write(TABLE, variants_table(evaluations) + "\n")
        return {f"top1_error {' '.join(kind)}": evaluation["top1_error"] for kind, evaluation in evaluations.items()}

    def show(self) -> None:
        tell(f"\n{self.artefact.path(TABLE).read_text()}")
