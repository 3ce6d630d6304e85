"""YOLO folders as tools write them, after their documentation: images of 20 x 12 pixels, each with a cat."""

CAT = "0 0.3 0.416667 0.4 0.666667\n"  # tool_folders.BOX with six decimals
OUTLINE = "0 0.1 0.083333 0.5 0.083333 0.5 0.75 0.3 0.5 0.1 0.75\n"  # around the same box
A, B = "IMG_1_jpg.rf.0a1b", "IMG_2_jpg.rf.2c3d"
ROBOFLOW = """train: ../train/images
val: ../valid/images
test: ../test/images

nc: 2
names: ['cat', 'dog']

roboflow:
  workspace: me
  project: cats
  version: 1
  license: CC BY 4.0
  url: https://universe.roboflow.com/me/cats/dataset/1
"""
ULTRALYTICS = """# Cats
path: ../datasets/cats8 # dataset root dir
train: images/train # train images (relative to 'path')
val: images/val
test: # optional

names:
  0: cat
  1: dog

download: https://github.com/ultralytics/assets/releases/download/v0.0.0/cats8.zip
"""
# The files of each, and of each of its splits the images with their ids.
YOLO_TOOLS = {
    "Ultralytics": (
        {"cats8.yaml": ULTRALYTICS, "LICENSE": "", "README.md": "cats", "images/train/a.jpg": None, "labels/train/a.txt": CAT,
         "images/train/more/c.PNG": None, "labels/train/more/c.txt": CAT, "images/val/b.jpg": None, "labels/val/b.txt": OUTLINE,
         "labels/train.cache": "\0"},
        {"train": {"a": "images/train/a.jpg", "c": "images/train/more/c.PNG"}, "val": {"b": "images/val/b.jpg"}}),
    "Ultralytics, folders per split, several": (
        {"data.yaml": "path: .\ntrain: [train/images, extra/images]\nval: valid/images/\nnames: [cat]\n",
         "train/images/a.jpg": None, "train/labels/a.txt": CAT, "extra/images/a.jpg": None, "extra/labels/a.txt": CAT,
         "valid/images/b.jpg": None, "valid/labels/b.txt": CAT},
        {"train": {"train/images/a": "train/images/a.jpg", "extra/images/a": "extra/images/a.jpg"},
         "val": {"b": "valid/images/b.jpg"}}),
    "Roboflow": (
        {"data.yaml": ROBOFLOW, "README.dataset.txt": "cats", "README.roboflow.txt": "cats", **{
            f"{split}/{name}": content for split in ("train", "valid", "test") for name, content in
            {f"images/{A}.jpg": None, f"labels/{A}.txt": CAT, f"images/{B}.jpg": None, f"labels/{B}.txt": OUTLINE}.items()}},
        {split: {A: f"{folder}/images/{A}.jpg", B: f"{folder}/images/{B}.jpg"}
         for split, folder in (("train", "train"), ("val", "valid"), ("test", "test"))}),
    "CVAT's Ultralytics YOLO 1.0": (
        {"data.yaml": "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n", "train.txt": "data/images/train/a.jpg\n"
         "data/images/train/sub/b.jpg\n", "images/train/a.jpg": None, "images/train/sub/b.jpg": None,
         "labels/train/a.txt": CAT, "labels/train/sub/b.txt": CAT},
        {"train": {"a": "images/train/a.jpg", "b": "images/train/sub/b.jpg"}}),
    "CVAT's Ultralytics YOLO 1.0, after its guide": (
        {"data.yaml": "path:  ./ # dataset root dir\ntrain: train.txt\nnames:\n  0: cat\n", "train.txt": "images/train/a.jpg\n",
         "images/train/a.jpg": None, "labels/train/a.txt": CAT},
        {"train": {"a": "images/train/a.jpg"}}),
    "CVAT's YOLO 1.1": (
        {"obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n",
         "obj.names": "cat\ndog\n", "train.txt": "data/obj_train_data/a.jpg\n", "obj_train_data/a.jpg": None,
         "obj_train_data/a.txt": CAT, "valid.txt": "data/obj_valid_data/b.jpg\n", "obj_valid_data/b.jpg": None,
         "obj_valid_data/b.txt": CAT},
        {"train": {"a": "obj_train_data/a.jpg"}, "valid": {"b": "obj_valid_data/b.jpg"}}),
    "FiftyOne": (
        {"dataset.yaml": "names:\n  0: cat\npath: /home/me/cats\ntrain: ./images/train/\nval: ./images/val/\n",
         "images/train/a.jpg": None, "labels/train/a.txt": CAT, "images/val/b.jpg": None, "labels/val/b.txt": CAT},
        {"train": {"a": "images/train/a.jpg"}, "val": {"b": "images/val/b.jpg"}}),
    "Label Studio": (
        {"classes.txt": "cat\ndog", "notes.json": '{"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2026}}',
         "images/0a1b-a.jpg": None, "labels/0a1b-a.txt": CAT},
        {"all": {"0a1b-a": "images/0a1b-a.jpg"}}),
    "labelImg": (
        {"classes.txt": "cat\n", "a.jpg": None, "a.txt": CAT, "IMG 2 (1).jpg": None, "IMG 2 (1).txt": CAT},
        {"all": {"IMG 2 (1)": "IMG 2 (1).jpg", "a": "a.jpg"}}),
    "lists with ./": (
        {"data.yaml": "train: lists/train.txt\nval: lists/val.txt\nnames: [cat]\n", "lists/train.txt": "./images/a.jpg\n",
         "lists/images/a.jpg": None, "lists/labels/a.txt": CAT, "lists/val.txt": "\n./images/b.jpg\r\n",
         "lists/images/b.jpg": None, "lists/labels/b.txt": CAT},
        {"train": {"a": "lists/images/a.jpg"}, "val": {"b": "lists/images/b.jpg"}}),
}
