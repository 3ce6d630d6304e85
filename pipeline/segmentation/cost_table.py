"""The lecture's table: windows around single pixels against networks that see the whole image."""

from collections.abc import Mapping, Sequence

from pipeline.segmentation.costs import Cost
from pipeline.tables import format_table

FCN32S = "fcn32s"


def cost_row(name: str, cost: Cost, stride: int) -> dict:
    """A row of the table. `stride`: there is a window or a score for each so many pixels."""
    return {"name": name, "stride": stride, **cost.to_json()}


def with_ratios(rows: Sequence[Mapping]) -> list[dict]:
    """The rows, each with its multiplications as a multiple of fcn32s's."""
    base = next(row["multiply_adds"] for row in rows if row["name"] == FCN32S)
    return [{**row, "over_fcn32s": row["multiply_adds"] / base} for row in rows]


def cost_table(rows: Sequence[Mapping], seconds: Mapping[str, float]) -> str:
    """The rows as text; `seconds` are those that were measured, by name."""
    lines = [
        [row["name"], str(row["stride"]), str(row["windows"]), f"{row['pixels'] / 1e6:.3f}", f"{row['multiply_adds'] / 1e9:.3f}",
         f"{row['over_fcn32s']:.1f}", f"{row['activations'] / 1e6:.2f}",
         f"{seconds[row['name']]:.3g}" if row["name"] in seconds else "not run"]
        for row in rows
    ]
    headers = ["method", "stride", "windows", "megapixels", "billion multiplications", "times fcn32s", "largest map, millions"]
    return format_table([*headers, "seconds"], lines)
