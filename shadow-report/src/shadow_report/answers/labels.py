"""Labels at one path: how often the primary's became which of the shadow's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

# More classes than this are names or sentences, not labels; a confusion matrix would say nothing.
MAX_CLASSES = 50
MAX_LABEL_LENGTH = 60

Label = str | bool | int


class LabelTally:
    """Counts pairs of labels in bounded memory, until there are too many classes to be labels."""

    def __init__(self) -> None:
        self.values = 0
        self.agreeing = 0
        self.counts: Counter[tuple[Label, Label]] = Counter()
        self.is_text = False

    def add(self, primary: Iterable[Label], shadow: Iterable[Label]) -> None:
        """Count values that stand at the same place on both sides."""
        fresh = Counter(zip(primary, shadow, strict=True))
        for pair, count in fresh.items():
            self.values += count
            if pair[0] == pair[1]:
                self.agreeing += count
        if self.is_text or not fresh:
            return
        self.counts.update(fresh)
        classes = {label for pair in self.counts for label in pair}
        if len(classes) > MAX_CLASSES or any(
            isinstance(label, str) and len(label) > MAX_LABEL_LENGTH for label in classes
        ):
            self.is_text = True
            self.counts.clear()
