"""What the report says, section by section, gathered from artefacts: numbers, texts and pictures for the page's template."""

import math

from pipeline.errors import PipelineError
from tasks.data.splits import load_split
from tasks.detection import DETECTIONS
from tasks.engine.artefacts import Artefact
from tasks.evaluation.results import SUMMARY
from tasks.evaluation.summary import PUBLISHED, SCOPE, published_times, times
from tasks.features.stores import open_features
from tasks.proposals.quality import QUALITY
from tasks.proposals.regions import method_name
from tasks.rcnn import load_models
from tasks.report.run import run, training

UNITS, NEGATIVES = "units.json", "negatives.json"
TITLES = {"rcnn": "R-CNN", "spp-net": "SPP-net", "fast-rcnn": "Fast R-CNN", "faster-rcnn": "Faster R-CNN"}
IMAGE_MEGABYTES = 64
PHOTO, THUMBNAIL, CROP = 560, 96, 96  # pixels: longest sides
DRAWN_PROPOSALS, STRIP, MOVED = 100, 12, 8


def sections(report, lineage: list[Artefact]) -> dict:
    """The sections of the page of the `Report` task; `lineage` are all artefacts behind it."""
    from pipeline.images.reading import ImageCache
    from pipeline.report.gallery import Album

    inputs = report.inputs()
    train, test = load_split(inputs["train"]), load_split(inputs["test"])
    summary = inputs["summary"].json(SUMMARY)
    evaluated = report.summary().inputs()
    readers = {name: ImageCache(report.requires()[name].root, IMAGE_MEGABYTES).read for name in ("train", "test")}
    evaluations = {chain: evaluated[f"evaluate {chain}"].json("evaluation.json") for chain in report.chains}
    errors = {chain: evaluated[f"evaluate {chain}"].json("errors.json") for chain in report.chains}
    album, matches = Album(readers["test"], PHOTO), _matches(report, test)
    return {
        "dataset": summary["dataset"], "splits": (train, test), "titles": {chain: TITLES[chain] for chain in report.chains},
        "backbone": report.backbone, "results": results({chain: summary["chains"][chain] for chain in report.chains}),
        "classes": classes(evaluations, test.classes),
        "errors": mistakes(errors), "galleries": galleries(matches, test, album, report.report_images),
        "story": story(report, matches["rcnn"], test, album) if "rcnn" in report.chains else None,
        "units": units(inputs["units"], report.backbone, test, readers["test"]) if "units" in inputs else None,
        "negatives": negatives(inputs["negatives"], train, readers["train"]) if "negatives" in inputs else None,
        "proposals": proposals(report), "training": training(lineage), "run": run(report, lineage), "album": album,
    }


def _matches(report, test) -> dict:
    from pipeline.detection.detections import Detections
    from pipeline.evaluation.voc_ap import match_detections

    found = {chain: Detections.load(report.detection(chain).artefact.path(DETECTIONS)) for chain in report.chains}
    return {chain: match_detections(one, test.images, test.classes, report.iou_threshold) for chain, one in found.items()}


def results(chains: dict[str, dict]) -> dict:
    """The comparison of the chains, each figure beside the published one."""
    from pipeline.report.plots import bars

    rows, base = [], chains.get("rcnn")
    for chain, values in chains.items():
        published = published_times(chain)
        ratios = [
            (mine / own, one / other if other else None)
            for mine, own, one, other in zip(times(base), times(values), published_times("rcnn"), published)
        ] if base else []
        rows.append({
            "title": TITLES[chain], "map": values["map"], "interval": values["interval_95"]["mean"], "times": times(values),
            "published": published, "published_map": PUBLISHED[chain][-1] / 100, "ratios": ratios,
        })
    ends = {TITLES[chain]: [end and 100 * end for end in values["interval_95"]["mean"]] for chain, values in chains.items()}
    maps = {TITLES[chain]: values["map"] and 100 * values["map"] for chain, values in chains.items()}
    pictures = [("mean average precision", bars(maps, "mAP in percent, with 95 % intervals", ends))]
    labels = "training, seconds", "detection, seconds an image", "detection with proposals, seconds an image"
    for place, label in enumerate(labels):
        values = {TITLES[chain]: times(one)[place] for chain, one in chains.items()}
        pictures.append((label, bars(values, f"{label} (logarithmic)", log=True)))
    return {"rows": rows, "pictures": pictures, "scope": SCOPE, "compared": base is not None and len(chains) > 1}


