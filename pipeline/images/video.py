"""Frames of a video file, through PyAV (FFmpeg)."""

from bisect import bisect_left
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.text import flat

AHEAD = 60  # frames: a frame up to so much later is decoded to, a later one is jumped to


def import_av():
    """PyAV. Raises PipelineError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise PipelineError(f"videos need the package av ({error}); pip install 'rcnn-pipeline[video]'") from error
    return av


class Video:
    """The frames of the video at `path` in the order in which they are shown. `name` stands for it in messages.

    Only frames that are asked for one after the other are quick to read.
    """

    def __init__(self, path: Path, name: str, max_megapixels: float = MAX_MEGAPIXELS):
        """Reads when each frame is shown, and decodes none. Raises PipelineError for a file that is no video."""
        self._av, self.name = import_av(), name
        try:
            with self._av.open(str(path)) as container:
                stream = container.streams.video[0]
                packets = [packet for packet in container.demux(stream) if packet.pts is not None]
            self.times = sorted({packet.pts for packet in packets})
            self._container = self._av.open(str(path))
        except (self._av.FFmpegError, OSError, IndexError) as error:
            raise PipelineError(f"{name}: not a video that can be read ({flat(error)})") from error
        self._stream = self._container.streams.video[0]
        if self._stream.width * self._stream.height > max_megapixels * 1e6:
            size = f"{self._stream.width} x {self._stream.height}"
            raise PipelineError(f"{name}: frames of {size} pixels, more than --max-megapixels {max_megapixels:g}")
        self._frames, self._place = self._container.decode(self._stream), -1  # the number of the frame before the next one

    def __len__(self) -> int:
        return len(self.times)

    def read(self, number: int) -> np.ndarray:
        """Frame `number` from 0, uint8 RGB [height x width x 3], turned as the file says. A damaged one is a PipelineError."""
        wanted = self.times[number]
        try:
            if not 0 <= number - self._place - 1 <= AHEAD:
                self._container.seek(wanted, stream=self._stream)
                self._frames = self._container.decode(self._stream)
            for frame in self._frames:
                if frame.pts is not None and frame.pts >= wanted:
                    self._place = bisect_left(self.times, frame.pts)
                    if frame.pts == wanted:
                        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
                    break
            self._place = len(self.times)  # the next frame is jumped to
        except self._av.FFmpegError as error:
            self._place = len(self.times)
            raise PipelineError(f"{self.name}: frame {number} cannot be decoded ({flat(error)})") from error
        raise PipelineError(f"{self.name}: frame {number} cannot be decoded")

    def close(self) -> None:
        self._container.close()
