"""Score maps over their image."""

import base64
import io

import numpy as np
from PIL import Image

from pipeline.files.writing import write_arrays
from pipeline.report.score_maps import DARKEST, score_maps

SIDE, STEP = 20, 4  # frame: 5 pixels. At the scale 1 the centres of windows are at 5, 9, 13, ... of a 20 x 20 image.
COSTS = {"window_side": SIDE, "window_step": STEP, "by_scale": [{"scale": 1.0}, {"scale": 2.0}]}


def test_bright_where_the_sure_window_is(tmp_path):
    probabilities = np.zeros((3, 6, 6), np.float32)
    probabilities[0] = 1
    probabilities[:, 2, 1] = 0, 0.25, 0.75  # its centre is at x = 9, y = 13
    write_arrays(tmp_path / "maps.npz", {"scale_0": probabilities, "scale_1": np.repeat(probabilities[:, :1], 9, axis=1)})
    first, second = score_maps(np.full((20, 20, 3), 200, np.uint8), tmp_path / "maps.npz", COSTS, ("a", "b"))
    assert (first["scale"], first["rows"], first["columns"], first["name"], first["score"]) == (1.0, 6, 6, "b", 0.75)
    assert (second["rows"], second["columns"]) == (9, 6)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(first["uri"].partition(",")[2]))))[:, :, 0]
    assert abs(int(picture[12, 8]) - 200) < 25
    assert abs(int(picture[3, 16]) - 200 * DARKEST) < 25
    bright = np.argwhere(picture > 150)
    np.testing.assert_allclose(bright.mean(axis=0) + 0.5, [13, 9], atol=1)
