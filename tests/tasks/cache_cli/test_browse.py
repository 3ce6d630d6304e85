"""The pages of `rcnn-cache browse` on the cache of a run, in a browser as well."""

import io
import json
import os
import re
import shutil
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from PIL import Image

from pipeline.errors import PipelineError
from tasks.cache_cli.browse import Site, make_server
from tasks.cache_cli.browse_requests import Refused
from tasks.cache_cli.browse_stores import Stores
from tasks.engine.catalogue import Catalogue


@pytest.fixture(scope="module")
def stores(cold_run):
    return Stores(Catalogue(cold_run[0]))


@pytest.fixture(scope="module")
def source(stores):
    """R-CNN's store of the training split."""
    return next(source for source in stores.by_key.values() if source.is_pool5 and source.split == "train")


@pytest.fixture(scope="module")
def detector(source, tmp_path_factory):
    """An exported detector of the run, which makes none itself: the network of the features, and the SVMs."""
    folder = tmp_path_factory.mktemp("explorer")
    network = source.catalogue.get(source.entry.sources["network"])
    shutil.copy(network.folder / "backbone.safetensors", folder)
    shutil.copy(source.svm_entry.folder / "svms.npz", folder)
    settings = {"backbone": "tiny", "precision": "float32", "layer": "pool5", "context_padding": 16, "batch_size": 32,
                "max_per_image": 20, "nms_threshold": 0.3, "max_detections": 0}
    (folder / "detector.json").write_text(json.dumps({
        "chain": "rcnn", "classes": source.store.classes, "settings": settings,
        "parts": {"backbone": "backbone.safetensors", "svms": "svms.npz"},
        "proposals": {"method": "balanced", "max_boxes": 40, "image_width": 0, "seed": 0},
    }))
    source.__dict__["detector_entry"] = SimpleNamespace(folder=folder, name="ExportDetector/0123456789ab")
    yield
    del source.__dict__["detector_entry"]


@pytest.fixture(scope="module")
def ask(stores):
    """ask(page, name=value ...) -> the content of a page or picture."""
    site = Site(stores)

    def asked(page="", body=b"", method="GET", **query):
        content = site.answer(method, page, {name: str(value) for name, value in query.items()}, body)[1]
        return content if page in ("photo", "crop") else content.decode()

    return asked


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_every_store_is_listed_with_its_kind(ask, stores):
    page = ask()
    kinds = {(source.entry.stage, source.split) for source in stores.by_key.values()}
    assert kinds == {(stage, split) for stage in ("ExtractFeatures", "SpatialPyramidFeatures") for split in ("train", "test")}
    assert all(f"store?store={key}" in page for key in stores.by_key)


def test_stores_of_the_same_features_are_searched_together(stores, source):
    both = stores.comparable(source)
    assert [(peer.entry.stage, peer.split) for peer in both] == [("ExtractFeatures", "train"), ("ExtractFeatures", "test")]


def test_svms_belong_to_the_stores_of_their_features(stores, source):
    catalogue, both = source.catalogue, stores.comparable(source)
    trained_on = catalogue.get(source.svm_entry.sources["features"])
    assert trained_on is source.entry
    assert [peer.svm_entry for peer in both] == [source.svm_entry] * 2
    others = {peer.svm_entry for peer in stores.by_key.values() if peer not in both} - {None}
    assert source.svm_entry not in others
    assert len(others) == 1, "SPP-net's"


def test_pages_of_a_store(ask, source):
    assert f"image?store={source.key}&amp;image=3" in ask("store", store=source.key)
    page = ask("image", store=source.key, image=0, **{"class": 0}, count=5)
    assert page.count("<tr") == 1 + 5
    assert "digits/Annotations/train00000.xml" in page
    assert "5 are listed" in page
    assert page.count("nearest?store=") == 5
    last = source.store.num_rows(0) - 1
    assert f'<title>region {last}</title><rect class="under"' in ask("image", store=source.key, image=0, row=last, count=1)
    page = ask("hardest", store=source.key, **{"class": 1})
    assert "Objects with the lowest scores" in page
    assert "Annotations/train0000" in page


def test_nearest_regions_leave_the_region_itself_out(ask, source):
    page = ask("nearest", store=source.key, image=0, row=0)
    results = page.split("Searched:")[1]
    assert f"image?store={source.key}&amp;image=0&amp;row=0\"" not in results
    assert results.count("<figure") == 8  # the best of each image of both splits
    assert ask("nearest", store=source.key, image=0, row=0, only=1).split("Searched:")[1].count("<figure") == 4


def test_units(ask, source):
    assert "Channel 0, row 2, column 1" in ask("unit", store=source.key, unit=4)


def test_pictures(ask, source):
    assert picture(ask("photo", store=source.key, image=0)).size == (200, 150)
    assert picture(ask("photo", store=source.key, image=0, size="large")).size == (320, 240)
    assert max(picture(ask("crop", store=source.key, image=0, row=0)).size) == 128
    assert picture(ask("crop", store=source.key, image=0, row=0, kind="warped")).size == (64, 64)


@pytest.mark.parametrize(("page", "query", "status"), [
    ("store", {"store": "../../../etc"}, 400), ("store", {"store": "0123456789ab"}, 404), ("store", {}, 400),
    ("photo", {"image": "../../secret.jpg"}, 400), ("photo", {"image": 4}, 404), ("image", {"image": 4}, 404),
    ("crop", {"image": 0, "row": 10**8}, 404), ("image", {"image": 0, "row": 10**8}, 404),
    ("nearest", {"image": 0, "row": 10**8}, 404), ("unit", {"unit": 2048}, 404),
    ("hardest", {"class": 10}, 404), ("../manifest.json", {}, 404), ("style.css/..", {}, 404),
    ("search", {"box": "0,0,9,9"}, 405),  # it takes a photograph
])
def test_what_there_is_not(ask, source, page, query, status):
    with pytest.raises(Refused) as caught:
        ask(page, **{"store": source.key, **query} if page != "store" else query)
    assert caught.value.status == status


