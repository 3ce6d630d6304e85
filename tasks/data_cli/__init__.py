"""`rcnn-data`: converts a data set into another format, and describes what is in one.

It reads the same folders by the same rules as a run does, and changes nothing in them.
"""

import argparse
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.text import printable
from tasks.tools import run_tool

FORMATS = ("voc", "coco", "yolo")


def main(arguments: list[str] | None = None, program: str = "rcnn-data") -> int:
    """The command line. Returns the exit status: 2 for a wrong request or a faulty data set."""
    options = make_parser(program).parse_args(arguments)
    # A folder that is half written is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return run_tool(program, lambda: options.command(options))


def make_parser(program: str = "rcnn-data") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    text = "writes a data set into a new folder, in another format; what the format cannot hold is counted"
    converting = commands.add_parser("convert", help=text, description=text)
    converting.set_defaults(command=_convert)
    converting.add_argument("source", metavar="SRC", type=Path, help="folder in VOC's, COCO's or YOLO's layout")
    converting.add_argument("target", metavar="DST", type=Path, help="new folder; one that exists is never touched")
    converting.add_argument("--to", choices=FORMATS, required=True, help="format to write")
    converting.add_argument("--link", action="store_true", help="images and masks become symbolic links to those in SRC")
    text = "counts objects, sizes and duplicates, and measures how well anchors and cached proposals fit"
    describing = commands.add_parser("describe", help=text, description=text)
    describing.set_defaults(command=_describe)
    describing.add_argument("source", metavar="FOLDER", type=Path, help="folder in VOC's, COCO's or YOLO's layout")
    describing.add_argument("--output", metavar="DIR", type=Path, help="new folder for describe.json, table.txt, describe.html")
    describing.add_argument("--json", action="store_true", help="print JSON instead of tables")
    describing.add_argument("--cache-dir", type=Path, default=Path("cache"),
                            help="folder of the cache, to look for proposals in (default: cache)")
    describing.add_argument("--fast-scale", type=int, default=600, help="shorter side of images for the anchors (default: 600)")
    describing.add_argument("--anchor-scales", type=_numbers, default=(8.0, 16.0, 32.0),
                            help="sides of anchors in units of 16 pixels (default: 8,16,32)")
    describing.add_argument("--anchor-ratios", type=_numbers, default=(0.5, 1.0, 2.0),
                            help="heights of anchors divided by their widths (default: 0.5,1,2)")
    for command in (converting, describing):
        _add_rules(command)
    return parser


def _add_rules(parser: argparse.ArgumentParser) -> None:
    """The settings of `IndexDataset` that say how files are read."""
    parser.add_argument("--splits", type=_names, default=(), help="splits, separated by commas; all if not given")
    parser.add_argument("--classes", type=_names, default=(), help="classes, in this order; objects of others are left out")
    parser.add_argument("--on-bad-annotation", choices=("error", "clip", "drop"), default="error",
                        help="an object that cannot be right: an error, cut to its image, or left out")
    parser.add_argument("--exif", choices=("error", "upright", "stored"), default="error",
                        help="images with a mark of rotation: an error, or boxes count the turned or the stored pixels")
    parser.add_argument("--voc-first-pixel", type=int, choices=(1, 0), default=1, help="what VOC's corners count from")
    parser.add_argument("--max-megapixels", type=float, default=MAX_MEGAPIXELS, help="largest image, in millions of pixels")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in _names(text))
    if not numbers or not all(0.01 <= number <= 1000 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers from 0.01 to 1000, separated by commas")
    return numbers


def _reading(options: argparse.Namespace) -> dict:
    names = ("splits", "classes", "on_bad_annotation", "exif", "voc_first_pixel", "max_megapixels")
    return {name: getattr(options, name) for name in names} | {"progress": _progress}


def _progress(items: Sequence, title: str) -> Iterable:
    """The items, with a bar on a terminal."""
    from tqdm import tqdm

    return tqdm(items, title, leave=False, disable=None)


def _convert(options: argparse.Namespace) -> int:
    from pipeline.conversion.convert import convert
    from tasks.data_cli.text import conversion_lines

    converted = convert(options.source, options.target, options.to, link=options.link, **_reading(options))
    for line in conversion_lines(converted, options.target, options.to):
        print(printable(line))
    return 0


def _describe(options: argparse.Namespace) -> int:
    from pipeline.description.fit import AnchorSet
    from tasks.data_cli.describe import describe

    if options.fast_scale < 1:
        raise PipelineError(f"--fast-scale {options.fast_scale}: expected a number of pixels")
    longest = options.fast_scale * 5 // 3  # as `ImageScale.sides`
    anchors = AnchorSet(options.fast_scale, longest, options.anchor_scales, options.anchor_ratios)
    given = {"anchors": anchors, "as_json": options.json, **_reading(options)}
    return describe(options.source, options.output, options.cache_dir, **given)
