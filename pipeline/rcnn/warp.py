"""R-CNN's crops: each region, with some context around it, warped to the fixed square that the network takes.

Girshick et al. 2014, section 2.1 and appendix A, step by step as `rcnn_im_crop.m` of rbgirshick/rcnn does it: enlarge the box
about its centre so that `padding` pixels of context remain on each side of the crop, round, clip to the image, resize what is
left bilinearly without antialiasing, and leave 0, the mean colour, where the enlarged box reaches out of the image.

NOTE: the release subtracts the pixels of a mean image, we one mean colour; torchvision's backbones expect that.

Shape shorthand: N boxes; S side of a crop in pixels; H, W height and width of the image. Pairs are (x, y).
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.boxes import to_inclusive
from pipeline.errors import PipelineError
from pipeline.images.resampling import resample

CONTEXT_PADDING = 16  # Pixels of context in the crop: section 2.1 and appendix A (p = 16)
RELEASE_CROP = 227  # Side of CaffeNet's input
MAX_COORDINATE = 2.0**31  # Beyond every image; below it float64 counts half pixels exactly

CropMode = Literal["warp", "square"]


def crop_padding(padding: int, crop_size: int) -> int:
    """The context padding for crops of `crop_size` that is `padding` pixels in the release's crops of 227 x 227."""
    return round(padding * crop_size / RELEASE_CROP)


class CropGeometry(NamedTuple):
    """Where each crop comes from and where it lands; all int64. A crop that sees nothing of the image has zeros throughout."""

    window: np.ndarray  # [N x 4] pixels of the image that are resized, 0-based, x2 and y2 exclusive, inside the image
    offset: np.ndarray  # [N x 2] column and row of the crop where the resized window starts
    size: np.ndarray  # [N x 2] width and height to which the window is resized


def crop_geometry(
    boxes: np.ndarray, height: int | np.ndarray, width: int | np.ndarray, crop_size: int,
    padding: int = CONTEXT_PADDING, *, mode: CropMode = "warp",
) -> CropGeometry:
    """The integers of `rcnn_im_crop.m` for `boxes` [N x 4] in an image of `height` x `width` pixels, or in one each [N].

    `padding` is in pixels of the crop. Mode "warp" changes the box's aspect ratio; "square" first widens the shorter side to the
    longer one ("tightest square with context", appendix A).

    NOTE: mode "warp" with padding 0 fails in the release on a box that is fractional or partly outside its image. Here it is
    rounded (to one pixel at least), clipped and padded as all others. So is a box of which the crop sees nothing: its crop is 0.

    Raises PipelineError on a box without area or with coordinates that are not finite, a padding that leaves no room for the box,
    and an unknown mode.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    _check(boxes, crop_size, padding, mode)
    # 1-based inclusive corners, as in the release: rounding half away from zero depends on where zero is.
    first, last = np.split(to_inclusive(boxes, first=1), 2, axis=1)
    if padding > 0 or mode == "square":
        half = (last - first + 1) / 2
        # The middle of an inclusive box lies half a pixel before this. Hence the window is a pixel wider than scale * width.
        centre = first + half
        if mode == "square":
            half = half.max(axis=1, keepdims=True)
        half = half * (crop_size / (crop_size - 2 * padding))
        first, last = centre - half, centre + half
    first = _round_half_away(first)
    last = np.maximum(_round_half_away(last), first)

    clipped_first, clipped_last = np.maximum(first, 1), np.minimum(last, np.stack([width, height], axis=-1))
    scale = crop_size / (last - first + 1)
    offset = _round_half_away((clipped_first - first) * scale)
    size = np.minimum(_round_half_away((clipped_last - clipped_first + 1) * scale), crop_size - offset)
    geometry = np.concatenate([clipped_first - 1, clipped_last, offset, size], axis=1)
    geometry[(size < 1).any(axis=1)] = 0
    return CropGeometry(*np.split(geometry.astype(np.int64), [4, 6], axis=1))


def warp(
    image: np.ndarray, boxes: np.ndarray, out: np.ndarray, mean: ArrayLike, std: ArrayLike, *,
    padding: int = CONTEXT_PADDING, mode: CropMode = "warp", mirror: bool | np.ndarray = False,
) -> None:
    """Write the normalised crops of `boxes` [N x 4] from `image` (uint8 RGB [H x W x 3]) into `out` (float32 [N x S x S x 3]).

    A pixel becomes (value - mean) / std, with `mean` and `std` [3] in grey levels (0..255); outside the image it is 0. `mirror`,
    one value or one a box [N], flips the finished crop from left to right. `out` is a contiguous part of a batch, so that several
    images fill one batch; torch sees it as channels_last without a copy. Runs without the GIL: threads may fill parts of a batch
    side by side, and the bytes do not depend on them.

    Resampling: `resample`; what lies outside the window is never read.
    NOTE: the release's fine-tuning (Caffe's WindowDataLayer) rounds the resized pixels to whole grey levels; we never do.

    Raises PipelineError as `crop_geometry`.
    """
    if out.dtype != np.float32 or out.shape != (len(boxes), *out.shape[1:2] * 2, 3) or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, expected contiguous float32 [{len(boxes)} x S x S x 3]")
    height, width = image.shape[:2]
    geometry = crop_geometry(boxes, height, width, out.shape[1], padding, mode=mode)
    resample(image, geometry, np.full(len(boxes), mirror), out, mean=mean, std=std)


def _check(boxes: np.ndarray, crop_size: int, padding: int, mode: str) -> None:
    if mode not in ("warp", "square"):
        raise PipelineError(f"crop mode '{mode}' is unknown; use 'warp' or 'square'")
    if not 0 <= 2 * padding < crop_size:
        limit = (crop_size - 1) // 2
        raise PipelineError(f"context padding {padding} does not fit a crop of {crop_size} pixels; use 0 to {limit}")
    good = (boxes[:, :2] < boxes[:, 2:]).all(axis=1) & (np.abs(boxes) < MAX_COORDINATE).all(axis=1)
    if not good.all():
        index = int(np.argmin(good))
        raise PipelineError(
            f"box {index} is {tuple(boxes[index].tolist())}; expected finite x1 < x2 and y1 < y2 in pixels; correct or drop it"
        )


def _round_half_away(values: np.ndarray) -> np.ndarray:
    """MATLAB's `round`: -0.5 to -1, 0.5 to 1, 2.5 to 3. NumPy's rounds halves to even."""
    # floor(x + 0.5) would lift the largest float below 0.5 to 1; the fraction of x is exact.
    magnitude = np.abs(values)
    whole = np.floor(magnitude)
    return np.copysign(whole + (magnitude - whole >= 0.5), values)
