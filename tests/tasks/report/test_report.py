"""The report's page of hand-made results: sound HTML that needs nothing from outside, whatever is missing, in a browser too."""

import re
from functools import cache
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from defusedxml import ElementTree

from pipeline.datasets.records import ImageRecord, Split
from pipeline.detection.detections import Detections
from pipeline.evaluation.bootstrap import bootstrap, interval
from pipeline.evaluation.confusion import confusion_matrix
from pipeline.evaluation.errors import analyse_errors
from pipeline.evaluation.voc_ap import evaluate, json_number, match_detections
from pipeline.report.embedding import png_uri
from pipeline.report.gallery import Album
from pipeline.report.graph import draw
from pipeline.report.page import duration, number, percent, render
from pipeline.report.story import ScoredRegion
from tasks.evaluation.summary import SCOPE
from tasks.report import sections as report_sections

AWKWARD = ("<b>bold</b>", "café & \"tea\"", "it's 100% $x$", "no object")
IDS = ("plain", "a/b <i>&", "last one")
CHAINS = ("rcnn", "spp-net", "fast-rcnn", "faster-rcnn")
VOID = {"meta", "link", "img", "br"}


def make_split(classes):
    rng = np.random.default_rng(0)
    images = []
    for place, name in enumerate(IDS):
        labels = np.arange(min(place + 1, max(1, len(classes) - 1)))
        corners = rng.uniform(0, 60, (len(labels), 2))
        boxes = np.concatenate([corners, corners + 30], axis=1).astype(np.float32)
        images.append(ImageRecord(name, name, "", 120, 100, boxes, labels, np.zeros(len(labels), bool)))
    return Split("test", tuple(classes), tuple(images))


def make_matches(split, detected: bool):
    """For each image: its objects as detections, and all of its boxes again as false detections of the next class."""
    objects = [(place, label, box) for place, image in enumerate(split.images)
               for label, box in zip(image.labels, image.boxes)]
    rows = [(place, (label + shift) % len(split.classes), 0.9 - 0.1 * place - 0.5 * shift, box) for shift in (0, 1)
            for place, label, box in objects if detected]
    columns = zip(*rows) if rows else ([], [], [], [])
    detections = Detections(IDS, split.classes, *map(np.array, columns))
    return match_detections(detections, split.images, split.classes)


def judged(matches, split) -> dict:
    """What `evaluation.json` holds of these detections."""
    result = evaluate(matches.detections, split.images, split.classes)
    ends = interval(bootstrap(matches, 20, np.random.default_rng(0), "07"))
    ends = dict(zip([*split.classes, "mean"], [[json_number(end) for end in pair] for pair in ends.T.tolist()]))
    return {**result.to_json(), "interval_07": ends, "confusion": confusion_matrix(matches, split.images).to_json()}


def windows_of(name: str, uri: str) -> dict:
    """What the page shows of sliding windows: one map of scores, for the class `name`, and what the windows cost."""
    row = {"scale": 1.5, "windows": 36.0, "naive_pixels": 4e5, "dense_pixels": 2e4}
    return {
        "image": IDS[0], "maps": [{"scale": 1.5, "rows": 6, "columns": 6, "name": name, "score": 0.5, "uri": uri}],
        "costs": {
            "window_side": 107, "window_step": 8, "images": 9, "by_scale": [row], "naive_over_dense": 20.0, "unpadded": False,
        },
        "figures": {"images": 1, "naive_seconds": 20.0, "dense_seconds": 0.1, "largest_difference": 0.01},
    }


