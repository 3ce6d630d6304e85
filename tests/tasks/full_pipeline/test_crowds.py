"""Whole runs on images unlike VOC's: with 180 objects each, and with objects too small for the proposals."""

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
OBJECT = "<object><name>square</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def write_squares(folder, corners, *, side, size):
    """A data set in VOC's layout of 4 images to train and 2 to test: dark squares at `corners(generator)` [n x 2]."""
    generator, (width, height) = np.random.default_rng(0), size
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, count in ("train", 4), ("test", 2):
        ids = [f"{split}{number}" for number in range(count)]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(ids))
        for id in ids:
            pixels = generator.integers(200, 210, (height, width, 3)).astype(np.uint8)
            places = corners(generator).tolist()
            for x, y in places:
                pixels[y : y + side, x : x + side] = generator.integers(40, 90, 3)
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{id}.png")
            objects = "".join(OBJECT.format(x + 1, y + 1, x + side, y + side) for x, y in places)
            shape = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            text = f"<annotation><filename>{id}.png</filename>{shape}{objects}</annotation>"
            (folder / "Annotations" / f"{id}.xml").write_text(text)


def grid(columns, rows, step):
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    return np.stack([x, y], axis=-1).reshape(-1, 2) * step + 4


def recall(project, before):
    """The share of the test objects that was found in the run after `before`."""
    (folder,) = {name for name in project.manifests() if name.startswith("Evaluate/")} - before.keys()
    return json.loads((project.cache / folder / "evaluation.json").read_text())["classes"]["square"]["recall"][-1]


def test_crowded_images_lose_no_object_by_default_and_the_releases_limits_say_so(miniatures):
    project = miniatures()
    write_squares(project.folder / "crowds", lambda generator: grid(18, 10, 24), side=17, size=(440, 250))
    run = ("Evaluate", "--dataset", "crowds", "--chain", "rcnn", "--max-proposals", "1000")
    before = project.manifests()
    output = project.run(*run)
    assert recall(project, before) >= 170 / 180
    assert "-per-image" not in output
    assert "--max-detections" not in output
    assert "COCO's metrics count at most 100 detections per class and image; 2 of 2 images have more" in output
    before = project.manifests()
    output = project.run(*run, "--max-per-image", "100", "--mean-per-image", "40")
    assert recall(project, before) < 100 / 180
    assert "--max-per-image 100 leaves out " in output
    assert "--mean-per-image 40 leaves out " in output


def test_objects_that_no_proposal_reaches(miniatures):
    project = miniatures()
    write_squares(
        project.folder / "small", lambda generator: 64 * generator.permutation(grid(20, 20, 1))[:20], side=13, size=(1600, 1600)
    )
    run = ("RegionProposals", "--dataset", "small", "--split", "test")
    output = project.run(*run)
    assert "split 'test': the proposals reach none of 40 objects (IoU 0.5 or more)" in output
    assert "the shorter sides of these objects are 13 to 13 pixels" in output
    assert "give --image-width 1600" in output
    output = project.run(*run, "--image-width", "1600", "--max-proposals", "2000")
    assert "the proposals reach" not in output
