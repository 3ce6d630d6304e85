"""The Semantic Boundaries Dataset (Hariharan et al. 2011): masks of VOC's classes for 11,355 of VOC's photographs.

    benchmark_RELEASE/dataset/cls/<id>.mat     GTcls.Segmentation: the class of each pixel, numbered as VOC's
    benchmark_RELEASE/dataset/inst/<id>.mat    GTinst.Segmentation: the object of each pixel
    benchmark_RELEASE/dataset/{train,val}.txt  its own split, which is another than VOC's

Its masks have no void borders. They are added to a folder of VOC 2012: a photograph that VOC has a mask of keeps VOC's, and the
photographs of VOC's `val` stay out of all lists for training.
"""

import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.datasets.masks import MASK_FOLDERS, VOID, write_mask
from pipeline.datasets.voc_archives import MASK_LISTS, read_members
from pipeline.errors import PipelineError
from pipeline.files.writing import write_file
from pipeline.text import flat

FIELDS = {"cls": ("GTcls", "class_mask"), "inst": ("GTinst", "instance_mask")}  # by folder
LISTS = ("train.txt", "val.txt")
# The lists that are written: all masks but those of VOC's `val`, and those of SBD's own `train`, as the release of FCN has it.
ALL, SBD_TRAIN = "trainaug", "sbdtrain"


def unpack_sbd(archive: Path, root: Path) -> dict[str, int]:
    """Adds the masks and lists of the archive to the VOC folder `root`, which has VOC's own masks already.

    Returns how many masks were added, how many photographs keep VOC's mask, and how many of SBD's are in VOC's `val` and so left
    out. Raises PipelineError, naming the member, for one that is no such file, and for an archive that cannot be read.
    """
    lists: dict[str, list[str]] = {}
    of_voc = {name: _read_list(root, name) for name in ("train", "val")}
    known = {*of_voc["train"], *of_voc["val"]}
    added: set[str] = set()

    def take(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = PurePosixPath(member.name)
        folder = path.parts[2:-1]  # below benchmark_RELEASE/dataset
        if not member.isfile() or path.parts[1:2] != ("dataset",):
            return
        if not folder and path.name in LISTS:
            lists[path.stem] = _content(tar, member).decode().split()
        elif len(folder) == 1 and folder[0] in FIELDS and path.suffix == ".mat" and path.stem not in known:
            variable, field = FIELDS[folder[0]]
            mask = _read_mat(f"{archive}: '{member.name}'", _content(tar, member), variable)
            write_mask(root / MASK_FOLDERS[field] / f"{path.stem}.png", mask)
            if field == "class_mask":
                added.add(path.stem)

    read_members(archive, root, take, "r:gz")
    if missing := [name for name in LISTS if PurePosixPath(name).stem not in lists]:
        raise PipelineError(f"{archive}: has no dataset/{' and no dataset/'.join(missing)}; get it elsewhere")
    listed = {*lists["train"], *lists["val"]}
    held_out = set(of_voc["val"])
    _write_list(root, ALL, (added | set(of_voc["train"])) - held_out)
    _write_list(root, SBD_TRAIN, set(lists["train"]) - held_out)
    kept = len(listed & set(of_voc["train"]))
    return {"sbd_masks": len(added), "masks_of_voc_kept": kept, "sbd_images_in_voc_val": len(listed & held_out)}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = tar.extractfile(member)
    assert source is not None  # `member` is a file
    with source:
        return source.read()


def _read_mat(where: str, content: bytes, variable: str) -> np.ndarray:
    from scipy.io import loadmat

    try:
        mask = loadmat(io.BytesIO(content))[variable]["Segmentation"][0, 0]
    except Exception as error:  # whatever damaged files make of a reader of many formats
        fault = f"is no MATLAB file with {variable}.Segmentation ({flat(error)})"
        raise PipelineError(f"{where} {fault}; get it elsewhere") from error
    if mask.ndim != 2 or not mask.size or not np.issubdtype(mask.dtype, np.integer) or mask.min() < 0 or mask.max() > VOID:
        raise PipelineError(f"{where} has no mask of whole numbers from 0 to {VOID}; get it elsewhere")
    return mask.astype(np.uint8)


def _read_list(root: Path, name: str) -> list[str]:
    return root.joinpath(*MASK_LISTS, f"{name}.txt").read_text().split()


def _write_list(root: Path, name: str, ids: set[str]) -> None:
    write_file(root.joinpath(*MASK_LISTS, f"{name}.txt"), "".join(f"{id}\n" for id in sorted(ids)))
