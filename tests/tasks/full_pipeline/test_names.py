"""A whole run on a data set in COCO's format whose ids, categories and names are unlike ours."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
CLASSES = {17: "Cabinet/shelf", 3: "100 % cat"}
SIDE, SIZE = 40, (160, 120)


def write_split(folder, split, first_id):
    """Three images, each with a square of each class: dark and bright."""
    generator = np.random.default_rng(first_id)
    document = {"images": [], "categories": [{"id": id, "name": name} for id, name in CLASSES.items()], "annotations": []}
    for name in ("annotations", f"images/{split}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(3):
        pixels = generator.integers(110, 130, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        name, id = f"IMG {number} ({split}).png", first_id + 5 * number
        document["images"].append({"id": id, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for place, (category, grey) in enumerate(zip(CLASSES, (20, 240), strict=True)):
            x, y = generator.integers(5, 35, 2).tolist()
            x += 80 * place
            pixels[y:y + SIDE, x:x + SIDE] = grey
            document["annotations"].append({
                "id": len(document["annotations"]) + 1, "image_id": id, "category_id": category, "bbox": [x, y, SIDE, SIDE],
                "area": SIDE**2, "iscrowd": 0})
        Image.fromarray(pixels).save(folder / "images" / split / name)
    (folder / f"annotations/instances_{split}.json").write_text(json.dumps(document))


def test_results_have_the_names_of_the_users_file(miniatures):
    project = miniatures()
    for split, first_id in ("train", 100), ("val", 900):
        write_split(project.folder / "mine", split, first_id)
    project.run("FullPipeline", "--dataset", "mine", "--test-split", "val", "--chains", "rcnn", "--report", "true")
    (folder,) = {path.parent for path in project.cache.glob("DetectRCNN/*/coco.json")}
    names = json.loads((folder / "coco.names.json").read_text())
    assert {entry["id"]: entry["name"] for entry in names["categories"]} == CLASSES
    assert [entry["id"] for entry in names["images"]] == [900, 905, 910]
    assert {path.name for path in (folder / "voc").iterdir()} == {
        "comp4_det_val_Cabinet%2Fshelf.txt", "comp4_det_val_100 %25 cat.txt"}
    (table,) = project.cache.glob("Evaluate/*/evaluation.json")
    ours = json.loads(table.read_text())["coco"]["metrics"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(project.folder / "mine/annotations/instances_val.json"))
        theirs = COCOeval(truth, truth.loadRes(str(folder / "coco.json")), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    np.testing.assert_allclose(theirs.stats[:3], [ours["ap"], ours["ap_50"], ours["ap_75"]], atol=1e-6)
    assert ours["ap_50"] > 0
    assert "Cabinet/shelf" in (project.cache / "latest/report.html").read_text()
