"""Text from outside, as a message, a log or a terminal may show it."""

import reprlib

LONGEST = 300
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 100, 100, 60


def printable(text) -> str:
    """`str(text)` on one line, with a backslash escape for each sign that cannot be printed.

    That is what could steer a terminal (escape sequences, line ends, marks that turn the direction of writing), and what no
    encoding can hold (lone surrogates, which Python makes of bytes that are no text).
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def printable_lines(text) -> str:
    """As `printable`, but the line ends `\\n` of `text` stay."""
    return "\n".join(map(printable, str(text).split("\n")))


def shown(value) -> str:
    """A value from outside for a message: its `repr`, shortened where it is long or deeply nested."""
    return printable(_SHORT.repr(value))


def flat(error: BaseException) -> str:
    """What a library says of its error, on one line of at most LONGEST signs: line ends and indents become single spaces."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
