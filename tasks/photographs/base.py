"""PhotographTask: a stage that works on the user's own images, one by one, and what such stages share."""

from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from tasks.data.sharded import ShardedTask
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import MISSING
from tasks.photographs.index import IRREGULAR, IndexImages, frame_digest, frame_number

PHOTOGRAPH = "photograph"  # replaces the path in messages that go into results, so that results contain no path


class PhotographTask(ShardedTask):
    """A stage over the images of `IndexImages`, whose parameters a subclass inherits."""

    _video: tuple[Path, Any] | None = None  # the video that is open, and its path

    def index_task(self) -> IndexImages:
        return self.clone(IndexImages)

    def folder_digests(self, option: str, folder: str, settings: str, maker: str) -> dict[str, str]:
        """The digests, by name, of the files in a model's folder, which the user gave as `option`.

        Raises PipelineError if it has no file `settings`; `maker` is the stage that makes such folders.
        """
        place = Path(folder).expanduser()
        files = [path for path in place.glob("*") if path.suffix in (".npz", ".safetensors") or path.name == settings]
        if place / settings not in files:
            raise PipelineError(f"{option} {folder}: found no {settings}; give a folder that {maker} made")
        return {path.name: digest for path, digest in self.digest_memory.of(files).items()}

    def record_key(self, split, record) -> dict:
        return {"id": record.id, "digest": record.digest}

    def read(self, record):
        """The pixels of an image. Returns (does not raise) a PipelineError if the file is not a usable image."""
        from pipeline.images.reading import decode_photograph, read_content

        path = self.index_task().files[record.path]
        if record.digest == MISSING:
            return PipelineError(f"{PHOTOGRAPH}: cannot be read; see that it is there and may be read")
        if record.digest == IRREGULAR:
            what = "a named pipe, a device, or a link to one, which is not read"
            return PipelineError(f"{PHOTOGRAPH}: {what}; put a file in its place")
        if self.index_task().has_frames(record.path):
            return self._read_frame(record, path)
        content = read_content(path, record.digest)
        try:
            return decode_photograph(PHOTOGRAPH, content, self.max_megapixels)
        except PipelineError as error:
            return error

    def _read_frame(self, record, path: Path):
        """The pixels of a frame, or a PipelineError. The video stays open for the next frame."""
        from pipeline.images.reading import ChangedFile
        from pipeline.images.video import Video, import_av

        import_av()
        digest = self.digest_memory.of([path])[path]
        if record.digest not in (digest, frame_digest(digest, frame_number(record.id))):
            raise ChangedFile(path, f"{path}: changed since it was indexed; run again, so that it is indexed anew")
        try:
            if self._video is None or self._video[0] != path:
                self._video = path, Video(path, PHOTOGRAPH, self.max_megapixels)
            return self._video[1].read(frame_number(record.id))
        except PipelineError as error:
            return error


def failed_entry(record, error: PipelineError) -> dict:
    """What the results say of an image that cannot be used."""
    return {"image": record.id, "error": str(error).removeprefix(f"{PHOTOGRAPH}: ")}


def raise_if_failed(artefact: Artefact, result: str) -> None:
    """Raises PipelineError, naming them, if images could not be used: `failed` in the file `result`."""
    if failed := artefact.json(result)["failed"]:
        total = artefact.manifest["figures"]["images"]
        summary = f"{len(failed)} of {total} images cannot be used; the results cover the other images"
        raise PipelineError(f"{summary}:", *(f"{image['image']}: {image['error']}" for image in failed))
