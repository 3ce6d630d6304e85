"""A detector's folder that somebody else made: every value is right or told of in a line, and no file elsewhere is taken."""

import contextlib
import copy
import json
import os
import shutil

import numpy as np
import pytest

from pipeline.detector import Detector
from pipeline.detector_folder import PARTS, SUFFIXES, part_paths, read_settings
from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.weights import save_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
VALUES = [
    None, True, -1, 0, 1.5, 10**400, "", "x", "\x1b[31m\n", "1", [], {}, [[]], [[[[[[1]]]]]], {"a": {"b": []}}, ["x"], [0], [-1],
    [10**9], [1] * 1000, [True], float("nan"), float("inf"),
]

# The chains whose detectors differ most; together they have every kind of part.
FEW = "rcnn", "faster-rcnn", "mask-rcnn"
SOME_PARTS = [chain if chain in FEW else pytest.param(chain, marks=pytest.mark.exhaustive) for chain in PARTS]

OPTIONAL = ("parts", "regressors"), ("proposals",), ("settings", "max_detections")
LATER_SETTINGS = (  # older detectors have none
    ("spp-net", "settings", "layer"), ("localisation", "settings", "mirror"), ("localisation", "settings", "looks"),
)


@pytest.fixture(scope="module")
def folders(write_detector, tmp_path_factory):
    root = tmp_path_factory.mktemp("detectors")
    return {chain: write_detector(root / chain, chain) for chain in PARTS}


@pytest.fixture
def copied(folders, tmp_path):
    """copied(chain) -> a folder of its own, and what its detector.json says."""

    def make(chain):
        shutil.copytree(folders[chain], tmp_path / chain)
        return tmp_path / chain, json.loads((tmp_path / chain / "detector.json").read_text())

    return make


def refusal(folder, document=None):
    if document is not None:
        (folder / "detector.json").write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(PipelineError) as caught:
        Detector.load(folder)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"{folder}/")
    return str(caught.value).removeprefix(f"{folder}/")


