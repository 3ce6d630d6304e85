"""The pages of `browse`: what each shows of the stores, by the searches of `pipeline.explorer`."""

from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from pipeline.errors import PipelineError
from pipeline.explorer.ranking import Found
from tasks.cache_cli.browse_pictures import Pictures
from tasks.cache_cli.browse_requests import Refused, a_box, a_count, a_key, a_number, one_of, read_fields
from tasks.cache_cli.browse_stores import Source, Stores
from tasks.engine.progress import make_progress

PAGE_IMAGES = 60
SHOWN = 24  # regions in a list of results
YES = "1"
STORE, IMAGE, ROW = {"store": (a_key, ...)}, {"image": (a_count, ...)}, {"row": (a_count, ...)}
MEASURE = {"measure": (one_of("cosine", "l2"), "cosine"), "only": (one_of(YES), "")}
FIELDS: dict[str, dict] = {
    "": {}, "store": {**STORE, "page": (a_count, 1)},
    "image": {
        **STORE, **IMAGE, "class": (a_count, None), "score": (a_number, None), "low": (a_number, 0.0), "high": (a_number, 1.0),
        "count": (a_count, 50), "row": (a_count, None),
    },
    "nearest": {**STORE, **IMAGE, **ROW, **MEASURE},
    "unit": {**STORE, "unit": (a_count, ...), "only": (one_of(YES), "")},
    "hardest": {**STORE, "class": (a_count, 0)},
    "photograph": STORE,
    "search": {**STORE, "box": (a_box, ...), **MEASURE},
}
MOST_LISTED = 500


