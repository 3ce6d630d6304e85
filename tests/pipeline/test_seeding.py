"""Seeds: fixed values, and no two names that share one."""

import hashlib
import itertools

import numpy as np

from pipeline.seeding import derive_seed, make_generator


def test_values_are_fixed():
    """A change here changes every random choice of the pipeline, and so every artefact."""
    assert derive_seed(0, "windows", 0) == 3431221633251452110
    assert derive_seed(7) == 4359823973405836615
    assert make_generator(0, "windows", 0).integers(2**31, size=3).tolist() == [1658269596, 1683933562, 1530448048]


def test_is_the_first_63_bits_of_a_sha256():
    digest = hashlib.sha256(b"3\x1fstage\x1fimage").hexdigest()
    assert derive_seed(3, "stage", "image") == int(digest[:16], 16) // 2


def test_seeds_and_names_all_differ():
    names = ["", "a", "b", "ab", "bc", "abc", "1", "11"]
    tuples = [combination for count in range(4) for combination in itertools.product(names, repeat=count)]
    seeds = [derive_seed(seed, *combination) for seed in (0, 1, 11) for combination in tuples]
    assert len(set(seeds)) == len(seeds)


def test_where_one_name_ends_and_the_next_begins_matters():
    assert derive_seed(0, "a", "bc") != derive_seed(0, "ab", "c")
    assert derive_seed(1, "1") != derive_seed(11)
    assert derive_seed(0, "a") != derive_seed(0, "a", "")


def test_numbers_are_names_and_numpy_seeds_are_numbers():
    assert derive_seed(np.int64(5), "step", np.int32(3)) == derive_seed(5, "step", 3) == derive_seed(5, "step", "3")


def test_torch_and_numpy_take_them():
    seeds = [derive_seed(0, step) for step in range(1000)]
    assert 2**62 < max(seeds) < 2**63
    assert min(seeds) >= 0


def test_generators_repeat_and_are_independent():
    first, again, another = (make_generator(0, "stage", name).random(5) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert not np.isin(first, another).any()
