"""The sections of the report: numbers, texts and pictures from artefacts, for the page's template."""

import math
from collections.abc import Mapping

from pipeline.errors import PipelineError
from pipeline.later_detectors.names import model_name
from tasks.data.splits import load_split
from tasks.detection import DETECTIONS
from tasks.engine.artefacts import Artefact
from tasks.evaluation.chapters import chapters_of, detecting
from tasks.evaluation.evaluate import SHARED
from tasks.evaluation.published import published_times
from tasks.evaluation.results import SUMMARY
from tasks.evaluation.summary import WINDOW_COSTS, scope_of, speed_ratios, times
from tasks.features.stores import open_features
from tasks.proposals.quality import QUALITY
from tasks.proposals.regions import method_name
from tasks.rcnn import load_models
from tasks.report.masks import Layers, mask_layers
from tasks.report.run import run, training
from tasks.segmentation.base import CHAINS as SEGMENTERS
from tasks.segmentation.report import segmentation_chapters
from tasks.sliding_window.costs import COSTS, MAPS

UNITS, NEGATIVES = "units.json", "negatives.json"
TITLES = {
    "rcnn": "R-CNN", "spp-net": "SPP-net", "fast-rcnn": "Fast R-CNN", "faster-rcnn": "Faster R-CNN",
    "r-fcn": "R-FCN", "sliding-window": "Sliding windows", "ssd": "SSD", "retinanet": "RetinaNet", "mask-rcnn": "Mask R-CNN",
}
IMAGE_MEGABYTES = 64
PHOTO, THUMBNAIL, CROP = 560, 96, 96  # pixels: longest sides
DRAWN_PROPOSALS, STRIP, MOVED = 100, 12, 8


def title_of(chain: str) -> str:
    return TITLES.get(chain, model_name(chain))


def sections(report, lineage: list[Artefact]) -> dict:
    """The sections of the page that the stage `report` makes; `lineage`: all artefacts behind the results."""
    from pipeline.images.reading import ImageCache
    from pipeline.report.gallery import Album

    inputs = report.inputs()
    train, test = load_split(inputs["train"]), load_split(inputs["test"])
    summary = inputs["summary"].json(SUMMARY)
    evaluated, chains = report.summary().inputs(), detecting(report)
    readers = {name: ImageCache(report.requires()[name].root, IMAGE_MEGABYTES).read for name in ("train", "test")}
    evaluations = {chain: evaluated[f"evaluate {chain}"].json("evaluation.json") for chain in chains}
    errors = {chain: evaluated[f"evaluate {chain}"].json("errors.json") for chain in chains}
    album, matches = Album(readers["test"], PHOTO), _matches(report, test)
    alone = [evaluation for chain, evaluation in chapters_of(report).items() if chain not in SEGMENTERS]
    chapters = [chapter(report, evaluation, summary, album) for evaluation in alone]
    chapters += segmentation_chapters(report, summary, album)
    return {
        "dataset": summary["dataset"], "splits": (train, test), "titles": {chain: title_of(chain) for chain in chains},
        "backbone": report.backbone, "shared": summary.get(SHARED, ""), "chapters": chapters,
        "results": results({chain: summary["chains"][chain] for chain in chains}) if chains else None,
        "classes": classes(evaluations, test.classes) if chains else None, "errors": mistakes(errors) if chains else None,
        "confusions": confusions(evaluations),
        "galleries": galleries(matches, test, album, report.report_images, mask_layers(report, matches, test)),
        "story": story(report, matches["rcnn"], test, album) if "rcnn" in report.chains else None,
        "units": units(inputs["units"], report.backbone, test, readers["test"]) if "units" in inputs else None,
        "negatives": negatives(inputs["negatives"], train, readers["train"]) if "negatives" in inputs else None,
        "windows": windows(report, test, readers["test"]), "proposals": proposals(report), "training": training(lineage),
        "run": run(report, lineage), "album": album,
    }


def chapter(report, evaluation, summary: dict, album) -> dict:
    """The section of a chain with an evaluation of its own."""
    values = evaluation.section(album, report.report_images)
    chain, title = evaluation.chain, evaluation.title
    return {"id": chain, "title": title, "link": (chain, title, True), "seconds": summary["chains"][chain], **values}


def _matches(report, test) -> dict:
    from pipeline.detection.detections import Detections
    from pipeline.evaluation.voc_ap import match_detections

    by_chain = {chain: Detections.load(report.detection(chain).artefact.path(DETECTIONS)) for chain in detecting(report)}
    return {chain: match_detections(detections, test.images, test.classes, report.iou_threshold)
            for chain, detections in by_chain.items()}


