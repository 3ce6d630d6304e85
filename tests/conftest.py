"""Fixtures that many tests share."""

import http.server
import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.tiers import choose_profile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it starts in the background ignore Ctrl-C, and the tests' commands would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_configure(config):
    choose_profile(config.option.markexpr)


@pytest.fixture
def shared():
    """The folder of reference data beside the checkout: outputs of the original releases, photographs, weights."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data absent: {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture
def oracle(shared):
    """A function that loads one file of outputs of the original releases."""

    def load(name: str) -> dict:
        path = shared / "oracles" / name
        if not path.is_file():
            pytest.skip(f"oracle absent: {name}")
        with np.load(path, allow_pickle=False) as data:
            return dict(data)

    return load


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; from where a Range header says if `server.ranges`, and no more than `server.cut` bytes at once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        self.server.requested.append(self.path)
        if self.server.answer:
            self.server.answer(self)
            return
        content, asked = self.server.files.get(self.path), self.headers.get("Range") if self.server.ranges else None
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if content is None or first >= len(content):
            self.send_error(404 if content is None else 416)
            return
        self.server.starts.append(first)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:][: self.server.cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def file_server(monkeypatch):
    """A server on this machine. `files` maps paths to bytes, `answer(handler)` answers instead; see `_Handler`.

    `requested` are the paths that it was asked for, `starts` the bytes from which it sent files.
    """
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.files, running.ranges, running.cut, running.answer = {}, True, None, None
        running.requested, running.starts = [], []
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def write_detector():
    """write_detector(folder, chain, backbone) writes what `ExportDetector` does: random weights, the classes `cat` and `dog`."""
    import torch

    from pipeline.detector_folder import WITHOUT_PROPOSALS
    from pipeline.fast_rcnn.network import FastRCNN
    from pipeline.faster_rcnn.rpn_training import AnchorLayout, make_rpn
    from pipeline.later_detectors.names import ARCHITECTURES
    from pipeline.later_detectors.network import Design, LaterDetector
    from pipeline.networks.backbones import make_backbone
    from pipeline.networks.weights import save_tensors
    from pipeline.r_fcn.network import RFCN
    from pipeline.rcnn.box_regression import BoxRegressors
    from pipeline.rcnn.svm import EVENT, LinearSVMs
    from pipeline.sliding_window.network import WindowNetwork
    from pipeline.spp_net.pyramid_layers import put_on_pyramid

    classes, count = ("cat", "dog"), np.zeros(2, np.int64)
    common = {"precision": "float32", "max_per_image": 20, "nms_threshold": 0.3, "max_detections": 30}
    design = {"trunk": "tiny", "size": 64, "channels": 16, "regions": 8}
    sides = {"shorter_side": 120, "longest_side": 200}
    anchors = {"anchor_scales": [1, 2, 4], "anchor_ratios": [0.5, 1, 2], "before_nms": 0, "after_nms": 30}
    settings = {
        "rcnn": {"context_padding": 16, "batch_size": 32},
        "spp-net": {"scales": [120, 200], "longest_side": 400, "levels": [1, 2]},
        "fast-rcnn": sides, "faster-rcnn": sides | anchors, "r-fcn": sides | anchors,
        "sliding-window": {
            "window_scales": [0.5, 1], "window_min_score": 0.2, "window_merge": "greedy", "window_merge_threshold": 0.7,
        },
        **{chain: design | {"min_score": 0.01} for chain in ARCHITECTURES},
        "ssd": design | {"size": 300, "min_score": 0.01},
    }

    def write(folder: Path, chain: str, name: str = "tiny") -> Path:
        torch.manual_seed(0)
        generator = np.random.default_rng(0)
        folder.mkdir()
        backbone = make_backbone(name)
        layer = backbone.last_layer
        if chain in ("rcnn", "spp-net"):
            names = ("backbone.safetensors", "svms.npz", "regressors.npz")
            pooled = backbone.sizes["pool5"]
            if chain == "spp-net":
                pooled = 5 * backbone.view.channels
                layer = layer if layer.startswith("fc") else "pool5"
            if chain == "spp-net" and layer != "pool5":
                put_on_pyramid(backbone, (1, 2))
            save_tensors(backbone, folder / names[0])
            size = pooled if layer == "pool5" else backbone.sizes[layer]
            weights = generator.normal(size=(size, 2)) / size
            svms = LinearSVMs(classes, weights, count, 1.0, count, count, count, np.zeros(0, EVENT), np.zeros((0, 3), int))
            beta, eyes = generator.normal(size=(2, pooled + 1, 4)) / pooled, np.tile(np.eye(4), (2, 1, 1))
            regressors = BoxRegressors(classes, np.zeros((2, 4)), eyes, eyes, beta, 0.1, 1000.0, count, count)
            np.savez(folder / names[1], **svms.to_arrays())
            np.savez(folder / names[2], **regressors.to_arrays())
        else:
            proposes = chain in ("faster-rcnn", "r-fcn")
            names = ("network.safetensors", "rpn.safetensors") if proposes else ("network.safetensors",)
            if chain in ARCHITECTURES:
                values = (settings[chain][key] for key in ("size", "channels", "regions"))
                network = LaterDetector(Design(chain, name, *values), 3, backbone)
            else:
                networks = {"sliding-window": WindowNetwork, "r-fcn": lambda backbone, classes: RFCN(backbone, classes, 3)}
                network = networks.get(chain, FastRCNN)(backbone, 2)
            save_tensors(network, folder / names[0])
            if proposes:
                save_tensors(make_rpn(backbone, AnchorLayout((1, 2, 4), (0.5, 1, 2))), folder / names[1])
        proposals = {"method": "balanced", "max_boxes": 40, "image_width": 0, "seed": 0}
        (folder / "detector.json").write_text(json.dumps({
            "chain": chain, "classes": classes,
            "settings": {"backbone": name, **({"layer": layer} if "svms.npz" in names else {})} | common | settings[chain],
            "parts": {name.partition(".")[0]: name for name in names},
            "proposals": None if chain in WITHOUT_PROPOSALS else proposals,
        }))
        return folder

    return write
