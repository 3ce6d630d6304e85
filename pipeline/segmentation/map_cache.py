"""Maps of images that a frozen encoder made, kept in memory as far as they fit; the others are made again, to the same values."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor


class MapCache:
    """Keeps what was used last, up to `megabytes`."""

    def __init__(self, megabytes: float):
        self.capacity = int(megabytes * 2**20)
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The maps of `key`: kept ones, or those that `make` makes."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        maps = make()
        size = size_of(maps)
        if size > self.capacity:
            return maps
        self._kept[key] = maps
        self._size += size
        while self._size > self.capacity:
            self._size -= size_of(self._kept.popitem(last=False)[1])
        return maps


def size_of(maps: Any) -> int:
    """The bytes of all tensors in `maps`: a tensor, a sequence, or an object with fields."""
    if isinstance(maps, Tensor):
        return maps.nbytes
    if isinstance(maps, (list, tuple)):
        return sum(map(size_of, maps))
    return sum(map(size_of, vars(maps).values())) if hasattr(maps, "__dict__") else 0
