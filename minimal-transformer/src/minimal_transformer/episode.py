"""A trouble that lasts is told when it begins and when it is over, not at each record."""

from __future__ import annotations

import logging
import time

# A folder at its cap takes a record now and then; that is still the same trouble.
QUIET_SECONDS = 1.0


class Episode:
    """Counts what a trouble cost and logs its two ends; not safe for threads."""

    def __init__(self, logger: logging.Logger, over: str) -> None:
        self._logger = logger
        self._over = over
        self._last = 0.0
        self.count = 0

    def hit(self, message: str) -> None:
        """The trouble met one more; `message` says what is wrong and what to do."""
        self._last = time.monotonic()
        self.count += 1
        if self.count == 1:
            self._logger.warning("%s", message)

    def passed(self) -> None:
        """Something went through; the trouble is over once it has met nothing for a second."""
        if self.count and time.monotonic() - self._last > QUIET_SECONDS:
            self.count, count = 0, self.count
            self._logger.warning(self._over, count)
