"""The embedded data set: handwritten digits on photographs, made offline and deterministically as a VOC folder.

The digits are the 8 x 8 scans of `sklearn.datasets.load_digits` (UCI "Optical Recognition of Handwritten Digits"), drawn in
many sizes, colours and angles; the photographs are those that scikit-image, scikit-learn and matplotlib ship inside their
packages. The splits `train`, `val` and `test` share neither a photograph nor a scan, with any seed: settings are chosen on
`val`, and `test` is looked at once.

Beside boxes there are masks of classes and of instances, with a void border, and keypoints: the corners and the centre of the
digit's own frame, turned with it, and where the pen starts and ends. The frame is the square of its scan with a quarter of its
side around it; corners that lie outside the image are not labelled.

Boxes are tight around the visible ink and do not overlap. Of four images in a row (the first, fifth, ... on) one has 1 digit,
one 2, one 3 and one 4, and together they hold each of the ten classes once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import affine_transform, binary_dilation, gaussian_filter
from skimage.color import rgb2lab
from sklearn.datasets import load_digits

from pipeline.datasets.keypoints import FILE, Skeleton
from pipeline.datasets.masks import VOID
from pipeline.datasets.voc_writing import AnnotatedImage, write_split
from pipeline.errors import PipelineError
from pipeline.files.writing import write_file
from pipeline.images.reading import read_image
from pipeline.seeding import make_generator

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WIDTH, HEIGHT = 320, 240
MAX_DIGITS = 4
# Longer side of a digit's box, in pixels.
MIN_SIDE, MAX_SIDE = 36, 120
MAX_ANGLE = np.deg2rad(15)
# Pixels between a digit's box and the image's edge or another digit's box.
MARGIN = 3

# Package and file. Present in the wheels of these packages, unlike most of what `skimage.data` fetches from the network.
# Licences of those of `val`: gravel and retina are CC0, clock_motion and grace_hopper (US Navy) are in the public domain, ihc has
# no known restriction. NOTE: motorcycle_right is in no split, because it shows what motorcycle_left of `train` shows.
PHOTOGRAPHS = {
    "train": (
        ("skimage", "data/chelsea.png"), ("skimage", "data/coffee.png"), ("skimage", "data/motorcycle_left.png"),
        ("skimage", "data/camera.png"), ("skimage", "data/brick.png"), ("skimage", "data/moon.png"),
        ("skimage", "data/hubble_deep_field.jpg"), ("sklearn", "datasets/images/china.jpg"),
    ),
    "val": (
        ("skimage", "data/gravel.png"), ("skimage", "data/retina.jpg"), ("skimage", "data/ihc.png"),
        ("skimage", "data/clock_motion.png"), ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ),
    "test": (
        ("skimage", "data/astronaut.png"), ("skimage", "data/rocket.jpg"), ("skimage", "data/coins.png"),
        ("skimage", "data/grass.png"), ("sklearn", "datasets/images/flower.jpg"),
    ),
}
# A background is a window of a photograph: at least this part of the largest one of its shape.
MIN_WINDOW = 0.6
# Which of the 1797 scans belong to each split. `val` has at least 17 of each digit.
SCANS = {"train": range(1000), "val": range(1000, 1200), "test": range(1200, 1797)}
# Width of a scan, and the grey value (of 0 to 16) from which on a pixel is ink.
SCAN_SIDE, INK = 8, 8
# Fainter ink is left out, so that a box does not depend on ink that nobody sees.
MIN_OPACITY = 0.25
# From this opacity on a pixel belongs to the digit; what is fainter, and the pixels beside the ink, are void.
OWN_OPACITY = 0.5
# The frame's edges join its corners.
SKELETON = Skeleton(
    ("upper_left", "upper_right", "lower_right", "lower_left", "centre", "start", "end"),
    limbs=((0, 1), (1, 2), (2, 3), (3, 0)), flip_pairs=((0, 1), (3, 2)),
)
FRAME_SIDE = 1.5 * SCAN_SIDE  # in scan pixels. A frame close around the ink would say little more than the box
# x, y of the keypoints, from the frame's centre, in sides of the frame.
FRAME = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [0, 0]])
# Where the pen starts and ends in each digit, x and y in sides of the ink's box, upright: our convention. The keypoints are the
# ink next to it.
STROKES = np.array([
    [[0.6, 0], [0.6, 0]], [[0.5, 0], [0.5, 1]], [[0, 0.2], [1, 1]], [[0, 0.1], [0, 0.9]], [[0.4, 0], [0.6, 1]],
    [[1, 0], [0, 0.9]], [[0.8, 0], [0.3, 0.6]], [[0, 0], [0.4, 1]], [[0.8, 0.1], [0.8, 0.1]], [[0.9, 0.2], [0.3, 1]],
])
# CIELAB distance of a digit's colour from nine tenths of the background that it is drawn on.
MIN_CONTRAST = 45
COLOURS_TRIED, PLACES_TRIED = 16, 40


def make_digits(
    root: Path, train_images: int = 200, test_images: int = 100, seed: int = 0, *, val_images: int = 100, most: int = MAX_DIGITS,
) -> None:
    """Writes the splits `train`, `val` and `test` of the data set to the VOC folder `root`, in about 15 ms an image.

    An image has up to `most` digits. With fewer images it is a miniature: the first ones of the full set. Raises PipelineError
    for numbers below 1.
    """
    objects: list[dict] = []
    for split, count in (("train", train_images), ("val", val_images), ("test", test_images)):
        if count < 1:
            raise PipelineError(f"digits: {count} {split} images asked for; expected 1 or more")
        write_split(root, split, _noting_keypoints(make_images(split, count, seed, most=most), objects))
    write_file(Path(root) / FILE, json.dumps({**SKELETON.to_json(), "objects": objects}) + "\n")


def _noting_keypoints(images: Iterator[AnnotatedImage], objects: list[dict]) -> Iterator[AnnotatedImage]:
    """The images; adds the keypoints of their digits to `objects`, as `keypoints.json` has them."""
    for image in images:
        assert image.keypoints is not None
        rounded = np.round(image.keypoints, 2).tolist()
        objects += ({"image": image.id, "object": place, "keypoints": points} for place, points in enumerate(rounded))
        yield image


def make_images(split: str, count: int, seed: int, *, most: int = MAX_DIGITS) -> Iterator[AnnotatedImage]:
    """The first `count` images of `split`, one at a time, of up to `most` digits each."""
    photographs = _deal(make_generator(seed, "digits", split, "photographs"), PHOTOGRAPHS[split])
    numbers = _deal(make_generator(seed, "digits", split, "numbers"), range(1, most + 1))
    labels = _deal(make_generator(seed, "digits", split, "labels"), range(len(CLASSES)))
    scans = [
        _deal(make_generator(seed, "digits", split, name), scan_indices(split, label)) for label, name in enumerate(CLASSES)
    ]
    for index in range(count):
        id = f"{split}{index:05d}"
        rng = make_generator(seed, "digits", id)
        background = _draw_background(_load_photograph(*next(photographs)), rng)
        chosen = [next(labels) for _ in range(next(numbers))]
        drawing = _draw_digits(background, [(_load_scans()[0][next(scans[label])], label) for label in chosen], rng)
        yield AnnotatedImage(
            id, drawing.pixels, drawing.boxes, [CLASSES[label] for label in chosen], [False] * len(chosen),
            keypoints=drawing.keypoints, class_mask=_class_mask(drawing.instances, chosen), instance_mask=drawing.instances,
        )


@cache
def _load_scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans, float64 [1797 x 8 x 8] from 0 (paper) to 16 (ink), and their digits [1797]."""
    data = load_digits()
    return data.images, data.target


