"""Parts of a batch of square crops: only the activations of one part at a time are in memory. Needs no torch."""

BATCH_SIZE = 128  # crops in a step of fine-tuning: pascal_finetune_train.prototxt of rbgirshick/rcnn
PIXELS_AT_A_TIME = 32 * 227**2  # ours


def parts_of(rows: int, side: int, pixels: int = PIXELS_AT_A_TIME) -> list[slice]:
    """The parts of a batch of so many crops of `side` x `side` pixels; a part has at most so many `pixels`, or one crop."""
    size = max(1, pixels // side**2)
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]
