"""Text for the terminal."""

from pipeline.text import printable

WIDTH = 120


def say(line: str) -> None:
    """Prints one line. Control characters, which a file's name may contain, are escaped."""
    print(printable(line).rstrip())


def cut(text: str, width: int) -> str:
    """`text` as `say` prints it; if it is longer than `width`, its beginning and three dots."""
    text = printable(text)
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."


def show_size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def show_age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
