"""One replay from its first call to the comparison at the end: progress, and Ctrl-C on the way."""

import asyncio
import signal
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console

from shadow_report.errors import SettingWrong
from shadow_report.interruption import INTERRUPTED
from shadow_report.replay.afterwards import compare_run, wait_for_records
from shadow_report.replay.progress import progress_of
from shadow_report.replay.run import Plan, Run
from shadow_report.replay.state import Counts, State, load
from shadow_report.replay.stored_calls import StoredCalls, only_primary, open_stored_calls

__all__ = ["Asked", "Plan", "replay"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options as given."""

    primary: str | None
    since: datetime | None
    until: datetime | None
    resume: bool


async def replay(uri: str, plan: Plan, asked: Asked) -> int:
    """Run the replay and the comparison; the exit code."""
    console = Console(stderr=True)
    async with open_stored_calls(uri) as calls:
        state = await state_of(calls, plan, asked)
        with progress_of(console) as show:
            run = Run(plan, state, show, resumed=asked.resume)
            finished = await until_stopped(run, calls)
        console.print(summary(run.ledger.counts), highlight=False, soft_wrap=True)
        if not finished:
            console.print(
                f"Stopped. Go on with: shadow-report replay --to {plan.target.base} --resume "
                f"--state {plan.state_file}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            return INTERRUPTED
        plan.state_file.unlink(missing_ok=True)
        shadow = await wait_for_records(calls, run.ledger, state.started, console)
    return compare_run(uri, state, shadow)


async def until_stopped(run: Run, calls: StoredCalls) -> bool:
    """Run; the first SIGINT or SIGTERM lets the calls under way end, the second gives them up."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    going = asyncio.ensure_future(run.go(calls))
    signals = 0

    def interrupt() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            run.stop()
        else:
            going.cancel()

    for number in before:
        loop.add_signal_handler(number, interrupt)
    try:
        return await going
    except asyncio.CancelledError:
        return False
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def state_of(calls: StoredCalls, plan: Plan, asked: Asked) -> State:
    """A new replay, or the stopped one when it is of the same candidate."""
    if asked.resume:
        state = load(plan.state_file)
        if state.to != plan.target.base:
            raise SettingWrong(
                f"--to is {plan.target.base}, but the replay in {plan.state_file} goes to "
                f"{state.to}; resume with that address."
            )
        return state
    if plan.state_file.exists():
        raise SettingWrong(
            f"An unfinished replay is in {plan.state_file}; "
            "go on with --resume, or delete the file."
        )
    started = await calls.now()
    until = min(asked.until or started, started)
    primary = only_primary(await calls.primaries(asked.since, until), asked.primary)
    return State(plan.target.base, primary, asked.since, until, started)


def summary(counts: Counts) -> str:
    """What became of the calls, in one line."""
    parts = [f"{counts.answered:,} calls answered"]
    if counts.failed:
        parts[0] += f" ({counts.failed:,} with an error status)"
    if counts.unanswered:
        parts.append(f"{counts.unanswered:,} without an answer")
    parts += [f"{calls:,} skipped: {reason}" for reason, calls in sorted(counts.skipped.items())]
    return "; ".join(parts) + "."
