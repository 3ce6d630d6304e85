"""Detections in the user's own images, by a detector that this run trains or that was exported before."""

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.later_detectors.names import has_masks
from pipeline.text import printable
from tasks.data.sharded import ShardedTask, sum_figures
from tasks.detection import DETECTIONS
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import MISSING, canonical_json
from tasks.engine.printing import tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.export import DETECTOR, ExportDetector
from tasks.file_checks import read_arrays
from tasks.later_detectors.base import MASKS
from tasks.left_out import left_out_figures, note_limit_of_split, warn_of_limits
from tasks.photographs.index import IRREGULAR, IndexImages, picture_names

IMAGES = "images.json"
RESULT = "detections.json"
PICTURES = "pictures"
AUTO = "auto"
PHOTOGRAPH = "photograph"  # replaces the path in messages that go into results, so that results contain no path


class Score(parameters.Number):
    """A number, or `auto`."""

    def normalize(self, value):
        return value if value == AUTO else super().normalize(value)

    def serialize(self, value) -> str:
        return str(value)


def draw_score_setting():
    description = "lowest score of a drawn detection; auto: 0 for SVMs, 0.5 for probabilities"
    return Score(default=AUTO, config_path={"section": "detect", "name": "draw_score"}, description=description)


@parameters.inherits(IndexImages, ExportDetector)
class DetectImages(ShardedTask):
    """Detections in the user's images: as JSON, as COCO's and VOC's result files, and drawn into the images.

    An unusable image is no failure of the stage: this depends only on its content, which is in the key. The artefact is complete
    and names the image and the reason.
    """

    version = 4
    resolved = (*ShardedTask.resolved, "detector", "draw_score")

    detector = parameters.text(
        "", "detect", "detector", "folder made by ExportDetector, used instead of --chain; empty: the detector of --chain"
    )
    draw_score = draw_score_setting()

    def index_task(self) -> IndexImages:
        return self.clone(IndexImages)

    def upstream(self) -> dict[str, CachedTask]:
        return {} if self.detector else {"detector": self.clone(ExportDetector)}

    def resolve(self) -> dict:
        digests = {"draw_score": self.draw_score} if self.is_whole else {}  # another score needs new pictures only
        if self.max_megapixels != MAX_MEGAPIXELS:  # the default stays out of keys, so that older keys stay valid
            digests["max_megapixels"] = self.max_megapixels
        if self.detector:
            files = [path for path in self.folder.glob("*") if path.suffix in (".npz", ".safetensors") or path.name == DETECTOR]
            if self.folder / DETECTOR not in files:
                raise PipelineError(f"--detector {self.detector}: found no {DETECTOR}; give a folder that ExportDetector made")
            digests["detector"] = {path.name: digest for path, digest in self.digest_memory.of(files).items()}
        return digests

    @property
    def folder(self) -> Path:
        """The folder of the detector."""
        return Path(self.detector).expanduser() if self.detector else self.inputs()["detector"].check()

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "digest": record.digest}

    def read(self, record):
        """The pixels of an image. Returns (does not raise) a PipelineError if the file is not a usable image."""
        from pipeline.images.reading import decode_photograph, read_content

        path = self.index_task().files[record.id]
        if record.digest == MISSING:
            return PipelineError(f"{PHOTOGRAPH}: cannot be read; see that it is there and may be read")
        if record.digest == IRREGULAR:
            what = "a named pipe, a device, or a link to one, which is not read"
            return PipelineError(f"{PHOTOGRAPH}: {what}; put a file in its place")
        content = read_content(path, record.digest)
        try:
            return decode_photograph(PHOTOGRAPH, content, self.max_megapixels)
        except PipelineError as error:
            return error

    def build_shard(self, workshop: Workshop, split) -> dict:
        import numpy as np

        from pipeline.detection.detections import Detections
        from pipeline.detector import Detector
        from pipeline.prefetch import prefetch

        detector = Detector.load(self.folder, self.device, self.num_threads)
        images, detections = [], []
        for record, pixels in zip(split.images, self.progress()(prefetch(map(self.read, split.images)), len(split.images))):
            if isinstance(pixels, PipelineError):
                images.append({"image": record.id, "error": str(pixels).removeprefix(f"{PHOTOGRAPH}: ")})
            else:
                images.append({"image": record.id, "width": pixels.shape[1], "height": pixels.shape[0]})
                detections.append(detector.detect(pixels, Path(record.id).stem, warn=False))
        ids = [image["image"] for image in images if "error" not in image]
        numbers = np.repeat(np.arange(len(detections)), [len(of_image) for of_image in detections])
        columns = [[getattr(of_image, name) for of_image in detections] for name in ("labels", "scores", "boxes")]
        columns = [np.concatenate(column) if column else [] for column in columns]
        Detections(ids, detector.classes, numbers, *columns).save(workshop.files / DETECTIONS)
        if has_masks(detector.settings["chain"]):
            self._save_masks(workshop, detections)
        workshop.write(IMAGES, canonical_json(images) + "\n")
        counts = {"images": len(images), "failed": len(images) - len(ids), "detections": len(numbers)}
        return {**counts, **left_out_figures(detections)}

    def _save_masks(self, workshop: Workshop, detections: list) -> None:
        """Writes the masks in the order of the shard's detections: by image, class and falling score."""
        import numpy as np

        from pipeline.detection.masks import CELLS, save_masks

        orders = [np.lexsort((-of_image.scores, of_image.labels)) for of_image in detections]
        ordered = [of_image.masks[order] for of_image, order in zip(detections, orders, strict=True)]
        save_masks(workshop.files / MASKS, [np.zeros((0, CELLS, CELLS), np.uint8), *ordered])

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        import numpy as np

        from pipeline.detection.detections import Detections, join_detections
        from pipeline.detection.photograph_results import write_results

        detections = join_detections([Detections.load(shard.path(DETECTIONS)) for shard in shards])
        images, category_ids = [image for shard in shards for image in shard.json(IMAGES)], self.settings().get("category_ids")
        write_results(workshop.files, images, detections, category_ids)
        lowest = self.lowest_drawn()
        masks = None
        if has_masks(self.settings()["chain"]):
            masks = np.concatenate([read_arrays(shard, MASKS)["masks"] for shard in shards])
        self._draw(workshop.files / PICTURES, detections, lowest, masks)
        self._warn_of_limits(sum_figures(shards))
        return {"drawn": int((detections.score >= lowest).sum()), "draw_score": lowest}

    def settings(self) -> dict:
        """What the detector's folder says about it."""
        from pipeline.detector import read_settings

        return read_settings(self.folder)

    def _warn_of_limits(self, figures: dict) -> None:
        """Warns of what the limits of the detector left out."""
        from pipeline.detection.detections import LIMITED_BY
        from pipeline.detector import limits_of

        limits = limits_of(self.settings())._asdict()
        left_out = {LIMITED_BY[kind]: (limit, figures.get(f"left_out_{kind}", 0)) for kind, limit in limits.items()}
        warn_of_limits(self.label, left_out, " (a setting of the detector: export it anew)" if self.detector else "")

    def lowest_drawn(self) -> float:
        """The lowest score of detections that are drawn."""
        from pipeline.detector import DRAW_SCORE, DRAW_SCORES

        chain = self.settings()["chain"]
        return DRAW_SCORES.get(chain, DRAW_SCORE) if self.draw_score == AUTO else self.draw_score

    def _draw(self, folder: Path, detections, lowest: float, masks) -> None:
        from pipeline.detection.detections import ImageDetections
        from pipeline.detection.drawing import draw_detections
        from pipeline.files.writing import write_image
        from pipeline.prefetch import prefetch

        records = {record.id: record for record in self.load_split().images}
        pixels, names = prefetch(self.read(records[name]) for name in detections.image_ids), picture_names(detections.image_ids)
        for number, image in enumerate(self.progress("picture")(pixels, len(detections.image_ids))):
            path = folder / names[number]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, draw_detections(image, ImageDetections.of(detections, number, masks), lowest), quality=95)

    def show(self) -> None:
        """Prints where the results are. Raises PipelineError when an image cannot be used."""
        artefact, figures = self.artefact, self.artefact.manifest["figures"]
        note_limit_of_split(self.label, 0 if self.detector else self.mean_per_image)
        drawn = f"{figures['drawn']} of them drawn: those with a score of at least {figures['draw_score']:g} (--draw-score)"
        tell(f"\n{figures['images']} images, {figures['detections']} detections, {drawn}")
        tell(printable(f"results: {artefact.folder}/ ({RESULT}, coco.json, coco.names.json, voc/, {PICTURES}/)"))
        if failed := artefact.json(RESULT)["failed"]:
            summary = f"{len(failed)} of {figures['images']} images cannot be used; the results cover the other images"
            raise PipelineError(f"{summary}:", *(f"{image['image']}: {image['error']}" for image in failed))
