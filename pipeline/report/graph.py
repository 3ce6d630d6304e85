"""A layered picture of a graph without cycles (Sugiyama et al. 1981): places of nodes and courses of edges.

1. Edges that a longer way implies are left out.
2. A node's layer is the length of the longest way to it; a source stands right above the first node that needs it.
3. An edge over several layers passes an empty place in each between.
4. Each layer is ordered by the mean place of its neighbours above, then below, in turn; the order with fewest crossings stays.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

NODE, ROW, BOX = 150, 70, (140, 40)  # pixels: a node's width, a layer's height, the size of a node's box
SWEEPS = 12
EMPTY = 0.25  # width of an empty place, of a node's


@dataclass(frozen=True)
class Layout:
    """`places` of nodes: (x, layer), x in widths of a node from 0 on; each edge's `courses` through such places; the `width`."""

    places: dict[str, tuple[float, int]]
    courses: list[list[tuple[float, int]]]
    width: float
    layers: int


def lay_out(inputs: dict[str, list[str]]) -> Layout:
    """Places the nodes of `inputs`, which names each node's sources; other names are left out."""
    inputs = {node: [source for source in dict.fromkeys(sources) if source in inputs] for node, sources in inputs.items()}

    @cache
    def ancestors(node: str) -> frozenset[str]:
        return frozenset(inputs[node]).union(*map(ancestors, inputs[node]))

    needed = {node: [source for source in sources if not any(source in ancestors(another) for another in sources)]
              for node, sources in inputs.items()}

    @cache
    def depth(node: str) -> int:
        return 1 + max(map(depth, needed[node]), default=-1)

    uses = {node: [depth(user) for user in needed if node in needed[user]] for node in needed}
    layer = {node: depth(node) if needed[node] else min(uses[node], default=1) - 1 for node in needed}
    rows: list[list] = [[] for _ in range(1 + max(layer.values(), default=-1))]
    for node in needed:
        rows[layer[node]].append(node)
    above: dict = {}
    ways = []
    for user, source in ((node, source) for node in needed for source in needed[node]):
        way: list = [source, *((source, user, level) for level in range(layer[source] + 1, layer[user])), user]
        for empty in way[1:-1]:
            rows[empty[2]].append(empty)
        for upper, lower in pairwise(way):
            above.setdefault(lower, []).append(upper)
        ways.append(way)
    rows = _ordered(rows, above)
    x = _places(rows)
    level = {place: number for number, row in enumerate(rows) for place in row}
    courses = [[(x[place], level[place]) for place in way] for way in ways]
    width = max((_width(row) for row in rows), default=0.0)
    return Layout({node: (x[node], layer[node]) for node in needed}, courses, width, len(rows))


@dataclass(frozen=True)
class Drawing:
    """`boxes`: the upper left corner of each node's box of size `box`; `paths` of edges in SVG's terms; size of all in pixels."""

    boxes: dict[str, tuple[float, float]]
    paths: list[str]
    width: float
    height: float
    box: tuple[int, int] = BOX


def draw(inputs: dict[str, list[str]]) -> Drawing:
    """The layout of `inputs` (see `lay_out`) in pixels, edges running down in curves."""
    layout, margin = lay_out(inputs), (ROW - BOX[1]) / 2
    boxes = {node: (x * NODE - BOX[0] / 2, layer * ROW + margin) for node, (x, layer) in layout.places.items()}
    paths = []
    for course in layout.courses:
        (x, layer), *rest = [(x * NODE, layer) for x, layer in course]
        path = f"M{x:.0f} {(layer + 1) * ROW - margin:.0f}"
        for next_x, layer in rest:
            top = layer * ROW + margin
            path += f"C{x:.0f} {top - margin:.0f} {next_x:.0f} {top - margin:.0f} {next_x:.0f} {top:.0f}"
            x = next_x
            if (next_x, layer) != rest[-1]:
                path += f"V{(layer + 1) * ROW - margin:.0f}"
        paths.append(path)
    return Drawing(boxes, paths, layout.width * NODE, layout.layers * ROW)


def crossings(rows: list[list], above: dict) -> int:
    """How many pairs of edges cross between neighbouring layers; `above` names what each place is joined to one layer up."""
    total = 0
    for upper, lower in pairwise(rows):
        place = {node: number for number, node in enumerate(upper)}
        ends = [place[source] for node in lower for source in sorted(above.get(node, ()), key=place.__getitem__)]
        total += sum(first > second for number, first in enumerate(ends) for second in ends[number + 1:])
    return total


def _ordered(rows: list[list], above: dict) -> list[list]:
    below: dict = {}
    for node, sources in above.items():
        for source in sources:
            below.setdefault(source, []).append(node)
    best, fewest = rows, crossings(rows, above)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        rows = list(rows)
        for number in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            beside = {node: place for place, node in enumerate(rows[number - 1 if down else number + 1])}
            joined, row = above if down else below, rows[number]
            own = {node: place * len(beside) / len(row) for place, node in enumerate(row)}
            means = {node: _mean([beside[place] for place in joined.get(node, ())], own[node]) for node in row}
            rows[number] = sorted(row, key=means.__getitem__)
        if (crossed := crossings(rows, above)) < fewest:
            best, fewest = rows, crossed
    return best


def _mean(values: list[int], default: float) -> float:
    return sum(values) / len(values) if values else default


def _width(row: list) -> float:
    return sum(1 if isinstance(place, str) else EMPTY for place in row)


def _places(rows: list[list]) -> dict:
    """The middle of each place, layers centred."""
    widest, x = max(map(_width, rows), default=0.0), {}
    for row in rows:
        left = (widest - _width(row)) / 2
        for place in row:
            own = 1 if isinstance(place, str) else EMPTY
            x[place] = left + own / 2
            left += own
    return x