def classes(evaluations: dict[str, dict], names: tuple[str, ...]) -> dict:
    """Average precision of each class, and its curves."""
    from pipeline.report.plots import curves

    rows = [(name, next(iter(evaluations.values()))["classes"][name]["num_positives"],
             [(one["classes"][name]["ap_07"], one["interval_07"][name]) for one in evaluations.values()]) for name in names]
    mean = [(one["map_07"], one["interval_07"]["mean"]) for one in evaluations.values()]
    pictures = []
    for place, name in enumerate(names):
        found = {chain: one["classes"][name] for chain, one in evaluations.items()}
        lines = {TITLES[chain]: (one["recall"], one["precision"]) for chain, one in found.items()}
        settings = {"legend": not place, "marker": ".", "xlim": (0, 1), "ylim": (0, 1.02)}
        pictures.append((name, curves(lines, name, "recall", "precision", **settings)))
    return {"rows": rows, "mean": mean, "pictures": pictures}


def mistakes(errors: dict[str, dict]) -> dict:
    """What the best detections of each chain are, and how many objects it misses by their size."""
    from pipeline.evaluation.errors import KINDS, SIZES
    from pipeline.report.plots import WIDE, curves, stacked

    kinds, misses, missed = {}, {}, {}
    for chain, found in errors.items():
        of_classes = list(found["classes"].values())
        total = {"correct": sum(one["true_positives"] for one in of_classes)}
        for kind in KINDS:
            total[kind] = sum(one["false_positives"][kind] for one in of_classes)
        kinds[TITLES[chain]] = total
        sizes = {size: [sum(one[what][size] for one in of_classes) for what in ("found", "objects")]
                 for size in SIZES}
        missed[TITLES[chain]] = {size: (objects - one, objects) for size, (one, objects) in sizes.items()}
        shares = [100 * (1 - one / objects) if objects else math.nan for one, objects in sizes.values()]
        misses[TITLES[chain]] = (range(len(sizes)), shares)
    shares = {title: {kind: 100 * value / max(1, sum(total.values())) for kind, value in total.items()}
              for title, total in kinds.items()}
    return {
        "kinds": kinds, "missed": missed, "similar": next(iter(errors.values()))["similar"],
        "kinds_picture": stacked(shares, "percent of the best detections, as many as there are objects"),
        "sizes_picture": curves(
            misses, "", "size of the object among those of its class", "missed, percent", size=WIDE, ylim=(0, 100),
            xticks=range(len(SIZES)), xticklabels=SIZES,
        ),
    }


def galleries(matches: dict, test, album, number: int) -> list[dict]:
    """Test images with what each chain finds in them."""
    from pipeline.report.gallery import choose_images, marks_of, operating_points

    found = []
    for chain, one in matches.items():
        points = operating_points(one)
        chosen = choose_images(one, number)
        shown = [(album.add(test.images[image]), marks_of(one, test.images, image, points)) for image in chosen]
        found.append({"chain": chain, "title": TITLES[chain], "shown": shown})
    return found


