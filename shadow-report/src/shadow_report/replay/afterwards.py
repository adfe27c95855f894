"""After the last call: wait until the candidate's records are in the tables, then compare them."""

import asyncio
from datetime import datetime, timedelta

from rich.console import Console

from shadow_report.compare import compare
from shadow_report.output import print_report
from shadow_report.replay.ledger import Ledger
from shadow_report.replay.state import State
from shadow_report.replay.stored_calls import StoredCalls
from shadow_report.settings import Comparison
from shadow_report.verdict import Outcome

# Transformers write a second or so behind; after a database's pause it takes longer.
RECORDS_SECONDS = 30.0
LOOK_SECONDS = 0.5


async def wait_for_records(
    calls: StoredCalls, ledger: Ledger, started: datetime, console: Console
) -> str | None:
    """The candidate's InferenceService, as its records name it; None when it recorded nothing.

    Waits until the last pairs that were answered are recorded, as long as more of them arrive.
    """
    expected = list(dict.fromkeys(ledger.answered_pairs))
    most, shadow = 0, None
    waited = 0.0
    while expected and waited < RECORDS_SECONDS:
        recorded = await calls.recorded(expected, started)
        if recorded:
            shadow = next(iter(recorded))
            if recorded[shadow] >= len(expected):
                return shadow
            waited = 0.0 if recorded[shadow] > most else waited
            most = recorded[shadow]
        await asyncio.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
    if expected:
        console.print(
            f"Of the last {len(expected):,} pairs {most:,} are in the tables after "
            f"{RECORDS_SECONDS:g} s. Does the candidate's transformer record to this database, "
            "with SHADOW_ROLE=shadow?",
            style="yellow",
            highlight=False,
        )
    return shadow


def compare_run(uri: str, state: State, shadow: str | None) -> int:
    """Print the comparison of this run, and return its exit code."""
    settings = Comparison(
        primary=state.primary,
        shadow=shadow,
        since=state.since,
        until=state.until,
        shadow_since=state.started,
        settle=timedelta(0),
    )
    report = compare(uri, settings)
    print_report(report, Console())
    return Outcome(report.verdict).exit_code
