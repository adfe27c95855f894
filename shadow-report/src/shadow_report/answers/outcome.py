"""What a pair can be: the two tables that every count, gate and figure rests on."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Answer(IntEnum):
    """What is known of one side's answer to a call."""

    NO_CALL = 0
    """The side was not called, or its call was not recorded."""
    NONE = 1
    """A request without a response: the process died in the middle of it."""
    FAILED = 2
    """A status outside 200 to 299."""
    CUT = 3
    """Stored cut, so that its values are not known."""
    UNPARSEABLE = 4
    """Neither JSON nor tensors."""
    VALUES = 5


class Outcome(IntEnum):
    """What became of one pair, or of one value in it; of several, the greatest counts."""

    EQUAL = 0
    WITHIN_TOLERANCE = 1
    MENDED = 2
    """The primary's answer is faulty, the shadow's is not."""
    BOTH_FAULTY = 3
    EXTRA = 4
    ORDER = 5
    TEXT = 6
    SIMILARITY = 7
    """Texts or vectors are less alike than the rule for them asks for."""
    ITEMS = 8
    """Lists whose order does not count have items that the other side lacks."""
    LABEL = 9
    NUMBER = 10
    LENGTH = 11
    MISSING = 12
    TYPE = 13
    NON_FINITE = 14
    UNPARSEABLE = 15
    FAILED = 16

    @property
    def is_fault(self) -> bool:
        """A new fault: the shadow's answer is broken and the primary's is not."""
        return self >= Outcome.LENGTH

    @property
    def is_disagreement(self) -> bool:
        """Both answers are sound, and they disagree."""
        return Outcome.EXTRA <= self <= Outcome.NUMBER

    @property
    def title(self) -> str:
        """The name in reports: `non-finite`, `within tolerance`."""
        return "non-finite" if self is Outcome.NON_FINITE else self.name.lower().replace("_", " ")


IS_FAULT = np.array([outcome.is_fault for outcome in Outcome])
IS_DISAGREEMENT = np.array([outcome.is_disagreement for outcome in Outcome])
"""By outcome, for whole arrays of them."""


_EQ, _MD, _BF, _TX, _UP, _FL = (
    Outcome.EQUAL,
    Outcome.MENDED,
    Outcome.BOTH_FAULTY,
    Outcome.TEXT,
    Outcome.UNPARSEABLE,
    Outcome.FAILED,
)
OUTCOME_OF: NDArray[np.int8] = np.array(
    [  # The shadow's: no call, none, failed, cut, unparseable, values. The primary's:
        [_BF, _BF, _BF, _MD, _MD, _MD],  # no call; such rows are calls, not pairs
        [_BF, _BF, _BF, _MD, _MD, _MD],  # none
        [_BF, _BF, _BF, _MD, _MD, _MD],  # failed
        [_FL, _FL, _FL, _EQ, _EQ, _EQ],  # cut: nothing is compared
        [_FL, _FL, _FL, _EQ, _TX, _MD],  # unparseable
        [_FL, _FL, _FL, _EQ, _UP, _EQ],  # values: they may make it graver
    ],
    dtype=np.int8,
)
"""By the primary's `Answer` and the shadow's, before values are compared."""