@cache
def make_page(classes=AWKWARD, chains=CHAINS, detected=True, insights=True, published_map=None, mask_ap=None) -> str:
    """The page of these chains, all with the same detections; without `insights` what rests on R-CNN is left out."""
    split = make_split(classes)
    matches = make_matches(split, detected)
    evaluation = judged(matches, split)
    errors = analyse_errors(matches, split.images, [split.classes[:2]] if len(classes) > 2 else []).to_json()
    seconds = {"train_seconds": 4000.0, "proposal_seconds_per_image": 0.1, "test_seconds_per_image": 0.02}
    ends = evaluation["interval_07"]
    summary = {"map": evaluation["map_07"], "interval_95": ends, **seconds, "published_map": published_map, "coco_ap": 0.5}
    summary |= {} if mask_ap is None else {"mask_ap": mask_ap}
    pixels = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    album, uri = Album(lambda record: pixels, 60), png_uri(pixels[:9, :9])
    region = ScoredRegion((1.0, 2.0, 30.0, 40.0), 0, -0.5, (2.0, 3.0, 29.0, 39.0))
    shown = {"image": IDS[1], "uri": uri, "overlap": 0.6, "activation": 2.0}
    negative = {"image": IDS[1], "uri": uri, "overlap": 0.0, "score": -0.9, "nearest": None, "nearest_overlap": 0.0}
    drawing = draw(stages := {"IndexDataset": [], "TrainSVMs": ["IndexDataset"]})
    about = {"detail": "", "seconds": 1.5, "new": True}
    nodes = [{"place": drawing.boxes[name], "stage": name, **about} for name in stages]
    setting = {"option": "--svm-c", "value": "", "default": "0.001", "about": "cost C of the <hinge> losses", "source": "ours"}
    quality = {
        "method": "balanced", "recalls": [[None] * 10], "boxes_per_image": [7.0], "iou": [0.5] * 10, "average_recall": [None],
        "mabo": [None], "core_seconds_per_image": 0.1,
    }
    report = SimpleNamespace(inputs=lambda: {"quality search": SimpleNamespace(json=lambda name: quality)})
    layers = {} if mask_ap is None else {chains[0]: lambda number, points: (uri if number else None, uri)}
    galleries = report_sections.galleries(dict.fromkeys(chains, matches), split, album, 12, layers)
    story = {
        "picture": album.add(split.images[0]), "chosen": False, "mode": "balanced", "method": "opencv", "segmentation": uri,
        "first": [region.box], "proposals": 7, "crops": [(uri, classes[0], -0.5)], "moved": [(classes[0], region)],
        "candidates": 9, "survivors": 5, "surplus": 0, "marks": galleries[0]["shown"][0][1],
    }
    return render({
        "dataset": "photos <of> \"mine\"", "splits": (split, split), "shared": "2 images of both <splits>", "backbone": "tiny",
        "chapters": [], "album": album, "galleries": galleries,
        "titles": {chain: report_sections.TITLES[chain] for chain in chains},
        "results": report_sections.results(dict.fromkeys(chains, summary)),
        "classes": report_sections.classes(dict.fromkeys(chains, evaluation), split.classes),
        "errors": report_sections.mistakes(dict.fromkeys(chains, errors)),
        "confusions": report_sections.confusions(dict.fromkeys(chains, evaluation)), "story": story if insights else None,
        "windows": windows_of(classes[0], uri) if insights else None,
        "units": [{"unit": 3, "class": classes[0], "covering": 1, "channel": 0, "row": 0, "column": 3, "regions": [shown]}]
        if insights else None,
        "negatives": [(name, [negative]) for name in classes] if insights else None, "training": [],
        "proposals": report_sections.proposals(report) if insights else None,
        "run": {
            "settings": [setting], "changed": [setting], "versions": {"numpy": "2"}, "device": "cpu", "threads": 1, "seed": 0,
            "stages": [["TrainSVMs", 1, 1.0, 0.5, 2.0, "computed"]], "graph": {"nodes": nodes, "drawing": drawing},
        },
    })


PAGES = {
    "everything": {}, "one class": {"classes": ("only",)}, "no detections": {"detected": False},
    "twenty classes": {"classes": tuple(f"class {place}" for place in range(20)), "chains": CHAINS[:1]},
    "without R-CNN": {"chains": CHAINS[2:], "insights": False}, "with published mAP": {"published_map": 66.0},
    "with masks": {"chains": CHAINS[:2], "mask_ap": 0.25},
}


FEW = "everything", "no detections"


@pytest.fixture(params=[pytest.param(name, marks=[] if name in FEW else pytest.mark.exhaustive) for name in PAGES])
def page(request):
    return make_page(**PAGES[request.param])


