"""The command line of `replay`."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from shadow_report.replay.pace import parse_rate
from shadow_report.replay.target import parse_target
from shadow_report.settings import database_uri, parse_time


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
    # aiohttp takes a while to import, and the other commands have no need of it.
    from shadow_report.replay.session import Asked, Plan, replay  # noqa: PLC0415

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


def time_of(text: str | None, option: str) -> datetime | None:
    """A time in UTC."""
    return None if text is None else parse_time(text, option).astimezone(UTC)