def places(value, path=()):
    """Where values are in a JSON value, from without to within."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for number in range(len(value)):
            yield from places(value[number], (*path, number))


def is_taken(folder):
    try:
        return bool(read_settings(folder))
    except PipelineError:
        return False


def changed(document, place, value):
    document = copy.deepcopy(document)
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    if place:
        inner[place[-1]] = value
        return document
    return value


@pytest.mark.parametrize("chain", PARTS)
def test_as_it_should_be(folders, chain):
    document = read_settings(folders[chain])
    assert document == json.loads((folders[chain] / "detector.json").read_text())
    assert {path.name for path in part_paths(folders[chain], document).values()} == set(document["parts"].values())
    assert all(document["parts"][part].endswith(SUFFIXES[part]) for part in document["parts"])


@pytest.mark.parametrize(("ids", "fault"), [
    ([3, 17], None), (["a", 17], None), (None, None), ([3], "category_ids has 1 different ids, for 2 classes"),
    ([3, 3], "category_ids has 1 different ids"), ([3, 1.5], "an id in category_ids is 1.5, expected a whole number or a text"),
    ("ab", "category_ids is 'ab', expected null or a list"), ([3, True], "category_ids is True, expected a whole number"),
])
def test_ids_of_categories(copied, ids, fault):
    folder, document = copied("faster-rcnn")
    document["category_ids"] = ids
    if fault:
        assert fault in refusal(folder, document)
    else:
        (folder / "detector.json").write_text(json.dumps(document))
        assert read_settings(folder)["category_ids"] == ids


@pytest.mark.parametrize(("name", "value", "fault"), [
    ("thresholds", {"split": "val", "also": None, "scores": [0.5, None]}, None), ("thresholds", None, None),
    ("thresholds", [0.5, 1], "thresholds is [0.5, 1], expected null or an object"),
    ("thresholds", {"scores": [0.5, 1]}, "thresholds.split is None, expected a name"),
    ("thresholds", {"split": "val", "also": "x", "scores": [0.5, 1]}, "thresholds.also is 'x', expected null, training or test"),
    ("thresholds", {"split": "val", "also": [], "scores": [0.5, 1]}, "thresholds.also is [], expected null, training or test"),
    ("thresholds", {"split": "val", "scores": [0.5]},
     "thresholds.scores is [0.5], expected a list of 2, each null or a finite number"),
    ("thresholds", {"split": "val", "scores": [0.5, 1e300]}, "thresholds.scores is [0.5, 1e+300], expected a list of 2"),
    ("thresholds", {"split": "val", "scores": [True, 1]}, "thresholds.scores is [True, 1], expected a list of 2"),
    ("thresholds", {"split": "val"}, "thresholds.scores is None, expected a list of 2"),
    ("calibration", [[2, -1.5], None], None), ("calibration", None, None),
    ("calibration", [[2], None], "calibration is [[2], None], expected a list of 2, each null or two finite numbers"),
    ("calibration", [2, 1], "calibration is [2, 1], expected a list of 2, each null or two finite numbers"),
])
def test_thresholds_and_probabilities(copied, name, value, fault):
    folder, document = copied("faster-rcnn")
    document[name] = value
    if fault:
        assert fault in refusal(folder, document)
    else:
        (folder / "detector.json").write_text(json.dumps(document))
        assert read_settings(folder)[name] == value


@pytest.mark.parametrize(("views", "fault"), [
    ({"scales": [90, 120], "longest": 200, "mirror": True}, None), (None, None),
    ([90], "settings.views is [90], expected null or an object"),
    ({"longest": 200, "mirror": True}, "settings.views.scales is None, expected a list"),
    ({"scales": [0], "longest": 200, "mirror": True}, "settings.views.scales is [0], expected a list"),
    ({"scales": [90], "longest": "200", "mirror": True}, "settings.views.longest is '200', expected a whole number"),
    ({"scales": [90], "longest": 200, "mirror": 1}, "settings.views.mirror is 1, expected true or false"),
])
def test_views(copied, views, fault):
    folder, document = copied("fast-rcnn")
    document["settings"]["views"] = views
    if fault:
        assert fault in refusal(folder, document)
    else:
        (folder / "detector.json").write_text(json.dumps(document))
        used = Detector.load(folder).chain.views
        assert (used.scales, used.mirror) == (((90, 120), True) if views else ((120,), False))


@pytest.mark.parametrize("chain", PARTS)
def test_one_of_before_there_was_a_limit_of_detections_has_none(copied, chain):
    folder, document = copied(chain)
    del document["settings"]["max_detections"]
    (folder / "detector.json").write_text(json.dumps(document))
    assert read_settings(folder)["settings"]["max_detections"] == 0
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    assert Detector.load(folder).detect(pixels).left_out.detections == 0


@pytest.mark.parametrize("chain", SOME_PARTS)
def test_any_value_anywhere_is_right_or_told_of(copied, chain):
    """Each value is replaced by another type, another size, nothing, or removed. A detector that is accepted can be used."""
    folder, document = copied(chain)
    pixels, taken = np.zeros((30, 40, 3), np.uint8), 0
    for place in places(document):
        for value in VALUES:
            (folder / "detector.json").write_text(json.dumps(changed(document, place, value)))
            with pytest.raises(PipelineError) if not is_taken(folder) else contextlib.suppress(PipelineError) as caught:
                taken += 1
                Detector.load(folder).detect(pixels)
            if caught:
                taken -= 1
                assert str(caught.value).isprintable()
                assert str(caught.value).startswith(f"{folder}/detector.json: not a detector's file (")
    assert 1 < taken < 40


@pytest.mark.parametrize("chain", PARTS)
def test_what_is_missing_is_told_of(copied, chain):
    folder, document = copied(chain)
    for place in places(document):
        if place and isinstance(place[-1], str) and place not in OPTIONAL and (chain, *place) not in LATER_SETTINGS:
            less = copy.deepcopy(document)
            inner = less
            for step in place[:-1]:
                inner = inner[step]
            del inner[place[-1]]
            assert refusal(folder, less).startswith("detector.json: not a detector's file (")


@pytest.mark.parametrize("text", [
    "[" * 10**5, '{"chain":' * 10**5, '{"parts": ' + "[" * 5000 + "]" * 5000 + "}", '"\\ud800"', '{"chain": "\\udcff"}', "NaN",
    "1" * 5000,    '{"settings": {"max_per_image": ' + "1" * 5000 + "}}", "null", "1", '"rcnn"', "\x1b[31m",
])
def test_json_of_all_kinds(copied, text):
    folder, _ = copied("fast-rcnn")
    message = refusal(folder, text)
    assert message.startswith("detector.json: not a detector's file (")
    assert message.endswith("; give a folder that ExportDetector made")
    assert len(message) < 500


def test_what_is_no_file(copied):
    for kind, make in (("a named pipe", os.mkfifo), ("a device", lambda path: path.symlink_to("/dev/zero"))):
        for chain in ("rcnn", "fast-rcnn"):
            folder, document = copied(chain)
            for name in ("detector.json", *document["parts"].values()):
                (folder / name).rename(folder / "aside")
                make(folder / name)
                message = refusal(folder)
                assert kind in message or "out of the detector's folder" in message
                (folder / "aside").replace(folder / name)
            shutil.rmtree(folder)


@pytest.mark.parametrize("name", [
    "../other/{}", "/{folder}/other/{}", "sub/{}", "./{}", "..", ".", "", "sub\\{}", "{}\0", "../{}", "\ud800{}", "detector.json",
])
def test_names_that_are_not_plain(copied, tmp_path, name):
    folder, document = copied("fast-rcnn")
    part = document["parts"]["network"]
    for place in (folder / "sub", tmp_path / "other", tmp_path):
        place.mkdir(exist_ok=True)
        shutil.copy(folder / part, place / part)
    document["parts"]["network"] = name.format(part, folder=tmp_path)
    message = refusal(folder, document)
    assert message.startswith("detector.json: not a detector's file (")


@pytest.mark.parametrize("through", ["file", "folder", "two links"])
def test_links_out_of_the_folder(copied, tmp_path, through):
    folder, document = copied("rcnn")
    for part in document["parts"].values():
        outside = tmp_path / f"outside-{part}"
        (folder / part).rename(outside)
        if through == "two links":
            (folder / "between").unlink(missing_ok=True)
            (folder / "between").symlink_to(outside)
            (folder / part).symlink_to("between")
        elif through == "folder":
            (folder / "sub").mkdir(exist_ok=True)
            shutil.copy(outside, folder / "sub" / part)
            (folder / part).symlink_to(f"sub/{part}")
        else:
            (folder / part).symlink_to(outside)
        assert ", out of the detector's folder; put the file itself there" in refusal(folder)
        (folder / part).unlink()
        outside.rename(folder / part)
    Detector.load(folder)


def test_links_within_and_to_the_folder(copied, tmp_path):
    folder, document = copied("fast-rcnn")
    (folder / document["parts"]["network"]).rename(folder / "weights.safetensors")
    (folder / document["parts"]["network"]).symlink_to("weights.safetensors")
    (tmp_path / "latest").symlink_to(folder)
    Detector.load(tmp_path / "latest")


@pytest.mark.parametrize("chain", PARTS)
def test_parts_of_other_classes(copied, chain):
    folder, document = copied(chain)
    for classes in (["cat"], ["cat", "dog", "cow"]):
        document["classes"] = classes
        part = "network" if "network" in document["parts"] else "svms"
        assert refusal(folder, document).startswith(f"{document['parts'][part]}: is of ")


@pytest.mark.parametrize(("part", "name", "value"), [
    ("svms", "W", np.zeros((3, 2))), ("svms", "W", np.zeros(2)), ("svms", "W", np.array(["a", "b"])),
    ("svms", "B", np.array(1.0)),
    ("svms", "scale", np.zeros(2)), ("svms", "scale", np.array("x")), ("svms", "scale", np.array(np.nan)),
    ("svms", "B", np.zeros(2, complex)),
    ("svms", "classes", np.array(["a", "b"])), ("svms", "classes", np.array([1, 2])), ("svms", "classes", np.array(3)),
    ("svms", "W", None), ("regressors", "mu", np.zeros((2, 5))), ("regressors", "Beta", np.full((2, 2049, 4), np.inf)),
    ("regressors", "T_inv", np.zeros((2, 4, 4), bool)), ("regressors", "classes", np.array(["dog", "cat"])),
])
def test_arrays_of_other_kinds(copied, part, name, value):
    folder, _ = copied("rcnn")
    with np.load(folder / f"{part}.npz") as file:
        arrays = dict(file)
    arrays[name] = value
    np.savez(folder / f"{part}.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(PipelineError) as caught:
        Detector.load(folder)
    assert str(caught.value).isprintable()


def test_a_layer_that_the_backbone_has_not(copied):
    folder, document = copied("rcnn")
    document["settings"]["layer"] = "fc9"
    (folder / "detector.json").write_text(json.dumps(document))
    with pytest.raises(PipelineError, match="backbone tiny has no layer 'fc9'"):
        Detector.load(folder)


def test_spp_net_without_a_layer_reads_the_pyramid_as_older_ones_do(copied):
    folder, document = copied("spp-net")
    del document["settings"]["layer"]
    (folder / "detector.json").write_text(json.dumps(document))
    assert read_settings(folder)["settings"]["layer"] == "pool5"
    assert refusal(folder).startswith("backbone.safetensors: not the weights of tiny: fc.fc6.weight has shape (256, 640)")
    save_tensors(make_backbone("tiny"), folder / "backbone.safetensors")
    assert refusal(folder).startswith("svms.npz: W is float64 [256, 2], expected finite numbers [640, 2]")


@pytest.mark.parametrize(("settings", "fault"), [
    ({"levels": [1, 3]}, "backbone.safetensors: not layers on a pyramid of levels 1, 3: fc.fc6.weight is of shape (256, 640)"),
    ({"levels": list(range(1, 101))}, "backbone.safetensors: not layers on a pyramid of levels 1, 2, 3"),
    ({"layer": "fc7"}, "backbone tiny has no layer 'fc7'"),
])
def test_spp_net_of_other_levels_or_layers(copied, settings, fault):
    folder, document = copied("spp-net")
    document["settings"] |= settings
    (folder / "detector.json").write_text(json.dumps(document))
    with pytest.raises(PipelineError) as caught:
        Detector.load(folder)
    assert fault in str(caught.value)


@pytest.mark.parametrize("chain", SOME_PARTS)
def test_damaged_files_load_or_are_told_of(copied, chain):
    folder, document = copied(chain)
    generator = np.random.default_rng(0)
    for name in ("detector.json", *document["parts"].values()):
        whole = (folder / name).read_bytes()
        for number in range(60 if name == "detector.json" else 25):
            content = bytearray(whole)
            place = int(generator.integers(min(len(content), 400)))  # headers
            if number % 5:
                content[place] = int(generator.integers(256))
            else:
                del content[place:]
            (folder / name).write_bytes(content)
            with contextlib.suppress(PipelineError):
                Detector.load(folder)
        (folder / name).write_bytes(whole)
