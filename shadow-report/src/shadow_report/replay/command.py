"""The command line of `replay`: options, progress, Ctrl-C, and the comparison at the end."""

import asyncio
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shadow_report.replay.afterwards import compare_run, wait_for_records
from shadow_report.replay.pace import parse_rate
from shadow_report.replay.progress import progress_of
from shadow_report.replay.run import Plan, Run
from shadow_report.replay.state import Counts, State, load
from shadow_report.replay.stored_calls import StoredCalls, only_primary, open_stored_calls
from shadow_report.replay.target import parse_target
from shadow_report.settings import SettingWrong, database_uri, parse_time

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Asked:
    """The options as given."""

    primary: str | None
    since: datetime | None
    until: datetime | None
    resume: bool


def replay_command(
    *,
    to: Annotated[
        str, typer.Option(metavar="URL", help="The candidate's address, as http://host:8080.")
    ],
    rate: Annotated[
        str | None,
        typer.Option(metavar="N/s", help="At most so many calls per second, as 50/s or 600/m."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="At most so many calls at once.")
    ] = 8,
    original_timing: Annotated[
        bool,
        typer.Option("--original-timing", help="Keep the calls as far apart as they once came."),
    ] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Calls from this time on (ISO 8601, UTC).")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Calls before this time; by default now.")
    ] = None,
    primary: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The primary InferenceService, when there are several."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="The longest wait for an answer.")
    ] = 60.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the replay that was stopped.")
    ] = False,
    state: Annotated[
        Path, typer.Option(metavar="FILE", help="Where a stopped replay is kept.")
    ] = Path("shadow-replay.json"),
) -> None:
    """Send the primary's stored calls to a candidate under their own pair ids, then compare.

    The candidate needs the recording transformer with SHADOW_ROLE=shadow and this database, so
    that its answers can be compared. The exit code is that of `compare`.
    """
    asked = Asked(primary, time_of(since, "--since"), time_of(until, "--until"), resume)
    plan = Plan(
        parse_target(to),
        concurrency,
        parse_rate(rate) if rate else None,
        original_timing,
        timeout,
        state,
    )
    raise typer.Exit(asyncio.run(replay(database_uri(), plan, asked)))


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
    going = asyncio.ensure_future(run.go(calls))
    signals = 0

    def interrupt() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            run.stop()
        else:
            going.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        return await going
    except asyncio.CancelledError:
        return False
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


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


def time_of(text: str | None, option: str) -> datetime | None:
    """A time in UTC."""
    return None if text is None else parse_time(text, option).astimezone(UTC)
