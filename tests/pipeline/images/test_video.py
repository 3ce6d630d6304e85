"""Frames of small videos that PyAV writes."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.images.video import AHEAD, Video, import_av

av = pytest.importorskip("av")
FRAMES = 70


def picture_of(number: int) -> np.ndarray:
    """Eight bars, which are white where the number has a bit: compression does not blur that."""
    bits = np.unpackbits(np.uint8([number]))
    return np.broadcast_to(255 * bits.repeat(8)[None, :, None], (48, 64, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A video whose frames show their numbers; every twelfth frame stands alone."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.thread_count = 1  # more make a longer file
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 12
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture_of(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def check(video, number):
    pixels = video.read(number)
    assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
    np.testing.assert_array_equal(pixels > 127, picture_of(number) > 127)


def test_frames_in_order_and_in_any_order(path):
    video = Video(path, "clip.mp4")
    assert len(video) == FRAMES
    for number in (0, 1, 2, 10, 9, 69, 3, 3, 0, AHEAD + 5, 68, 69):
        check(video, number)
    video.close()


def test_a_damaged_end_is_an_error_of_its_frames(path, tmp_path):
    """The first half can still be read."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    half = start + int.from_bytes(content[start - 8 : start - 4]) // 2  # the size of the frames stands before their name
    content[half : half + 400] = bytes(400)
    (tmp_path / "cut.mp4").write_bytes(content)
    video = Video(tmp_path / "cut.mp4", "cut.mp4")
    check(video, 5)
    errors = {}
    for number in range(FRAMES):
        try:
            video.read(number)
        except PipelineError as error:
            errors[number] = str(error)
    assert len(errors) < FRAMES - 12
    assert all(text.startswith(f"cut.mp4: frame {number} cannot be decoded") for number, text in errors.items())


def test_what_is_no_video_is_an_error(tmp_path, path):
    (tmp_path / "clip.mp4").write_text("no video")
    with pytest.raises(PipelineError, match=r"^clip\.mp4: not a video that can be read \("):
        Video(tmp_path / "clip.mp4", "clip.mp4")
    with pytest.raises(PipelineError, match=r"^clip\.mp4: frames of 64 x 48 pixels, more than --max-megapixels 0\.001$"):
        Video(path, "clip.mp4", max_megapixels=0.001)


def test_without_pyav_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(PipelineError, match=r"^videos need the package av .*; pip install 'rcnn-pipeline\[video\]'$"):
        import_av()
