"""Duplicates: hashes worked by hand, copies of drawn images, and pairs against a slow search."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pipeline.description.duplicates import MOST_BITS, difference_hash, groups, near_pairs


def picture(seed: int) -> Image.Image:
    """A smooth image, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((240, 180), Image.Resampling.BICUBIC)


def saved(image: Image.Image, format: str, **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, **options)
    return Image.open(file)


def distance(first: Image.Image, second: Image.Image) -> int:
    return (difference_hash(first) ^ difference_hash(second)).bit_count()


def test_hashes_by_hand():
    brighter = np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))
    assert difference_hash(Image.fromarray(brighter)) == 2**64 - 1
    assert difference_hash(Image.fromarray(brighter[:, ::-1].copy())) == 0
    assert difference_hash(Image.new("RGB", (50, 40), "red")) == 0
    pixels = np.zeros((8, 9), np.uint8)
    pixels[0, 1] = 200  # only the first pixel of the first row is darker than the one to its right
    assert difference_hash(Image.fromarray(pixels)) == 1 << 63


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_near_and_others_are_not(seed):
    image = picture(seed)
    copies = [image.resize((90, 70)), saved(image, "JPEG", quality=30), saved(image, "PNG"),
              ImageEnhance.Brightness(image).enhance(0.9)]
    assert all(distance(image, copy) <= MOST_BITS for copy in copies)
    assert all(distance(image, picture(other_seed)) > 2 * MOST_BITS for other_seed in range(seed + 1, seed + 20))


few_bits = st.lists(st.integers(0, 63), max_size=9).map(lambda bits: sum(1 << bit for bit in set(bits)))


@given(st.lists(st.one_of(few_bits, few_bits.map(lambda value: value ^ (2**64 - 1)), st.integers(0, 2**64 - 1)), max_size=30))
def test_pairs_join_what_a_slow_search_joins(hashes):
    slow = [(first, second) for second in range(len(hashes)) for first in range(second)
            if hashes[first] and hashes[second] and (hashes[first] ^ hashes[second]).bit_count() <= MOST_BITS]
    pairs = near_pairs(hashes)
    assert set(pairs) <= set(slow)
    assert groups(len(hashes), pairs) == groups(len(hashes), slow)


def test_groups():
    assert groups(7, [(0, 2), (5, 2), (4, 3)]) == [[0, 2, 5], [3, 4]]
    assert groups(3, []) == []
