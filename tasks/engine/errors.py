"""Errors that the user can mend. Their message is shown alone; any other exception is a bug and keeps its traceback."""


class UserError(ValueError):
    """What is wrong, and what to do: one line, and one indented line for each of `more`.

    Names from outside can hold anything. So each line is made printable: nothing in it steers the terminal or starts a line.
    """

    def __init__(self, message: str = "", *more: str):
        self.lines = tuple(map(printable, (message, *more)))
        super().__init__("\n  ".join(self.lines))

    def __reduce__(self):  # an exception crosses processes by its arguments, and its own is the whole text
        return type(self), self.lines


class StorageError(UserError):
    """The system refuses to read or write the cache, or loses what was written."""


def printable(text) -> str:
    """`str(text)` on one line, with a backslash escape for each character that cannot be printed."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text))


def printable_lines(text) -> str:
    """As `printable`, but line ends stay."""
    return "\n".join(map(printable, str(text).split("\n")))
