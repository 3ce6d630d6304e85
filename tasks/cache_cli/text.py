"""Text for the terminal."""

WIDTH = 120


def say(line: str) -> None:
    """Prints one line, whatever is in it: control characters, as a file's name may hold, are written out."""
    print("".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line).rstrip())


def cut(text: str, width: int) -> str:
    """`text`, or its beginning and dots where it is longer than `width`."""
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
