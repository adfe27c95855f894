"""An outage of Postgres as the log tells it and as the retries pace themselves."""

from __future__ import annotations

import logging
import random
import time

logger = logging.getLogger("minimal_transformer.delivery")

FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 5.0


class Outage:
    """Says once per state what is wrong, and once that it is over and how many calls caught up."""

    def __init__(self) -> None:
        self._states: set[str] = set()
        self._began = 0.0
        self._failures = 0
        self._caught_up = 0

    def hit(self, state: str, advice: str) -> float:
        """An attempt failed; the seconds to wait before the next, longer each time."""
        if not self._states:
            self._began = time.monotonic()
        if state not in self._states:
            self._states.add(state)
            logger.error(
                "Postgres does not take the records: %s They wait on the spool; calls are answered"
                " as ever.",
                advice,
            )
        self._failures += 1
        longest = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311

    def passed(self, records: int) -> None:
        """So many calls were written."""
        self._failures = 0
        if self._states:
            self._caught_up += records

    def over(self) -> None:
        """Nothing waits any more."""
        if self._states:
            logger.warning(
                "Postgres takes the records again after %.1f s; %d calls caught up.",
                time.monotonic() - self._began,
                self._caught_up,
            )
            self._states.clear()
            self._caught_up = 0
