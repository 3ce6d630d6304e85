"""PhotographTask: a stage that works on the user's own images, one by one."""

from pipeline.errors import PipelineError
from tasks.data.sharded import ShardedTask
from tasks.engine.digests import MISSING
from tasks.photographs.index import IRREGULAR, IndexImages

PHOTOGRAPH = "photograph"  # replaces the path in messages that go into results, so that results contain no path


class PhotographTask(ShardedTask):
    """A stage over the images of `IndexImages`, whose parameters a subclass inherits."""

    def index_task(self) -> IndexImages:
        return self.clone(IndexImages)

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