def story(report, matches, test, album) -> dict:
    """One image's way through R-CNN, from the cached features of the test split."""
    from pipeline.detection.candidates import Limits
    from pipeline.report.embedding import jpeg_uri, png_uri
    from pipeline.report.gallery import marks_of, operating_points
    from pipeline.report.story import choose_image, segmentation_mode, segmentation_picture, tell_story, warped_crops

    points = operating_points(matches)
    number = _image_number(report.report_image, test) if report.report_image else choose_image(matches, points)
    record, inputs = test.images[number], report.detection("rcnn").inputs()
    rows = open_features(inputs["features"]).read(number)
    pool5 = open_features(inputs["pool5"]).read(number).features if "pool5" in inputs else rows.features
    size, limits = (record.height, record.width), Limits(report.max_per_image, report.nms_threshold)
    told = tell_story(rows, pool5, size, load_models(inputs), limits, strip=STRIP, best=MOVED)
    method = method_name(report)
    pixels, mode = album.read(record), segmentation_mode(method)
    crop_size = _backbone(report.backbone).crop_size
    crops = warped_crops(pixels, [region.box for region in told.strip], crop_size, report.context_padding)
    candidates = told.candidates
    return {
        "picture": album.add(record), "chosen": bool(report.report_image), "mode": mode, "method": method,
        "segmentation": png_uri(segmentation_picture(pixels, mode, report.image_width or None)),
        "first": told.proposals[:DRAWN_PROPOSALS].tolist(), "proposals": len(told.proposals),
        "crops": [(jpeg_uri(crop, CROP), test.classes[region.label], region.score) for crop, region in zip(crops, told.strip)],
        "moved": [(test.classes[region.label], region) for region in told.best],
        "candidates": len(candidates.score), "survivors": int(candidates.survives.sum()),
        "marks": marks_of(matches, test.images, number, points),
    }


def _image_number(image_id: str, test) -> int:
    for number, image in enumerate(test.images):
        if image.id == image_id:
            return number
    raise PipelineError(f"--report-image {image_id}: no such image in split {test.name}; name one of it, as {test.images[0].id}")


def _backbone(name: str):
    import torch

    from pipeline.networks.backbones import make_backbone

    with torch.device("meta"):  # for its sizes alone
        return make_backbone(name)


def units(artefact: Artefact, backbone: str, test, read) -> list[dict]:
    """Crops of the regions that excite units most, and where the units are in `pool5`."""
    found, grid = artefact.json(UNITS), _backbone(backbone).grid
    for unit in found:
        unit["channel"], cell = divmod(unit["unit"], grid**2)
        unit["row"], unit["column"] = divmod(cell, grid)
        unit["regions"] = _with_crops(unit["regions"], test, read)
    return found


def negatives(artefact: Artefact, train, read) -> list[tuple[str, list[dict]]]:
    """Crops of the hardest negatives of each class."""
    found = artefact.json(NEGATIVES)
    return [(name, _with_crops(found[name], train, read)) for name in train.classes]


def _with_crops(regions: list[dict], split, read) -> list[dict]:
    from pipeline.report.embedding import crop, jpeg_uri

    records = {image.id: image for image in split.images}
    return [{**one, "uri": jpeg_uri(crop(read(records[one["image"]]), one["box"], THUMBNAIL), THUMBNAIL)} for one in regions]


def proposals(report) -> dict | None:
    """How well proposals cover the objects of the test split."""
    from pipeline.report.plots import curves

    found = {name: artefact.json(QUALITY) for name, artefact in report.inputs().items() if name.startswith("quality")}
    if not found:
        return None
    named = {f"{one['method']}" if name.endswith("search") else "proposal network": one for name, one in found.items()}
    by_count, by_overlap = {}, {}
    for name, one in named.items():
        recalls = [[math.nan if value is None else value for value in row] for row in one["recalls"]]
        by_count[f"{name}, IoU 0.5"] = one["boxes_per_image"], [row[0] for row in recalls]
        by_count[f"{name}, IoU 0.7"] = one["boxes_per_image"], [row[4] for row in recalls]
        by_overlap[f"{name}, {one['boxes_per_image'][-1]:.0f} boxes"] = one["iou"], recalls[-1]
    settings = {"ylim": (0, 1.02), "size": (5.4, 3.4)}
    pictures = [
        ("recall over the number of boxes", curves(by_count, "", "boxes an image", "recall", xscale="log", **settings)),
        ("recall over the overlap asked for", curves(by_overlap, "", "IoU with the object", "recall", **settings)),
    ]
    return {"rows": list(named.items()), "pictures": pictures}
