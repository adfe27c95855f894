"""`shadow-report maintain`: partitions for the days to come, and no more days than wanted.

The work is one SQL function, `maintain_partitions`, in one transaction under a lock of its own, so
running it at any time, twice at once, or killing it in the middle does no harm.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg.rows import class_row

from shadow_report import OneLineError, SettingWrong
from shadow_report.evidence.database import failure, place
from shadow_report.settings import parse_span

# A long comparison or another maintain holds the locks for a while; the function itself waits 5 s.
ATTEMPTS = 12
PAUSE_SECONDS = 5.0
BUSY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that was done: a day's partition was `created` or `dropped`."""

    action: str
    partition: str
    moved_rows: int
    """Rows of that day that had waited in the default partition."""

    def __str__(self) -> str:
        moved = f", {self.moved_rows:,} waiting rows moved into it" if self.moved_rows else ""
        return f"{self.action} {self.partition}{moved}"


def maintain(
    uri: str,
    keep: timedelta | None,
    ahead: int,
    *,
    attempts: int = ATTEMPTS,
    say: Callable[[str], None] = lambda _: None,
) -> list[Action]:
    """Make the partitions from today to `ahead` days on, drop days that ended before `keep`.

    keep None drops nothing. Tries again while the tables are in use, for a minute or two; then,
    and on any other failure, OneLineError.
    """
    for attempt in range(1, attempts + 1):
        try:
            with psycopg.connect(uri, connect_timeout=10, autocommit=True) as connection:
                cursor = connection.cursor(row_factory=class_row(Action))
                cursor.execute(
                    "SELECT action, partition, moved_rows FROM maintain_partitions(%s, %s)",
                    (keep, ahead),
                )
                return cursor.fetchall()
        except BUSY:
            if attempt < attempts:
                say(f"The tables are in use; trying again ({attempt + 1} of {attempts}).")
                time.sleep(PAUSE_SECONDS)
        except psycopg.Error as error:
            raise failure(error, uri, "maintenance") from error
    raise OneLineError(
        f"The tables at {place(uri)} were in use all the time, by a long comparison or another "
        "maintain; nothing was changed, run it again later."
    )


def keep_of(text: str | None) -> timedelta | None:
    """The retention; SettingWrong when it is less than a day."""
    if text is None:
        return None
    kept = parse_span(text, "--keep")
    if kept < timedelta(days=1):
        raise SettingWrong(
            f"--keep is '{text}', less than a day; partitions are days, keep at least 1d."
        )
    return kept
