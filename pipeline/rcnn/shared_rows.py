"""Feature rows in memory, as they come from the store, each held once for all classes that have it among their examples.

All rows lie in one array, so that compiled code can read them by number. It is reserved whole and never moved: the system gives
a page memory when it is first written, so rows that come take no copy of those that are there, and rows that go leave their
places to others.

Shape shorthand: n rows that come or go, D feature size.
"""

import numpy as np


class SharedRows:
    """Places for at most `capacity` rows of D = `num_features` values.

    `values` [capacity x D] has the dtype of the first rows; `held` counts the rows in use.
    """

    def __init__(self, capacity: int, num_features: int):
        self.values = np.empty((0, num_features), np.float16)
        self.held = 0
        self._users = np.zeros(capacity, np.int64)

    @property
    def row_bytes(self) -> int:
        return self.values.itemsize * self.values.shape[1]

    def add(self, rows: np.ndarray, users: np.ndarray) -> np.ndarray:
        """Hold `rows` [n x D] for `users` int [n] classes each, one at least: their places, int64 [n]."""
        if not len(self.values):
            self.values = np.empty((len(self._users), rows.shape[1]), rows.dtype)
        places = np.flatnonzero(self._users == 0)[: len(rows)]
        self.values[places] = rows
        self._users[places] = users
        self.held += len(rows)
        return places

    def release(self, places: np.ndarray) -> None:
        """One class needs the rows at `places` int64 [n], all different, no longer."""
        self._users[places] -= 1
        self.held -= int(np.count_nonzero(self._users[places] == 0))
