"""Which objects of a split are read: those of all classes, of the known ones, or of those that the user wants."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.datasets.faults import Faults, ObjectFaults, Remark, Remarks
from pipeline.datasets.voc_names import voc_file_name

SHOWN = 10  # class names that a message lists
OTHERS = "objects of other classes"
# Kinds of characters (Unicode's categories): control characters, halves of pairs, ends of lines and of paragraphs.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
MOST_BYTES = 255  # of a file's name, on the usual file systems


class Classes:
    """The class names that objects may have; None stands for any.

    With `only`, the user wants these classes of the data set: objects of others are left out and counted.
    """

    def __init__(self, names: Sequence[str] | None, only: bool = False):
        self.names = None if names is None else tuple(names)
        self._known, self._only = frozenset(self.names or ()), only
        self._left_out: Counter[str] = Counter()

    def leave_out(self, name: str) -> bool:
        """Whether an object of this class is none that the user wants; it is counted then."""
        if not self._only or name in self._known:
            return False
        self._left_out[name] += 1
        return True

    def check(self, here: ObjectFaults, name: str, advice: str) -> None:
        """Tells `here` of an object of an unknown class."""
        if self.names is not None and name not in self._known:
            here.bad_object("objects of no known class", f"is of no known class ({listed(self.names)})", advice)

    def check_all_present(self, present: Iterable[str], where: str, faults: Faults) -> None:
        """Faults for classes without an object among those `present`; a misspelt name is told with the nearest one."""
        present = set(present)
        for name in self.names or ():
            if name not in present:
                nearest = difflib.get_close_matches(name, present.union(self._left_out) - self._known, n=1)
                text = f"{where}: no object is of class '{name}'" + (f" (did you mean '{nearest[0]}'?)" if nearest else "")
                faults.error("classes without an object", text, "change --classes or the annotations")

    def tell(self, faults: Faults, more: str = "") -> None:
        """Adds how many objects were left out, by class, to what was dropped; `more` is added to the advice."""
        if self._left_out:
            count = self._left_out.total()
            by_class = tuple(f"{number:,} object{'s' if number > 1 else ''} of class '{name}'"
                             for name, number in self._left_out.most_common())
            advice = f"left out, since --classes names only {listed(self.names or ())}{more}"
            faults.dropped.adopt(Remark(OTHERS, advice, count, by_class))

    def note_empty(self, ids: Iterable[str], notes: Remarks) -> None:
        """Notes the images without an object of these classes."""
        for id in ids:
            message = f"image '{id}' has no object of {listed(self.names or ())}"
            notes.add("images without an object of --classes", message, "they stay in the split, as background")

    def __str__(self) -> str:
        return "" if self.names is None else f" of {listed(self.names)}"


def listed(names: Sequence[str]) -> str:
    """The names for a message; only the first of many."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def fault_of_class(split: str, name: str) -> str:
    """What is wrong with a class name that stages after the index could not use; empty if nothing is.

    Any characters are possible, except those that end or steer a line: tables and result files have a class a line or a file.
    """
    if not name.strip():
        return "is empty"
    if bad := next((sign for sign in name if unicodedata.category(sign) in UNPRINTABLE), None):
        what = "a line end" if bad in "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029" else "a control character"
        return f"has {what} ({ascii(bad)[1:-1]})"
    size = len(voc_file_name(split, name).encode())
    if size > MOST_BYTES:
        return f"is too long: the name of its result file would have {size:,} bytes, and may have {MOST_BYTES}"
    return ""
