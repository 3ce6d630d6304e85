"""One random generator for each stage and image, so that neither order nor number of workers changes a draw."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on the user's `seed` and on `names` (the stage, then the image or step) alone."""
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy generator of (`seed`, `names`)."""
    return np.random.default_rng(derive_seed(seed, *names))
