"""Label maps of the user's own images, by a segmenter that this run trains or that was exported before."""

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.text import printable
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.photographs.base import PhotographTask, failed_entry, raise_if_failed
from tasks.photographs.index import IndexImages, picture_names
from tasks.segmentation.export import SETTINGS, ExportSegmenter

RESULT, IMAGES = "segmentations.json", "images.json"
LABELS, PICTURES = "labels", "pictures"


@parameters.inherits(IndexImages, ExportSegmenter)
class SegmentPhotographs(PhotographTask):
    """Label maps of the user's images: palette PNGs, pictures with the classes' colours, and the pixels of each class as JSON.

    An unusable image is no failure of the stage: this depends only on its content, which is in the key. The artefact is complete
    and names the image and the reason.
    """

    resolved = (*PhotographTask.resolved, "segmenter")

    segmenter = parameters.text(
        "", "segmentation", "segmenter",
        "folder made by ExportSegmenter, used instead of --segment-method; empty: the segmenter of that method",
    )

    def upstream(self) -> dict[str, CachedTask]:
        return {} if self.segmenter else {"segmenter": self.clone(ExportSegmenter)}

    def resolve(self) -> dict:
        digests = {}
        if self.max_megapixels != MAX_MEGAPIXELS:
            digests["max_megapixels"] = self.max_megapixels
        if self.segmenter:
            digests["segmenter"] = self.folder_digests("--segmenter", self.segmenter, SETTINGS, ExportSegmenter.stage)
        return digests

    @property
    def folder(self) -> Path:
        """The folder of the segmenter."""
        return Path(self.segmenter).expanduser() if self.segmenter else self.inputs()["segmenter"].check()

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.datasets.masks import write_mask
        from pipeline.prefetch import prefetch
        from pipeline.segmentation.drawing import pixel_counts
        from pipeline.segmenter import Segmenter

        segmenter, entries = Segmenter.load(self.folder, self.device, self.num_threads), []
        pixels = self.progress()(prefetch(map(self.read, split.images)), len(split.images))
        (workshop.files / LABELS).mkdir()
        for number, (record, image) in enumerate(zip(split.images, pixels, strict=True)):
            if isinstance(image, PipelineError):
                entries.append(failed_entry(record, image))
                continue
            labels, file = segmenter.segment(image), f"{LABELS}/{number}.png"
            write_mask(workshop.files / file, labels)
            counts = {"width": image.shape[1], "height": image.shape[0], "pixels": pixel_counts(labels, segmenter.names)}
            entries.append({"image": record.id, "labels": file, **counts})
        workshop.write(IMAGES, canonical_json(entries) + "\n")
        return {"images": len(entries), "failed": sum("error" in entry for entry in entries)}

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        from pipeline.segmenter_folder import read_settings

        entries = [(shard, entry) for shard in shards for entry in shard.json(IMAGES)]
        usable = [(shard, entry) for shard, entry in entries if "error" not in entry]
        names = picture_names([entry["image"] for _, entry in usable])
        self._write_pictures(workshop, usable, names)
        result = {
            "classes": read_settings(self.folder)["names"], "failed": [entry for _, entry in entries if "error" in entry],
            "images": [{**entry, "labels": f"{LABELS}/{name}.png", "picture": f"{PICTURES}/{name}"}
                       for (_, entry), name in zip(usable, names, strict=True)],
        }
        workshop.write(RESULT, canonical_json(result) + "\n")
        return {}

    def _write_pictures(self, workshop: Workshop, usable: list[tuple[Artefact, dict]], names: list[str]) -> None:
        """Writes the label map and the picture of each usable image, given as its shard and its entry, under its name."""
        from pipeline.datasets.label_names import is_background
        from pipeline.datasets.masks import decode_mask
        from pipeline.files.writing import copy_file, write_image
        from pipeline.prefetch import prefetch
        from pipeline.segmentation.drawing import overlay
        from pipeline.segmenter_folder import read_settings

        has_background = is_background(read_settings(self.folder)["names"][0])
        records = {record.id: record for record in self.load_split().images}
        pixels = prefetch(self.read(records[entry["image"]]) for _, entry in usable)
        for number, image in enumerate(self.progress("picture")(pixels, len(usable))):
            (shard, entry), name = usable[number], names[number]
            source, picture = shard.path(entry["labels"]), workshop.files / PICTURES / name
            labels = workshop.files / LABELS / f"{name}.png"
            for path in labels, picture:
                path.parent.mkdir(parents=True, exist_ok=True)
            copy_file(source, labels)
            write_image(picture, overlay(image, decode_mask(source, source.read_bytes()), has_background), quality=95)

    def show(self) -> None:
        """Prints where the results are. Raises PipelineError when an image cannot be used."""
        artefact, total = self.artefact, self.artefact.manifest["figures"]["images"]
        tell(f"\n{total} images")
        tell(printable(f"results: {artefact.folder}/ ({RESULT}, {LABELS}/, {PICTURES}/)"))
        raise_if_failed(artefact, RESULT)
