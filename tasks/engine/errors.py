"""Errors that the user can fix. Only their message is shown; any other exception is a bug and keeps its traceback."""


class UserError(ValueError):
    """Says what is wrong and what to do, in one line, with an indented line for each of `more`.

    Names from outside may contain any character. So each line is made printable: it cannot control the terminal or start a line.
    """

    def __init__(self, message: str = "", *more: str):
        self.lines = tuple(map(printable, (message, *more)))
        super().__init__("\n  ".join(self.lines))

    def __reduce__(self):  # pickle would call the class with the whole text as the first line
        return type(self), self.lines


class StorageError(UserError):
    """The system refuses to read or write the cache, or loses what a stage has written."""


def printable(text) -> str:
    """`str(text)` on one line, with a backslash escape for each character that cannot be printed."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text))


def printable_lines(text) -> str:
    """As `printable`, but keeps line ends."""
    return "\n".join(map(printable, str(text).split("\n")))