class Reader(HTMLParser):
    """Checks that tags are closed in turn; collects ids, addresses and texts."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.addresses, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.collect(attributes)

    def handle_startendtag(self, tag, attributes):
        self.collect(attributes)

    def collect(self, attributes):
        self.ids += [value for name, value in attributes if name == "id"]
        self.addresses += [value for name, value in attributes if name in ("href", "src", "xlink:href", "action", "srcset")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_page_is_sound_and_needs_nothing_from_outside(page):
    reader = Reader(page)
    assert len(set(reader.ids)) == len(reader.ids)
    links = {address[1:] for address in reader.addresses if address.startswith("#")}
    assert {"results", "classes", "errors", "galleries", "run", "image-0"} <= links <= set(reader.ids)
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert not re.search(r"url\(|@import|<script|https?:", re.sub(r"data:image/[^\"]*", "", page))
    for drawing in re.findall(r"<svg\b.*?</svg>", page, re.S):
        ElementTree.fromstring(drawing)
    assert len(page) < 2e6


def test_names_are_text():
    reader = Reader(make_page())
    for name in (*AWKWARD, *IDS, "2 images of both <splits>", 'photos <of> "mine"', "cost C of the <hinge> losses"):
        assert any(name in text for text in reader.texts), name


def test_what_is_missing_is_a_dash_and_what_is_left_out_has_no_link():
    text = make_page(detected=False, insights=False)
    assert '<th scope="row">no object</th><td>0</td><td>\N{EN DASH}</td>' in text
    for section in ("story", "units", "negatives", "proposals", "training"):
        assert f'"#{section}"' not in text
        assert f'id="{section}"' not in text


def test_each_chain_has_a_confusion_matrix_of_few_classes():
    text = " ".join(make_page().split())
    assert text.count('<table class="matrix">') == len(CHAINS)
    assert '<th scope="row">false alarm</th><td></td>' in text
    many = make_page(classes=tuple(f"class {place}" for place in range(21)), chains=CHAINS[:1])
    assert '<table class="matrix">' not in many
    assert "R-CNN: which classes it takes for each other" in many


def test_what_shows_a_part_says_of_how_many():
    text = " ".join(make_page().split())
    count = len(IDS)
    for part in (
        f"{count} of {count} images (<code>--report-images</code>)",
        "The first 1 of 7 proposals", "1 of the 7 proposals", "The 1 of 7 regions",
        "9 candidates of all classes", f"at most one for each of the {count} training images, the first 1",
        "Of all units, 1 are shown", "<code>--report-unit-regions</code>",
    ):
        assert part in text, part


def test_ratios_are_told_beside_r_cnn_alone():
    title = "How many times as fast as R-CNN"
    assert title in make_page()
    assert title not in make_page(chains=CHAINS[:1])
    assert title not in make_page(chains=CHAINS[1:], insights=False)
    assert SCOPE in make_page()


def test_a_published_map_stands_beside_runs_that_it_belongs_to():
    assert "published<br>mAP" not in make_page()
    page = make_page(published_map=66.25)
    assert "published<br>mAP" in page
    assert "Published mAP: VGG-16 on the same data" in page
    assert "66.2" in page


def test_masks_stand_beside_the_truth():
    page = make_page(chains=CHAINS[:2], mask_ap=0.25)
    assert re.findall(r'id="masks-([^"]+)"', page) == ["rcnn"]
    assert page.count('<image class="layer"') == 2 * len(IDS) - 1
    assert page.count(": has no true masks") == 1
    assert "<td>50.0</td><td>25.0</td>" in page
    assert "mask" not in make_page()


def test_numbers_as_people_read_them():
    assert [duration(seconds) for seconds in (None, 0.0123, 9.4, 42.4, 90, 600, 7200)] == [
        "\N{EN DASH}", "0.012 s", "9.4 s", "42 s", "90 s", "10.0 min", "2.0 h",
    ]
    assert [percent(share) for share in (None, 0.1234)] == ["\N{EN DASH}", "12.3"]
    assert number(float("nan")) == "\N{EN DASH}"


@pytest.mark.slow
@pytest.mark.parametrize("width", [pytest.param(400, marks=pytest.mark.exhaustive), 1400])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.exhaustive] * (name != "everything")) for name in PAGES])
def test_page_in_a_browser(browser, name, width, tmp_path):
    """Every picture is there, nothing has to be scrolled sideways, no error, no request, every link leads to what is seen."""
    file, messages, asked = tmp_path / "report.html", [], []
    file.write_text(make_page(**PAGES[name]), encoding="utf-8")
    tab = browser.new_page()
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(file.as_uri())
    root = "document.documentElement"
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert tab.evaluate("[...document.querySelectorAll('svg.photo use')].every(use => use.getBoundingClientRect().width > 100)")
    assert tab.evaluate(f"{root}.scrollWidth") <= tab.evaluate(f"{root}.clientWidth")
    for link in tab.query_selector_all("nav a"):
        link.click()
        target = unquote(tab.evaluate("location.hash"))[1:]
        place = tab.evaluate("id => document.getElementById(id).getBoundingClientRect().top", target)
        assert -1 <= place < 900, target
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 702, "height": 1000})  # A4 between its margins
    assert tab.evaluate(f"{root}.scrollWidth") <= 702
    assert messages == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    tab.close()