def results(chains: dict[str, dict]) -> dict:
    """The comparison of the chains, next to the published times and, where they belong to the run, the published mAP."""
    from pipeline.report.plots import bars

    rows, is_compared = [], "rcnn" in chains
    for chain, values in chains.items():
        rows.append({
            "title": title_of(chain), "map": values["map"], "interval": values["interval_95"]["mean"], "times": times(values),
            "published": published_times(chain), "published_map": values["published_map"] and values["published_map"] / 100,
            "ratios": speed_ratios(chains, chain) if is_compared else [],
            "box_ap": values["coco_ap"], "mask_ap": values.get("mask_ap"),
        })
    intervals = {title_of(chain): [bound and 100 * bound for bound in values["interval_95"]["mean"]]
                 for chain, values in chains.items()}
    maps = {title_of(chain): values["map"] and 100 * values["map"] for chain, values in chains.items()}
    pictures = [("mean average precision", bars(maps, "mAP in percent, with 95 % intervals", intervals))]
    labels = "training, seconds", "detection, seconds an image", "detection with proposals, seconds an image"
    for column, label in enumerate(labels):
        seconds = {title_of(chain): times(values)[column] for chain, values in chains.items()}
        pictures.append((label, bars(seconds, f"{label} (logarithmic)", log=True)))
    return {"rows": rows, "pictures": pictures, "scope": scope_of(chains), "compared": is_compared and len(chains) > 1,
            "any_published_map": any(row["published_map"] for row in rows),
            "any_masks": any("mask_ap" in values for values in chains.values())}


def classes(evaluations: dict[str, dict], names: tuple[str, ...]) -> dict:
    """Average precision of each class, and its curves."""
    from pipeline.report.plots import curves

    rows = [(name, next(iter(evaluations.values()))["classes"][name]["num_positives"],
             [(result["classes"][name]["ap_07"], result["interval_07"][name]) for result in evaluations.values()])
            for name in names]
    mean = [(result["map_07"], result["interval_07"]["mean"]) for result in evaluations.values()]
    pictures = []
    for label, name in enumerate(names):
        results_of_class = {chain: result["classes"][name] for chain, result in evaluations.items()}
        lines = {title_of(chain): (result["recall"], result["precision"]) for chain, result in results_of_class.items()}
        settings = {"legend": not label, "marker": ".", "xlim": (0, 1), "ylim": (0, 1.02)}
        pictures.append((name, curves(lines, name, "recall", "precision", **settings)))
    return {"rows": rows, "mean": mean, "pictures": pictures}


def mistakes(errors: dict[str, dict]) -> dict:
    """For each chain, how many of its best detections are errors of which kind, and how many objects of which size it misses."""
    from pipeline.evaluation.errors import KINDS, SIZES
    from pipeline.report.plots import WIDE, curves, stacked

    kinds, misses, missed = {}, {}, {}
    for chain, counts in errors.items():
        by_class = list(counts["classes"].values())
        total = {"correct": sum(counts["true_positives"] for counts in by_class)}
        for kind in KINDS:
            total[kind] = sum(counts["false_positives"][kind] for counts in by_class)
        kinds[title_of(chain)] = total
        sizes = {size: [sum(counts[field][size] for counts in by_class) for field in ("found", "objects")] for size in SIZES}
        missed[title_of(chain)] = {size: (objects - detected, objects) for size, (detected, objects) in sizes.items()}
        shares = [100 * (1 - detected / objects) if objects else math.nan for detected, objects in sizes.values()]
        misses[title_of(chain)] = (range(len(sizes)), shares)
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


def confusions(evaluations: dict[str, dict]) -> list[dict]:
    """The confusion matrix of each chain, and its most frequent confusions. A matrix of many classes is left out."""
    from pipeline.evaluation.confusion import MOST_COLUMNS, Confusion, frequent

    by_chain = []
    for chain, evaluation in evaluations.items():
        confusion = Confusion.from_json(evaluation["confusion"])
        rows = zip(evaluation["confusion"]["classes"], confusion.matrix.tolist(), strict=True)
        shown = list(rows) if len(confusion.classes) <= MOST_COLUMNS else []
        by_chain.append({"title": title_of(chain), "rows": shown, "frequent": frequent(confusion)})
    return by_chain


def galleries(matches: dict, test, album, number: int, layers: Mapping[str, Layers]) -> list[dict]:
    """Test images with the detections of each chain in them, and with masks where a chain has `layers` of them."""
    from pipeline.evaluation.operating_points import operating_points
    from pipeline.report.gallery import choose_images, marks_of

    by_chain = []
    for chain, of_chain in matches.items():
        points = operating_points(of_chain)
        chosen = choose_images(of_chain, number)
        shown = [(album.add(test.images[image]), marks_of(of_chain, test.images, image, points)) for image in chosen]
        masks = [(album.add(test.images[image]), *layers[chain](image, points)) for image in chosen if chain in layers]
        by_chain.append({
            "chain": chain, "title": title_of(chain), "shown": shown, "masks": masks, "images": len(test.images),
        })
    return by_chain