class Views:
    """Makes pages: `page(name, query, body)` gives HTML."""

    def __init__(self, stores: Stores, pictures: Pictures):
        self.stores, self.pictures = stores, pictures
        self._pages: dict[str, Callable] = {
            "": self._index, "store": self._store, "image": self._image, "nearest": self._nearest, "unit": self._unit,
            "hardest": self._hardest, "photograph": self._photograph, "search": self._search,
        }

    def page(self, name: str, query: dict[str, str], body: bytes = b"") -> bytes:
        """The page `name`. Raises Refused for one that does not exist and for parameters of the wrong kind."""
        from pipeline.explorer.page import render

        fields = read_fields(query, FIELDS[name])
        source = source_of(self.stores, fields) if "store" in fields else None
        arguments = (fields, body) if source is None else (source, fields, body)
        template, values = self._pages[name](*arguments)
        return render(template, **values, source=source)

    def _index(self, fields: dict, body: bytes) -> tuple[str, dict]:
        return "index", {"sources": list(self.stores.by_key.values())}

    def _store(self, source: Source, fields: dict, body: bytes) -> tuple[str, dict]:
        store = source.store
        first = max(fields["page"] - 1, 0) * PAGE_IMAGES
        shown = range(first, min(first + PAGE_IMAGES, store.num_images))
        images = [(image, store.image_ids[image], store.num_rows(image)) for image in shown]
        return "store", {
            "images": images, "page": fields["page"], "pages": -(-store.num_images // PAGE_IMAGES), "classes": store.classes,
            "units": store.num_features,
        }

    def _image(self, source: Source, fields: dict, body: bytes) -> tuple[str, dict]:
        from pipeline.explorer.regions import Filter, description, image_regions

        store, image, svms = source.store, checked_image(source, fields["image"]), source.svms
        label, least = fields["class"], fields["score"]
        checked(label is None or label < len(store.classes), "class")
        checked(fields["row"] is None or fields["row"] < store.num_rows(image), "row")
        count = min(fields["count"], MOST_LISTED)
        wanted = Filter(label, -float("inf") if least is None else least, fields["low"], fields["high"], count)
        regions = image_regions(store, image, svms, wanted)
        rows = [description(regions.annotations, row, store.classes) for row in regions.rows]
        objects = [description(regions.annotations, row, store.classes)
                   for row in (regions.annotations.gt_labels >= 0).nonzero()[0]]
        record, chosen = self.pictures.record(source, image), None
        if fields["row"] is not None:  # the region that the user came from, whether it passes the filter or not
            chosen = description(regions.annotations, fields["row"], store.classes)
        return "image", {
            "rows": rows, "chosen": chosen, "objects": objects, "scores": regions.scores, "passed": regions.passed,
            "classes": store.classes, "record": record, "image": image, "fields": fields,
            "annotation": source.annotation_file(record),
        }

    def _nearest(self, source: Source, fields: dict, body: bytes) -> tuple[str, dict]:
        store, image = source.store, checked_image(source, fields["image"])
        checked(fields["row"] < store.num_rows(image), "row")
        query = store.read(image, [fields["row"]])
        place = 0, image, fields["row"]
        results, searched = self._search_by(query.features[0], source, fields, place)
        return "nearest", {**results, "fields": fields, "query": self._card(source, Found(*place, 0.0)), "searched": searched}

    def _search_by(self, features, source: Source, fields: dict, place=None) -> tuple[dict, list]:
        """What is nearest to `features` in all comparable stores, or in `source` only."""
        from pipeline.explorer.nearest import nearest_regions

        sources = self._sources(source, fields)
        regions = nearest_regions(
            [each.store for each in sources], features, fields["measure"], SHOWN, leave_out=place,
            progress=make_progress(f"nearest regions in {source.entry.name}"),
        )
        return {"cards": [self._card(sources[region.store], region) for region in regions]}, sources

    def _sources(self, source: Source, fields: dict) -> list[Source]:
        return [source] if fields["only"] else self.stores.comparable(source)

    def _card(self, source: Source, region: Found) -> dict:
        """What a page shows of a region that was found."""
        from pipeline.explorer.regions import description

        store, record = source.store, self.pictures.record(source, region.image)
        address = {"store": source.key, "image": region.image, "row": region.row}
        return {
            **description(store.annotations(region.image), region.row, store.classes), "value": region.value, "image": record.id,
            "split": source.split, "annotation": source.annotation_file(record), "address": urlencode(address),
        }

    def _unit(self, source: Source, fields: dict, body: bytes) -> tuple[str, dict]:
        from pipeline.explorer.units import strongest_regions

        checked(source.is_pool5, "store")
        checked(fields["unit"] < source.store.num_features, "unit")
        sources, unit = self._sources(source, fields), fields["unit"]
        progress = make_progress(f"strongest regions of unit {unit} in {source.entry.name}")
        regions = strongest_regions([each.store for each in sources], unit, SHOWN, progress=progress)
        cards = [self._card(sources[region.store], region) for region in regions]
        place, field, crop_size = unit_facts(source.backbone, unit)
        return "unit", {
            "cards": cards, "unit": unit, "units": source.store.num_features, "place": place, "field": field,
            "crop": crop_size, "searched": sources, "fields": fields,
        }

    def _hardest(self, source: Source, fields: dict, body: bytes) -> tuple[str, dict]:
        from pipeline.explorer.hardest import hardest_regions

        store, label = source.store, fields["class"]
        checked(label < len(store.classes), "class")
        values: dict = {"classes": store.classes, "label": label, "positives": [], "negatives": []}
        if source.svms is not None:
            progress = make_progress(f"hardest regions of {store.classes[label]} in {source.entry.name}")
            hardest = hardest_regions(store, source.svms, label, SHOWN, progress=progress)
            values["positives"] = self._cards(source, hardest.positives)
            values["negatives"] = self._cards(source, hardest.negatives)
        return "hardest", values

    def _cards(self, source: Source, regions: Sequence[Found]) -> list[dict]:
        return [self._card(source, region) for region in regions]

    def _photograph(self, source: Source, fields: dict, body: bytes) -> tuple[str, dict]:
        return "photograph", {"detector": source.detector_entry}

    def _search(self, source: Source, fields: dict, body: bytes) -> tuple[str, dict]:
        """The page of results for a box of an uploaded photograph. The photograph is kept nowhere."""
        from pipeline.detector import Detector
        from pipeline.explorer.photograph import box_features
        from pipeline.images.reading import decode_photograph

        if source.detector_entry is None:
            raise PipelineError("no exported detector has the network of this store; the page says how to make one")
        pixels = decode_photograph("the photograph", body)
        detector = Detector.load(source.detector_entry.folder, threads=1)
        features, scores = box_features(detector.chain, pixels, fields["box"])
        results, searched = self._search_by(features, source, fields)
        best = sorted(zip(scores.tolist(), detector.classes), reverse=True)[:3]
        return "found", {**results, "searched": searched, "fields": fields, "best": best}


def source_of(stores: Stores, fields: dict) -> Source:
    """The store that a page is about. Raises Refused if the cache has none of this key."""
    if fields["store"] not in stores.by_key:
        raise Refused(404, "the cache has no such feature store; the list of stores has all of them")
    return stores.by_key[fields["store"]]


def checked_image(source: Source, image: int) -> int:
    checked(image < source.store.num_images, "image")
    return image


def checked(is_right: bool, name: str) -> None:
    if not is_right:
        raise Refused(404, f"the parameter {name!r} is out of range for this store")


def unit_facts(backbone: str, unit: int) -> tuple[tuple[int, int, int], tuple[int, int, int, int], int]:
    """(channel, row, column) of a unit of `pool5`, its receptive field in the crop, and the side of the crop in pixels."""
    from pipeline.explorer.receptive_field import receptive_field, unit_place

    place, crop_size = unit_place(backbone, unit)
    return place, receptive_field(backbone, *place[1:]), crop_size
