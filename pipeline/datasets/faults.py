"""What is wrong with the files of a data set, told once a kind: how often, and the first few cases."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import PipelineError

ON_BAD_ANNOTATION = ("error", "clip", "drop")
EXAMPLES = 3  # cases of a kind that are quoted; the others are counted


@dataclass(frozen=True)
class Remark:
    """One kind of fault: `count` cases of it, and the first of them, as sentences that name file and object.

    A text quotes EXAMPLES of them; there may be more, or one that stands for several cases.
    """

    kind: str
    advice: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        if self.count == 1:
            return f"{self.examples[0]}; {self.advice}"
        first = "all" if self.count <= EXAMPLES and self.count == len(self.examples) else "the first"
        return f"{self.count:,} {self.kind}; {self.advice}; {first}: {'; '.join(self.examples[:EXAMPLES])}"

    def to_json(self) -> dict:
        return {"kind": self.kind, "advice": self.advice, "count": self.count, "examples": list(self.examples)}

    @classmethod
    def from_json(cls, data: dict) -> "Remark":
        return cls(data["kind"], data["advice"], data["count"], tuple(data["examples"]))


class Remarks:
    """Remarks while cases come in; a kind with another advice is another remark."""

    def __init__(self):
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, kind: str, message: str, advice: str) -> None:
        key = kind, advice
        self._counts[key] = self._counts.get(key, 0) + 1
        examples = self._examples.setdefault(key, [])
        if len(examples) < EXAMPLES:
            examples.append(message)

    def adopt(self, remark: Remark) -> None:
        """Adds a remark that is complete."""
        self._counts[remark.kind, remark.advice] = remark.count
        self._examples[remark.kind, remark.advice] = list(remark.examples)

    def __bool__(self) -> bool:
        return bool(self._counts)

    @property
    def all(self) -> tuple[Remark, ...]:
        """In the order of their first cases."""
        return tuple(Remark(kind, advice, count, tuple(self._examples[kind, advice]))
                     for (kind, advice), count in self._counts.items())


class Faults:
    """What is wrong with a split: `errors` end the reading, `dropped` are objects left out, `notes` are only told.

    A fault has a kind, in the plural ("boxes outside their image"), a message that names its file and object, and what to do
    about it. With `on_bad_annotation` "clip" or "drop", objects that cannot be right are left out. Raises PipelineError when it
    is none of ON_BAD_ANNOTATION.
    """

    def __init__(self, on_bad_annotation: str = "error"):
        if on_bad_annotation not in ON_BAD_ANNOTATION:
            raise PipelineError(f"on_bad_annotation is '{on_bad_annotation}'; expected one of {', '.join(ON_BAD_ANNOTATION)}")
        self.errors, self.dropped, self.notes = Remarks(), Remarks(), Remarks()
        self._bad_objects = self.errors if on_bad_annotation == "error" else self.dropped

    def error(self, kind: str, message: str, advice: str) -> None:
        self.errors.add(kind, message, advice)

    def bad_object(self, kind: str, message: str, advice: str) -> None:
        """An object that cannot be right: left out or an error, as the user wants it."""
        self._bad_objects.add(kind, message, advice)

    def note(self, kind: str, message: str, advice: str) -> None:
        self.notes.add(kind, message, advice)

    @contextmanager
    def collected(self, kind: str) -> Iterator[None]:
        """Takes a PipelineError; what follows its last semicolon is the advice."""
        try:
            yield
        except PipelineError as error:
            for line in error.lines:
                message, _, advice = line.rpartition("; ") if "; " in line else (line, "", "mend that")
                self.error(kind, message, advice)


class ObjectFaults:
    """The faults of one object: `where` names it, `any` says whether there was one."""

    def __init__(self, faults: Faults, where: str):
        self._faults, self.where, self.any = faults, where, False

    def error(self, kind: str, text: str, advice: str) -> None:
        self.any = True
        self._faults.error(kind, f"{self.where} {text}", advice)

    def bad_object(self, kind: str, text: str, advice: str) -> None:
        self.any = True
        self._faults.bad_object(kind, f"{self.where} {text}", advice)