def story(report, matches, test, album) -> dict:
    """The steps of R-CNN on one image, from the cached features of the test split."""
    from pipeline.evaluation.operating_points import operating_points
    from pipeline.report.embedding import jpeg_uri, png_uri
    from pipeline.report.gallery import marks_of
    from pipeline.report.story import choose_image, segmentation_mode, segmentation_picture, tell_story, warped_crops

    points = operating_points(matches)
    number = _image_number(report.report_image, test) if report.report_image else choose_image(matches, points)
    record, inputs = test.images[number], report.detection("rcnn").inputs()
    rows = open_features(inputs["features"]).read(number)
    pool5 = open_features(inputs["pool5"]).read(number).features if "pool5" in inputs else rows.features
    size, limits = (record.height, record.width), report.detection("rcnn").limits
    steps = tell_story(rows, pool5, size, load_models(inputs), limits, strip=STRIP, best=MOVED)
    method = method_name(report)
    pixels, mode = album.read(record), segmentation_mode(method)
    crops = warped_crops(pixels, [region.box for region in steps.strip], _backbone(report.backbone), report.context_padding)
    candidates = steps.candidates
    return {
        "picture": album.add(record), "chosen": bool(report.report_image), "mode": mode, "method": method,
        "segmentation": png_uri(segmentation_picture(pixels, mode, report.image_width or None)),
        "first": steps.proposals[:DRAWN_PROPOSALS].tolist(), "proposals": len(steps.proposals),
        "crops": [(jpeg_uri(crop, CROP), test.classes[region.label], region.score) for crop, region in zip(crops, steps.strip)],
        "moved": [(test.classes[region.label], region) for region in steps.best],
        "candidates": len(candidates.score), "survivors": int(candidates.survives.sum()),
        "surplus": candidates.left_out.detections,
        "marks": marks_of(matches, test.images, number, points),
    }


def _image_number(image_id: str, test) -> int:
    for number, image in enumerate(test.images):
        if image.id == image_id:
            return number
    raise PipelineError(f"--report-image {image_id}: no such image in split {test.name}; give one such as {test.images[0].id}")


def _backbone(name: str):
    from pipeline.networks.backbones import make_backbone
    from pipeline.networks.without_weights import without_weights

    with without_weights():
        return make_backbone(name)


def units(artefact: Artefact, backbone: str, test, read) -> list[dict]:
    """Crops of the regions that excite units most, and the places of the units in `pool5`."""
    records, grid = artefact.json(UNITS), _backbone(backbone).grid
    for unit in records:
        unit["channel"], cell = divmod(unit["unit"], grid**2)
        unit["row"], unit["column"] = divmod(cell, grid)
        unit["regions"] = _with_crops(unit["regions"], test, read)
    return records


def negatives(artefact: Artefact, train, read) -> list[tuple[str, list[dict]]]:
    """Crops of the hardest negatives of each class."""
    by_class = artefact.json(NEGATIVES)
    return [(name, _with_crops(by_class[name], train, read)) for name in train.classes]


def _with_crops(regions: list[dict], split, read) -> list[dict]:
    from pipeline.report.embedding import crop, jpeg_uri

    records = {image.id: image for image in split.images}
    return [{**region, "uri": jpeg_uri(crop(read(records[region["image"]]), region["box"], THUMBNAIL), THUMBNAIL)}
            for region in regions]


def windows(report, test, read) -> dict | None:
    """The score maps of one image over the scales of sliding windows, and what the windows cost."""
    from pipeline.report.score_maps import score_maps

    if WINDOW_COSTS not in (summary := report.summary().inputs()):
        return None
    artefact = summary[WINDOW_COSTS]
    costs = artefact.json(COSTS)
    record = next(image for image in test.images if image.id == costs["image"])
    return {
        "costs": costs, "figures": artefact.manifest["figures"], "image": record.id,
        "maps": score_maps(read(record), artefact.path(MAPS), costs, test.classes),
    }


def proposals(report) -> dict | None:
    """How well proposals cover the objects of the test split."""
    from pipeline.report.plots import curves

    by_input = {name: artefact.json(QUALITY) for name, artefact in report.inputs().items() if name.startswith("quality")}
    if not by_input:
        return None
    by_method = {quality["method"] if name.endswith("search") else "proposal network": quality
                 for name, quality in by_input.items()}
    by_count, by_overlap = {}, {}
    for method, quality in by_method.items():
        recalls = [[math.nan if value is None else value for value in row] for row in quality["recalls"]]
        by_count[f"{method}, IoU 0.5"] = quality["boxes_per_image"], [row[0] for row in recalls]
        by_count[f"{method}, IoU 0.7"] = quality["boxes_per_image"], [row[4] for row in recalls]
        by_overlap[f"{method}, {quality['boxes_per_image'][-1]:.0f} boxes"] = quality["iou"], recalls[-1]
    settings = {"ylim": (0, 1.02), "size": (5.4, 3.4)}
    pictures = [
        ("recall over the number of boxes", curves(by_count, "", "boxes an image", "recall", xscale="log", **settings)),
        ("recall over the overlap asked for", curves(by_overlap, "", "IoU with the object", "recall", **settings)),
    ]
    return {"rows": list(by_method.items()), "pictures": pictures}
