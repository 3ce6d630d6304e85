"""Detections in the user's own images, by a detector that this run trains or that was exported before."""

from functools import partial
from pathlib import Path

from pipeline.detection.score_names import BEST_F1
from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.later_detectors.names import has_masks
from pipeline.text import printable
from tasks.data.sharded import sum_figures
from tasks.detection import DETECTIONS
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.thresholds import NONE, detector_thresholds, source_text, thresholds_of
from tasks.export import DETECTOR, NO_THRESHOLDS, THRESHOLDS, ExportDetector
from tasks.file_checks import read_arrays
from tasks.later_detectors.base import MASKS
from tasks.left_out import left_out_figures, note_limit_of_split, warn_of_limits
from tasks.photographs.annotations import ANNOTATIONS, formats_setting, score_setting, write_annotations
from tasks.photographs.base import PhotographTask, failed_entry, raise_if_failed
from tasks.photographs.index import IndexImages, picture_names

IMAGES = "images.json"
RESULT = "detections.json"
PICTURES = "pictures"


@parameters.inherits(IndexImages, ExportDetector, without=("format",))
class DetectImages(PhotographTask):
    """Detections in the user's images: as JSON, as COCO's and VOC's result files, drawn into the images, and as annotations.

    An unusable image is no failure of the stage: this depends only on its content, which is in the key. The artefact is complete
    and names the image and the reason.
    """

    version = 4
    resolved = (
        *PhotographTask.resolved, "detector", "draw_score", "annotations", "annotation_score", "studio_images", "tiles",
        "tile_overlap",
    )

    detector = parameters.text(
        "", "detect", "detector", "folder made by ExportDetector, used instead of --chain; empty: the detector of --chain"
    )
    draw_score = score_setting("draw_score", "lowest score of a drawn detection")
    annotations = formats_setting()
    annotation_score = score_setting("annotation_score", "lowest score of a detection that becomes an annotation")
    studio_images = parameters.text(
        "/data/local-files/?d=photos/", "detect", "studio_images", "what comes before an image's name in Label Studio's tasks"
    )

    tiles = parameters.integer(
        0, "detect", "tiles", "side in pixels of the tiles in which large images are detected in too; 0: only whole images"
    )
    tile_overlap = parameters.number(
        0.2, "detect", "tile_overlap", "smallest part of a tile's side that it shares with the next tile", minimum=0, maximum=0.9
    )

    def upstream(self) -> dict[str, CachedTask]:
        if self.detector:
            return {}
        # Detections do not depend on thresholds: another threshold makes no shard again.
        tasks: dict[str, CachedTask] = {"detector": self.clone(ExportDetector, threshold_split=NONE, calibrate=False)}
        if self.is_whole and self._needs_thresholds() and (task := thresholds_of(self)):
            tasks[THRESHOLDS] = task
        return tasks

    def _needs_thresholds(self) -> bool:
        return self.calibrate or BEST_F1 in (self.draw_score, self.annotation_score if self.annotations else None)

    def resolve(self) -> dict:
        digests = {"draw_score": self.draw_score} if self.is_whole else {}  # another score needs new pictures only
        if self.is_whole and self.annotations:
            studio = {"studio_images": self.studio_images} if "label-studio" in self.annotations else {}
            digests["annotations"] = {"formats": self.annotations, "score": self.annotation_score, **studio}
        if self.max_megapixels != MAX_MEGAPIXELS:  # the default stays out of keys, so that older keys stay valid
            digests["max_megapixels"] = self.max_megapixels
        if self.tiles:
            digests["tiles"] = {"side": self.tiles, "overlap": self.tile_overlap}
        if self.detector:
            digests["detector"] = self.folder_digests("--detector", self.detector, DETECTOR, ExportDetector.stage)
        return digests

    @property
    def folder(self) -> Path:
        """The folder of the detector."""
        return Path(self.detector).expanduser() if self.detector else self.inputs()["detector"].check()

    def build_shard(self, workshop: Workshop, split) -> dict:
        import numpy as np

        from pipeline.detection.detections import Detections
        from pipeline.detector import Detector
        from pipeline.prefetch import prefetch

        detector = Detector.load(self.folder, self.device, self.num_threads)
        detect = partial(detector.detect_in_tiles, side=self.tiles, overlap=self.tile_overlap) if self.tiles else detector.detect
        images, detections = [], []
        for record, pixels in zip(split.images, self.progress()(prefetch(map(self.read, split.images)), len(split.images))):
            if isinstance(pixels, PipelineError):
                images.append(failed_entry(record, pixels))
            else:
                images.append({"image": record.id, "width": pixels.shape[1], "height": pixels.shape[0]})
                detections.append(detect(pixels, Path(record.id).stem, warn=False))
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
        from pipeline.detection.thresholds import lowest_scores

        detections = join_detections([Detections.load(shard.path(DETECTIONS)) for shard in shards])
        images, settings = [image for shard in shards for image in shard.json(IMAGES)], self.settings()
        write_results(workshop.files, images, detections, settings)
        lowest = lowest_scores(settings, self.draw_score)
        masks = None
        if has_masks(settings["chain"]):
            masks = np.concatenate([read_arrays(shard, MASKS)["masks"] for shard in shards])
        self._draw(workshop.files / PICTURES, detections, lowest, masks)
        annotated = write_annotations(
            workshop, images, detections, lowest=lowest_scores(settings, self.annotation_score), formats=self.annotations,
            studio_images=self.studio_images,
        ) if self.annotations else {}
        self._warn_of_limits(sum_figures(shards))
        of_classes = self.draw_score == BEST_F1 and settings.get(THRESHOLDS)
        drawn = int((detections.score >= lowest[detections.class_index]).sum())
        return {"drawn": drawn, "draw_score": BEST_F1 if of_classes else float(str(lowest[0])), **annotated}

    def settings(self) -> dict:
        """What the detector's folder says about it, and its thresholds."""
        from pipeline.detector import read_settings

        settings = read_settings(self.folder)
        if self.detector and self.calibrate and not settings.get("calibration"):
            raise PipelineError(f"--detector {self.detector}: has no probabilities; export it with --calibrate true")
        if THRESHOLDS in self.inputs():
            settings |= detector_thresholds(self.inputs()[THRESHOLDS], settings["classes"])
        return settings

    def _warn_of_limits(self, figures: dict) -> None:
        """Warns of what the limits of the detector left out."""
        from pipeline.detection.detections import LIMITED_BY
        from pipeline.detector import limits_of

        limits = limits_of(self.settings())._asdict()
        left_out = {LIMITED_BY[kind]: (limit, figures.get(f"left_out_{kind}", 0)) for kind, limit in limits.items()}
        warn_of_limits(self.label, left_out, " (a setting of the detector: export it anew)" if self.detector else "")

    def _draw(self, folder: Path, detections, lowest, masks) -> None:
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
        score = figures["draw_score"]
        least = f"at least {score:g}" if score != BEST_F1 else "at least their class's best F1"
        drawn = f"{figures['drawn']} of them drawn: those with a score of {least} (--draw-score)"
        tell(f"\n{figures['images']} images, {figures['detections']} detections, {drawn}")
        if BEST_F1 in (self.draw_score, self.annotation_score if self.annotations else None):
            known = self.settings().get(THRESHOLDS)
            tell(printable(source_text(known)) if known else f"{NO_THRESHOLDS}: the scores of --draw-score auto stand in")
        if self.annotations:
            tell(f"{figures['annotated']} detections as annotations for {', '.join(self.annotations)} (--annotation-score)")
        folders = f"voc/, {PICTURES}/{f', {ANNOTATIONS}/' if self.annotations else ''}"
        tell(printable(f"results: {artefact.folder}/ ({RESULT}, coco.json, coco.names.json, {folders})"))
        raise_if_failed(artefact, RESULT)
