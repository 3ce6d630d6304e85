"""Equal image files: in two splits, or twice in one. They are known by the digests in the records."""

from collections.abc import Iterable

from pipeline.datasets.faults import Remark, Remarks
from pipeline.datasets.records import ImageTable, Split


def note_repeated(images: Iterable[tuple[str, str]], notes: Remarks) -> None:
    """Notes images of a split, each an id and a digest, whose file is equal to that of an image before them."""
    first: dict[str, str] = {}
    for id, digest in images:
        if digest in first:
            message = f"image '{id}' has the same content as image '{first[digest]}'"
            notes.add("images that are in the split twice", message, "it counts as often as it is listed: take out all but one")
        else:
            first[digest] = id


def shared_images(split: Split, train: Split) -> Remark | None:
    """A remark on the images of `split` that are also in the split `train`; None if there are none."""
    trained, notes = {digest: id for id, digest in _digests(train)}, Remarks()
    for id, digest in _digests(split):
        if digest in trained:
            kind = f"images of split '{split.name}' that are also in split '{train.name}'"
            message = f"image '{id}' has the same content as image '{trained[digest]}' of split '{train.name}'"
            notes.add(kind, message, "results on them are better than on new images: take them out of one split")
    return next(iter(notes.all), None)


def _digests(split: Split) -> Iterable[tuple[str, str]]:
    """The id and digest of each image."""
    if isinstance(split.images, ImageTable):
        return split.images.digests()
    return [(image.id, image.digest) for image in split.images]