def scan_indices(split: str, label: int) -> np.ndarray:
    """Which scans of the digit `label` belong to `split`."""
    own = SCANS[split]
    return own.start + np.flatnonzero(_load_scans()[1][own.start:own.stop] == label)


@cache
def _load_photograph(package: str, name: str) -> np.ndarray:
    return read_image(Path(str(files(package) / name)))


def _deal(rng: np.random.Generator, items: Sequence | np.ndarray) -> Iterator:
    """The items in rounds, without end: each round has all of them, in a new random order."""
    while True:
        for index in rng.permutation(len(items)):
            yield items[index]


def _draw_background(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random window of a photograph, perhaps mirrored: uint8 [HEIGHT x WIDTH x 3]."""
    height, width = photograph.shape[:2]
    scale = rng.uniform(MIN_WINDOW, 1) * min(width / WIDTH, height / HEIGHT)
    x, y = rng.uniform((0, 0), (width - scale * WIDTH, height - scale * HEIGHT))
    window = (x, y, x + scale * WIDTH, y + scale * HEIGHT)
    image = Image.fromarray(photograph).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=window)
    return np.asarray(ImageOps.mirror(image) if rng.random() < 0.5 else image)


@dataclass(frozen=True)
class Drawing:
    """An image with n digits: `pixels` uint8 [HEIGHT x WIDTH x 3], `boxes` [n x 4], `keypoints` [n x k x 3].

    `instances` uint8 [HEIGHT x WIDTH]: the number of the digit from 1 on, 0 for the background, VOID around the ink.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    instances: np.ndarray


def _draw_digits(background: np.ndarray, scans: list[tuple[np.ndarray, int]], rng: np.random.Generator) -> Drawing:
    """The image with all scans, each with its label, drawn on `background`."""
    while True:
        pixels, boxes, frames = background.astype(np.float64), np.empty((0, 4)), []
        instances = np.zeros(background.shape[:2], np.uint8)
        for number, (scan, label) in enumerate(scans, 1):
            cell, angle = rng.uniform(MIN_SIDE, MAX_SIDE) / SCAN_SIDE, rng.uniform(-MAX_ANGLE, MAX_ANGLE)
            opacity, frame = _draw_scan(scan, cell, angle)
            place = _find_place(opacity.shape, background, boxes, rng)
            # Where no room is left for the next digit, all are drawn again, so that every image gets its number of digits.
            if place is None or not MIN_SIDE <= max(opacity.shape) <= MAX_SIDE:
                break
            box, colour = place
            x1, y1, x2, y2 = box
            pixels[y1:y2, x1:x2] += opacity[..., None] * (colour - pixels[y1:y2, x1:x2])
            _mark_digit(instances, opacity, (x1, y1), number)
            boxes = np.vstack([boxes, box])
            points = np.vstack([frame, _stroke_ends(opacity, angle, label)])
            frames.append(points + np.array((x1, y1)))
        else:
            return Drawing(pixels.round().astype(np.uint8), boxes, _labelled(np.array(frames)), instances)


def _mark_digit(instances: np.ndarray, opacity: np.ndarray, corner: tuple[int, int], number: int) -> None:
    """Marks the digit `number`, drawn with its upper left pixel at `corner`.

    MARGIN keeps the void borders of two digits apart.
    """
    (x, y), (height, width) = corner, opacity.shape
    part = instances[y - 1:y + height + 1, x - 1:x + width + 1]
    around = binary_dilation(np.pad(opacity > 0, 1), np.ones((3, 3)))
    part[around] = VOID
    part[1:-1, 1:-1][opacity >= OWN_OPACITY] = number


def _class_mask(instances: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The mask of classes, from 1 on, of the mask of instances whose digits have these `labels`."""
    values = np.zeros(256, np.uint8)
    values[1:len(labels) + 1] = np.array(labels) + 1
    values[VOID] = VOID
    return values[instances]


def _labelled(points: np.ndarray) -> np.ndarray:
    """Keypoints [n x k x 3] of `points` [n x k x 2]: those in the image are labelled, the others 0, 0, 0."""
    inside = ((points >= 0) & (points <= (WIDTH, HEIGHT))).all(axis=-1, keepdims=True)
    return np.where(inside, np.concatenate([points, np.ones_like(inside)], axis=-1), 0)


def _draw_scan(scan: np.ndarray, cell: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """A scan [8 x 8] drawn with `cell` pixels a scan pixel and turned by `angle` (radians).

    Returns opacities in 0..1, cropped, and the keypoints of the scan's frame [k x 2] in pixels from their upper left corner.
    """
    padding = 2
    padded = np.pad(scan, padding)
    # Sharpened, because otherwise loops of 1 or 2 scan pixels fill up and faint strokes break.
    padded = 2 * padded - gaussian_filter(padded, sigma=1)
    side = int(np.ceil(cell * SCAN_SIDE * np.sqrt(2))) + 4
    turn = _rotation(angle) / cell
    centre = padding + (SCAN_SIDE - 1) / 2
    ink = affine_transform(padded, turn, centre - turn @ np.full(2, (side - 1) / 2), output_shape=(side, side), order=3)
    # A stroke's edge falls by about 2 INK a scan pixel, so opacity goes from 0 to 1 within about one pixel of the image.
    opacity = np.clip((ink - INK) * cell / (2 * INK) + 0.5, 0, 1)
    opacity[opacity < MIN_OPACITY] = 0
    rows, columns = np.flatnonzero(opacity.any(1)), np.flatnonzero(opacity.any(0))
    # `turn` maps (row, column) of the result to those of the scan. The centre of pixel 0 is at 0.5.
    frame = (np.linalg.inv(turn) @ (FRAME_SIDE * FRAME[:, ::-1]).T).T[:, ::-1] + side / 2 - (columns[0], rows[0])
    return opacity[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], frame


def _stroke_ends(opacity: np.ndarray, angle: float, label: int) -> np.ndarray:
    """Where the pen starts and ends in a digit that is drawn as `opacity`, turned by `angle`: x, y [2 x 2] in its pixels."""
    ink = np.argwhere(opacity >= OWN_OPACITY)
    upright = (ink @ _rotation(angle).T)[:, ::-1]
    first, last = upright.min(axis=0), upright.max(axis=0)
    wanted = first + STROKES[label] * (last - first)
    nearest = np.linalg.norm(upright - wanted[:, None], axis=2).argmin(axis=1)
    return ink[nearest][:, ::-1] + 0.5


def _rotation(angle: float) -> np.ndarray:
    """What turns (row, column) of a drawn digit to those of its scan."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _find_place(
    shape: tuple[int, int], background: np.ndarray, boxes: np.ndarray, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray] | None:
    """A box for a digit of `shape` clear of `boxes`, and an RGB colour that stands out there; None when tries run out."""
    height, width = shape
    for _ in range(PLACES_TRIED):
        x1, y1 = rng.integers(MARGIN, (WIDTH - MARGIN - width, HEIGHT - MARGIN - height), endpoint=True)
        box = np.array([x1, y1, x1 + width, y1 + height])
        clear = (box[:2] >= boxes[:, 2:] + MARGIN) | (box[2:] <= boxes[:, :2] - MARGIN)
        if not clear.any(axis=1).all():
            continue
        colours = rng.integers(0, 256, (COLOURS_TRIED, 3))
        good = _contrast(colours, background[y1:y1 + height:2, x1:x1 + width:2]) >= MIN_CONTRAST
        if good.any():
            return box, colours[good.argmax()]
    return None


def _contrast(colours: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """CIELAB distance [n] that nine tenths of the RGB `pixels` [... x 3] have at least from each of the `colours` [n x 3]."""
    distances = np.linalg.norm(rgb2lab(colours.astype(np.uint8))[:, None] - rgb2lab(pixels).reshape(1, -1, 3), axis=2)
    return np.quantile(distances, 0.1, axis=1)
