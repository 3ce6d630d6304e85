"""The two tiers of tests: `make test` leaves out those marked `exhaustive`, `make test-all` runs everything.

Exhaustive are many cases of one kind, of which the fast tier runs a few. What hypothesis draws follows the tier as well.
"""

from hypothesis import settings

ALL_EXAMPLES, FAST_EXAMPLES = 100, 20  # where a test names no number
WITHOUT_EXHAUSTIVE = "not exhaustive"  # what `make test` gives as -m
FEWEST = 10

settings.register_profile("exhaustive", max_examples=ALL_EXAMPLES)
settings.register_profile("fast", max_examples=FAST_EXAMPLES)


def choose_profile(marks: str) -> None:
    """Loads hypothesis's profile for what pytest was given as -m."""
    settings.load_profile("fast" if WITHOUT_EXHAUSTIVE in marks else "exhaustive")


def examples(count: int) -> int:
    """How many examples a test that wants `count` in the exhaustive tier tries in this one."""
    return max(min(count, FEWEST), count * settings.default.max_examples // ALL_EXAMPLES)
