"""What a pair can be: the two tables that every count, gate and figure rests on."""

from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray


class Answer(IntEnum):
    """What is known of one side's answer to a call, before it is compared."""

    NO_CALL = 0
    """The side was not called, or its call was not recorded."""
    NO_ANSWER = 1
    """A request without a response: the process died in the middle of it."""
    ABANDONED = 2
    """499: whoever called went away before there was an answer."""
    SERVER_ERROR = 3
    """5xx, and any status that HTTP does not know."""
    BROKEN = 4
    """2xx and a stream that broke off, or in which the engine reported an error."""
    CLIENT_ERROR = 5
    """4xx other than 499."""
    REDIRECT = 6
    """3xx."""
    CUT = 7
    """2xx with a body that is stored cut, so that its values are not known."""
    LEFT = 8
    """2xx and a stream whose caller did not wait for its end."""
    UNPARSEABLE = 9
    """2xx with a body that is neither JSON nor tensors; an empty one is such."""
    VALUES = 10
    """2xx with a body that can be compared value by value."""

    @property
    def title(self) -> str:
        """The name in `docs/verdict.md`."""
        return _TITLES[self]


_TITLES = {
    Answer.NO_CALL: "no call",
    Answer.NO_ANSWER: "no answer",
    Answer.ABANDONED: "499",
    Answer.SERVER_ERROR: "5xx",
    Answer.BROKEN: "2xx, broken off",
    Answer.CLIENT_ERROR: "4xx",
    Answer.REDIRECT: "3xx",
    Answer.CUT: "2xx, cut",
    Answer.LEFT: "2xx, left",
    Answer.UNPARSEABLE: "2xx, not JSON",
    Answer.VALUES: "2xx, JSON",
}


class Kind(StrEnum):
    """What became of a pair, for the verdict."""

    EQUAL = "equal"
    WITHIN_TOLERANCE = "within tolerance"
    DIFFERS = "differs"
    NEW_FAULT = "new fault"
    MISSING = "missing"
    NOT_COMPARED = "not compared"


class Outcome(IntEnum):
    """What became of one pair, or of one value in it, more closely; of several the greatest counts.

    From `APPEARED` on the caller would see something else.
    """

    EQUAL = 0
    WITHIN_TOLERANCE = 1
    NOT_COMPARED = 2
    """Nobody can know: a body is stored cut, or the caller did not wait for the primary."""
    APPEARED = 3
    """A value where the primary has none: null, NaN, a body that is not JSON."""
    EXTRA = 4
    ORDER = 5
    NUMBER = 6
    """Beyond its tolerance, which is a matter of degree; what follows says something else."""
    TEXT = 7
    SIMILARITY = 8
    """Texts or vectors are less alike than the rule for them asks for."""
    ITEMS = 9
    """Lists whose order does not count have items that the other side lacks."""
    LABEL = 10
    FORM = 11
    """Missing, of another type or length, where a rule calls the form a matter of content."""
    OTHER_ERROR = 12
    """The same status other than 2xx, and another body."""
    STATUS = 13
    """Another status, and not a new fault."""
    LENGTH = 14
    MISSING = 15
    TYPE = 16
    NON_FINITE = 17
    UNPARSEABLE = 18
    FAILED = 19
    NO_CALL = 20
    """The shadow was not called, or its call was not recorded."""

    @property
    def is_of_values(self) -> bool:
        """A value that is another one, whichever."""
        return Outcome.NUMBER <= self <= Outcome.LABEL and self is not Outcome.ITEMS

    @property
    def is_fault(self) -> bool:
        """A new fault: the shadow's answer is broken and the primary's is not."""
        return Outcome.LENGTH <= self <= Outcome.FAILED

    @property
    def is_disagreement(self) -> bool:
        """The caller would see something else, and neither answer is broken for that."""
        return Outcome.APPEARED <= self <= Outcome.STATUS

    @property
    def kind(self) -> Kind:
        """What it is for the verdict."""
        if self.is_fault:
            return Kind.NEW_FAULT
        return Kind.DIFFERS if self.is_disagreement else _OTHER_KINDS[self]

    @property
    def title(self) -> str:
        """The name in reports: `non-finite`, `within tolerance`."""
        return "non-finite" if self is Outcome.NON_FINITE else self.name.lower().replace("_", " ")

    @property
    def phrase(self) -> str:
        """What is to be said of a place with it: `predictions[*]` "is another number"."""
        return _PHRASES.get(self, f"differs ({self.title})")


