"""The error that a user can mend: its message names the object, what was found, what was expected and what to do."""

from pipeline.text import printable


class PipelineError(ValueError):
    """Bad input or settings. Shown to the user as its message alone; any other exception is a bug and keeps its traceback.

    The message is one line; each of `more` is a further one, indented. Names from outside can hold anything, so that each line is
    made printable: nothing in it steers the terminal or starts a new line.
    """

    def __init__(self, message: str = "", *more: str):
        self.lines = tuple(map(printable, (message, *more)))
        super().__init__("\n  ".join(self.lines))

    def __reduce__(self):  # an exception crosses processes by its arguments, and its own is the whole text
        return type(self), self.lines


class DatasetError(PipelineError):
    """Everything that is wrong with one split of a data set, reported together.

    `problems` holds one line for each kind of fault, each naming file and object; together they stand for `count` faults, as many
    as there are lines where None.
    """

    def __init__(self, summary: str, problems: list[str], count: int | None = None):
        self.summary, self.problems = summary, list(problems)
        self.count = len(self.problems) if count is None else count
        super().__init__(f"{summary}: {self.count:,} problem(s)", *self.problems)

    def __reduce__(self):
        return type(self), (self.summary, self.problems, self.count)


class FileError(PipelineError):
    """What is wrong with the content of the file at `path`."""

    def __init__(self, path, message: str):
        super().__init__(message)
        self.path = path

    def __reduce__(self):
        return type(self), (self.path, str(self))


class ChangedFile(FileError):
    """A file that is not, or no longer, the one that its digest belongs to."""


class DamagedFile(FileError):
    """A file that does not hold what was written to it."""