def test_a_photograph_needs_an_exported_detector(ask, source, detector):
    assert "drag a box" in ask("photograph", store=source.key)
    record, rows = source.records["train00000"], source.store.read(0)
    content, box = (source.root / record.path).read_bytes(), ",".join(map(str, rows.boxes[0].tolist()))
    page = ask("search", content, "POST", store=source.key, box=box)
    assert page.count("<figure") == 8
    # The box of an object of a training image: its own region is the nearest.
    image, distance = re.search(r"image=(\d+)&amp;row=.*?<figcaption>([\d.]+)", page, re.DOTALL).groups()
    assert (image, float(distance) < 0.01) == ("0", True)
    assert page.index(source.store.classes[source.svms.score(rows.features[:1])[0].argmax()]) < page.index("Searched")
    with pytest.raises(PipelineError, match="not a readable image"):
        ask("search", b"GIF89a", "POST", store=source.key, box="10,20,200,220")
    with pytest.raises(PipelineError, match="less than a pixel"):
        ask("search", content, "POST", store=source.key, box="330,20,400,220")


def test_without_a_detector_the_page_says_what_to_do(ask, stores, source):
    second = stores.comparable(source)[1]
    assert "ExportDetector" in ask("photograph", store=second.key)
    with pytest.raises(PipelineError, match="no exported detector"):
        ask("search", b"", "POST", store=second.key, box="0,0,9,9")


def test_damage_is_an_error_that_changes_nothing(cold_run, tmp_path):
    """A store that is cut short, and an index that leads out of the data set; a stage would move them aside."""
    from tests.tasks.conftest import link_cache

    link_cache(cold_run[0], tmp_path / "cache")
    catalogue = Catalogue(tmp_path / "cache")
    source = next(source for source in Stores(catalogue).by_key.values() if source.is_pool5)
    before = sorted(os.listdir(tmp_path / "cache"))
    shard = next(iter(catalogue.shards(source.entry).values())).folder / "features.h5"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-1000])
    with pytest.raises(PipelineError, match=r"features\.h5"):
        _ = source.store
    shard.unlink()
    shard.symlink_to("/etc/hostname")
    with pytest.raises(PipelineError, match="not a file of this artefact"):
        _ = source.store
    index = source.index.folder / "index.json"
    text = index.read_text()
    index.unlink()
    index.write_text(text.replace("JPEGImages/", "../../../../"))
    with pytest.raises(PipelineError, match="changed since it was written"):
        _ = source.records
    assert sorted(os.listdir(tmp_path / "cache")) == before, "a damaged artefact was moved aside, or a file written"
    assert shard.is_symlink()


def test_a_cache_without_stores(tmp_path):
    with pytest.raises(PipelineError, match="has no feature store"):
        make_server(Catalogue(tmp_path))


@pytest.fixture(scope="module")
def address(cold_run, source, stores, detector):
    """The address of a server whose pages are those of `stores`."""
    server = make_server(Catalogue(cold_run[0]))
    site = Site(stores)
    server.answer = site.answer
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.address
    server.shutdown()
    server.server_close()
    thread.join()


def wait_until(tab, expression: str, seconds: float = 60) -> None:
    """Waits until JavaScript's `expression` is true. Playwright's own way evaluates texts in the page, which refuses that."""
    deadline = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < deadline, f"waited in vain for {expression}"
        tab.wait_for_timeout(50)


@pytest.mark.slow
@pytest.mark.parametrize("width", [pytest.param(400, marks=pytest.mark.exhaustive), 1400])
def test_pages_in_a_browser(browser, address, source, width, tmp_path):
    """No error, no request elsewhere, every picture there, nothing to scroll sideways; and a box that is dragged."""
    messages, asked, tab = [], [], browser.new_page()
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.set_viewport_size({"width": width, "height": 900})
    key = f"store={source.key}"
    for page in ("", f"store?{key}", f"image?{key}&image=0&row=1", f"unit?{key}&unit=5", f"nearest?{key}&image=0&row=0",
                 f"hardest?{key}&class=1", f"photograph?{key}"):
        tab.goto(address + page)
        assert tab.evaluate("[...document.images].every(image => !image.complete || !image.src || image.naturalWidth > 0)"), page
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page
    Image.linear_gradient("L").resize((300, 200)).save(tmp_path / "gradient.png")
    tab.set_input_files("#file", tmp_path / "gradient.png")
    wait_until(tab, "photograph.naturalWidth === 300")
    frame = tab.locator("#photograph").bounding_box()
    tab.mouse.move(frame["x"] + 30, frame["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(frame["x"] + 130, frame["y"] + 120)
    tab.mouse.up()
    wait_until(tab, "results.children.length > 0 || !['', 'Searching \u2026'].includes(state.textContent)")
    assert tab.text_content("#state") == ""
    assert tab.locator("#results figure").count() == 8
    boxes = [url for url in asked if "/search?" in url]
    assert len(boxes) == 1
    assert "box=30.0%2C20.0%2C130.0%2C120.0" in boxes[0]
    assert messages == []
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {urlsplit(address).netloc}
    tab.close()
