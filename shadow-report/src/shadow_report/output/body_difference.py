"""Where two bodies differ, token by token, so that a reader's eye finds it."""

import re
from difflib import SequenceMatcher

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|.', re.DOTALL)
# The matcher's time grows with the square of the tokens.
MOST_TOKENS = 500

Parts = list[tuple[str, bool]]


def marked(primary: str, shadow: str) -> tuple[Parts, Parts]:
    """Both texts as (text, differs) parts; long ones are left unmarked."""
    left, right = TOKEN.findall(primary), TOKEN.findall(shadow)
    if max(len(left), len(right)) > MOST_TOKENS:
        return [(primary, False)], [(shadow, False)]
    first: Parts = []
    second: Parts = []
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for kind, low, high, other_low, other_high in matcher.get_opcodes():
        if high > low:
            first.append(("".join(left[low:high]), kind != "equal"))
        if other_high > other_low:
            second.append(("".join(right[other_low:other_high]), kind != "equal"))
    return first, second
