"""How two answers can differ, from harmless to grave."""

from enum import IntEnum


class Outcome(IntEnum):
    """What became of one pair, or of one value in it; of several, the greatest counts.

    From `LENGTH` on it is a new fault: the shadow's answer is broken and the primary's is not.
    From `EXTRA` to `NUMBER` both answers are sound and disagree.
    """

    EQUAL = 0
    WITHIN_TOLERANCE = 1
    MENDED = 2
    """The primary's answer is faulty, the shadow's is not."""
    BOTH_FAULTY = 3
    EXTRA = 4
    ORDER = 5
    TEXT = 6
    LABEL = 7
    NUMBER = 8
    LENGTH = 9
    MISSING = 10
    TYPE = 11
    NON_FINITE = 12
    UNPARSEABLE = 13
    FAILED = 14

    @property
    def is_fault(self) -> bool:
        return self >= Outcome.LENGTH

    @property
    def is_disagreement(self) -> bool:
        return Outcome.EXTRA <= self <= Outcome.NUMBER

    @property
    def title(self) -> str:
        """The name in reports: `non-finite`, `within tolerance`."""
        return _TITLES.get(self, self.name.lower().replace("_", " "))


_TITLES = {Outcome.NON_FINITE: "non-finite"}