_PHRASES = {
    Outcome.APPEARED: "has a value where the primary has none",
    Outcome.EXTRA: "is there on the shadow's side only",
    Outcome.ORDER: "is in another order",
    Outcome.TEXT: "differs",
    Outcome.SIMILARITY: "is less alike than the rule asks for",
    Outcome.ITEMS: "has other items",
    Outcome.LABEL: "is another label",
    Outcome.NUMBER: "is another number",
    Outcome.FORM: "has another form",
    Outcome.OTHER_ERROR: "is another error",
    Outcome.STATUS: "has another status",
    Outcome.LENGTH: "has another length",
    Outcome.MISSING: "is missing",
    Outcome.TYPE: "is of another type",
    Outcome.NON_FINITE: "is null, NaN or infinite",
    Outcome.UNPARSEABLE: "is not JSON",
    Outcome.FAILED: "is a failure",
}

_OTHER_KINDS = {
    Outcome.EQUAL: Kind.EQUAL,
    Outcome.WITHIN_TOLERANCE: Kind.WITHIN_TOLERANCE,
    Outcome.NOT_COMPARED: Kind.NOT_COMPARED,
    Outcome.NO_CALL: Kind.MISSING,
}
IS_FAULT = np.array([outcome.is_fault for outcome in Outcome])
IS_DISAGREEMENT = np.array([outcome.is_disagreement for outcome in Outcome])
"""By outcome, for whole arrays of them."""


_EQ, _NC, _ST, _AP, _TX, _UP, _FL, _NO = (
    Outcome.EQUAL,
    Outcome.NOT_COMPARED,
    Outcome.STATUS,
    Outcome.APPEARED,
    Outcome.TEXT,
    Outcome.UNPARSEABLE,
    Outcome.FAILED,
    Outcome.NO_CALL,
)
OUTCOME_OF: NDArray[np.int8] = np.array(
    [  # The shadow's: no call, no answer, 499, 5xx, broken, 4xx, 3xx, cut, left, not JSON, values.
        [_NC, _NC, _NC, _NC, _NC, _NC, _NC, _NC, _NC, _NC, _NC],  # Primary's: no call; no pairs
        [_NO, _EQ, _NC, _ST, _ST, _ST, _ST, _ST, _NC, _ST, _ST],  # no answer
        [_NO, _FL, _NC, _FL, _FL, _NC, _NC, _NC, _NC, _NC, _NC],  # 499
        [_NO, _ST, _ST, _EQ, _ST, _ST, _ST, _ST, _ST, _ST, _ST],  # 5xx
        [_NO, _ST, _ST, _ST, _EQ, _ST, _ST, _ST, _NC, _ST, _ST],  # broken
        [_NO, _FL, _FL, _FL, _FL, _EQ, _ST, _ST, _ST, _ST, _ST],  # 4xx
        [_NO, _FL, _FL, _FL, _FL, _FL, _EQ, _ST, _ST, _ST, _ST],  # 3xx
        [_NO, _FL, _FL, _FL, _FL, _FL, _FL, _NC, _NC, _NC, _NC],  # cut
        [_NO, _FL, _NC, _FL, _FL, _FL, _FL, _NC, _NC, _NC, _NC],  # left
        [_NO, _FL, _FL, _FL, _FL, _FL, _FL, _NC, _NC, _TX, _AP],  # unparseable
        [_NO, _FL, _FL, _FL, _FL, _FL, _FL, _NC, _NC, _UP, _EQ],  # values
    ],
    dtype=np.int8,
)
"""By the primary's `Answer` and the shadow's. Where `ARE_COMPARED`, another status of the same
class or another body may make it graver, and equal bytes that are not JSON are equal.
"""

ARE_COMPARED: NDArray[np.bool_] = np.zeros(OUTCOME_OF.shape, dtype=bool)
"""Where the bodies are looked at."""
for _answer in (
    Answer.SERVER_ERROR,
    Answer.CLIENT_ERROR,
    Answer.REDIRECT,
    Answer.UNPARSEABLE,
    Answer.VALUES,
):
    ARE_COMPARED[_answer, _answer] = True
