"""The command line: the options of each command, and what it prints."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial, wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shadow_report import OneLineError, SettingWrong
from shadow_report.answers.kinds import UNRULED, Tolerance
from shadow_report.answers.paths import Rule, Rules
from shadow_report.assemble import Ask
from shadow_report.compare import compare, compare_candidates
from shadow_report.judging.questions import Margins, NoiseFloor
from shadow_report.judging.verdict import Verdict
from shadow_report.maintain import keep_of, maintain
from shadow_report.output import print_report, progress_bar, write_json, write_junit, write_page
from shadow_report.report import Judged
from shadow_report.rules import parse_ignored, parse_rule, parse_tolerance, read_rules
from shadow_report.settings import (
    Comparison,
    configured_mirror_share,
    database_uri,
    parse_candidates,
    parse_cluster,
    parse_field,
    parse_noise_floor,
    parse_share,
    parse_span,
    parse_time,
)
from shadow_report.wording import counted

_share = partial(typer.Option, metavar="SHARE")
SPAN_AGO = re.compile(r"(\d+(\.\d+)?[smhdw])+")


def comparison_of(
    *,
    since_rollout: Annotated[
        bool, typer.Option("--since-rollout", help="From the last change of a service or version.")
    ] = False,
    primary: Annotated[str | None, typer.Option(help="The primary's InferenceService.")] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The shadow's InferenceService; several (a,b or repeated) are judged side by side "
            "and share alpha. Else SHADOW_CANDIDATES.",
        ),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Rules by path in YAML, or the preset openai."),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE", help="PATH=KIND[,parameter=value…], like embedding=cosine,least=0.98."
        ),
    ] = None,
    abs_tol: Annotated[
        float | None, typer.Option(help="Absolute tolerance of numbers; else 1e-9.")
    ] = None,
    rel_tol: Annotated[
        float | None, typer.Option(help="Relative tolerance of numbers; else 1e-6.")
    ] = None,
    tolerance: Annotated[
        list[str] | None, typer.Option(help="PATH=ABS[,REL]: the tolerance at and below a path.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="PATH in the answers that is not compared.")
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="Request PATH or header:NAME to slice by.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="What calls that repeat each other share: a request PATH, header:NAME, second, "
            "minute, hour or day; by default the request."
        ),
    ] = None,
    slo_ms: Annotated[float | None, typer.Option(help="Slower answers are slow.")] = None,
    min_coverage: Annotated[str, _share(help="Least share of calls with a pair.")] = "0.99",
    max_new_faults: Annotated[str, _share(help="Largest share of new faults.")] = "0.001",
    max_disagreement: Annotated[str, _share(help="Largest share that disagrees.")] = "0.01",
    max_newly_slow: Annotated[str, _share(help="Largest share of newly slow.")] = "0.01",
    first_token_ratio: Annotated[
        float | None,
        typer.Option(
            help="A stream's first token is late after so many times the primary's, such as 1.5."
        ),
    ] = None,
    max_late_first_tokens: Annotated[
        str, _share(help="Largest share of late first tokens, of the streams.")
    ] = "0.1",
    max_bad: Annotated[
        str | None,
        _share(help="Largest share that is bad in any way; by default the largest of the above."),
    ] = None,
    max_newest_block: Annotated[
        float, typer.Option(help="The newest calls may have so many times each share; 0: any.")
    ] = 1.0,
    max_worst_block: Annotated[
        float, typer.Option(help="Any run of calls may have so many times each share; 0: any.")
    ] = 3.0,
    allow_worse_slices: Annotated[
        bool, typer.Option("--allow-worse-slices", help="Promote whatever the slices show.")
    ] = False,
    noise_floor: Annotated[
        str | None,
        typer.Option(
            metavar="auto|SHARE|off",
            help="Judge only the disagreement above this share, or above the primary's with itself "
            "(auto); by default off, or what the rules say.",
        ),
    ] = None,
    alpha: Annotated[str, _share(help="Chance of a wrong verdict.")] = "0.05",
    min_duration: Annotated[str, typer.Option(help="Shortest window to promote on.")] = "0s",
    warm_up: Annotated[str, typer.Option(help="Left out after mirroring began.")] = "0s",
    settle: Annotated[str, typer.Option(help="Incomplete calls newer than this wait.")] = "30s",
    mirrored_share: Annotated[
        str | None,
        _share(help="Share of the calls that is mirrored; else MIRROR_PERCENTAGE / 100."),
    ] = None,
) -> Comparison:
    """What `compare` and `serve` judge, and how: the options that both have."""
    candidates = parse_candidates(shadow or [])
    compared = _rules(
        rules or [],
        abs_tol,
        rel_tol,
        by_path=(
            *map(parse_rule, rule or []),
            *map(parse_tolerance, tolerance or []),
            *map(parse_ignored, ignore or []),
        ),
    )
    return Comparison(
        margins=_margins(
            min_coverage=parse_share(min_coverage, "--min-coverage"),
            max_faults=parse_share(max_new_faults, "--max-new-faults"),
            max_disagreement=parse_share(max_disagreement, "--max-disagreement"),
            max_slow=parse_share(max_newly_slow, "--max-newly-slow"),
            max_late_first_tokens=parse_share(max_late_first_tokens, "--max-late-first-tokens"),
            max_bad=None if max_bad is None else parse_share(max_bad, "--max-bad"),
            newest_factor=max_newest_block,
            worst_factor=max_worst_block,
            noise_floor=_noise_floor(noise_floor, compared),
            allow_worse_slices=allow_worse_slices,
            alpha=parse_share(alpha, "--alpha"),
            min_duration=parse_span(min_duration, "--min-duration"),
        ),
        rules=compared,
        primary=primary,
        shadow=candidates[0] if len(candidates) == 1 else None,
        candidates=candidates if len(candidates) > 1 else (),
        since_rollout=since_rollout,
        warm_up=parse_span(warm_up, "--warm-up"),
        settle=parse_span(settle, "--settle"),
        mirrored_share=configured_mirror_share()
        if mirrored_share is None
        else parse_share(mirrored_share, "--mirrored-share"),
        slo_ms=slo_ms,
        first_token_ratio=first_token_ratio,
        slices=tuple(parse_field(text, "--slice") for text in slices or []),
        cluster=parse_cluster(cluster) if cluster else None,
    )


def judging(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` the options of `comparison_of` after its own; it gets what they say, as the
    argument `settings`.
    """
    own, shared = (signature(f, eval_str=True).parameters for f in (command, comparison_of))

    @wraps(command)
    def run(**given: Any) -> None:
        settings = comparison_of(**{name: given.pop(name) for name in shared})
        command(settings=settings, **given)

    parameters = {name: p for name, p in own.items() if name != "settings"} | dict(shared)
    run.__signature__ = Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in parameters.items()}
    return run


def _database(context: typer.Context) -> str:
    """POSTGRES_URI. A command asks for it once it has read its options, so `--check` ends here."""
    if context.find_root().params["check"]:
        raise typer.Exit
    return database_uri()


@judging
def compare_command(
    *,
    context: typer.Context,
    settings: Comparison,
    since: Annotated[str | None, typer.Option(help="First call, as an ISO time.")] = None,
    until: Annotated[str | None, typer.Option(help="End of the window, as an ISO time.")] = None,
    last: Annotated[str | None, typer.Option(help="Only the last 90s, 15m, 24h, 7d …")] = None,
    shadow_since: Annotated[
        str | None,
        typer.Option(help="The shadow's calls from this ISO time on count, whenever they came."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible endpoint, as http://judge/v1, that is asked which of two "
            "differing answers is better; requests and answers are sent there. Its key: "
            "OPENAI_API_KEY.",
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The judge's model.")
    ] = None,
    judge_sample: Annotated[
        int, typer.Option(min=1, help="Differing pairs that the judge is asked of, twice each.")
    ] = 100,
    judge_margin: Annotated[
        str | None,
        _share(help="Largest share judged worse, less that judged better; else only shown."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one page.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the gates as JUnit XML.")] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Print every reason, finding and note, and up to ten pairs, three of a kind.",
        ),
    ] = False,
) -> None:
    """Judge the pairs in the tables at POSTGRES_URI.

    Exit code: PROMOTE 0, REJECT 10, WAIT 11, INVALID 12; 1 for a runtime and 2 for a usage error.
    Of several candidates the gravest counts: 0 only where all may be promoted.
    """
    settings = replace(
        settings,
        since=_since(since, last),
        until=parse_time(until, "--until") if until else None,
        shadow_since=parse_time(shadow_since, "--shadow-since") if shadow_since else None,
        judge=judge_model if judge else None,
        judge_sample=judge_sample if judge else 0,
    )
    if judge_margin is not None:
        worse = parse_share(judge_margin, "--judge-margin")
        settings = replace(settings, margins=replace(settings.margins, max_judged_worse=worse))
    ask = _judge(judge, judge_model, judge_margin)
    database = _database(context)
    with progress_bar("comparing pairs", Console(stderr=True)) as progress:
        if settings.candidates:
            report: Judged = compare_candidates(database, settings, progress, ask)
        else:
            report = compare(database, settings, progress, ask)
    publish(report, json=json, html=html, junit=junit, verbose=verbose)
    raise typer.Exit(Verdict(report.verdict).exit_code)


def _judge(url: str | None, model: str | None, margin: str | None) -> Ask | None:
    """Whom to ask for an opinion; nobody without an address."""
    if url is None:
        if model is not None or margin is not None:
            raise SettingWrong("--judge-model and --judge-margin are of a judge; give --judge URL.")
        return None
    if model is None:
        raise SettingWrong(f"--judge is '{url}'; name its model with --judge-model.")
    # aiohttp takes a while to import, and most comparisons ask nobody.
    from shadow_report.llm_judge import Judge  # noqa: PLC0415

    return Judge(url=url, model=model, key=os.environ.get("OPENAI_API_KEY")).ask


def publish(
    report: Judged,
    *,
    json: Path | None,
    html: Path | None,
    junit: Path | None,
    verbose: bool = False,
) -> None:
    """Print the report and write the files that were asked for; OneLineError when one fails."""
    print_report(report, Console(), verbose=verbose)
    failed = []
    for option, file, write in (
        ("--json", json, write_json),
        ("--html", html, write_page),
        ("--junit", junit, write_junit),
    ):
        if file is None:
            continue
        try:
            write(report, file)
        except OSError as error:
            failed.append(f"{option} {file} ({error.strerror})")
        else:
            print(f"wrote {file}", file=sys.stderr)
    if failed:
        raise OneLineError(
            f"Not written: {', '.join(failed)}; name files in a folder that is there, has room, "
            "and is yours to write to."
        )


def _since(since: str | None, last: str | None) -> datetime | None:
    if since and last:
        raise SettingWrong(f"--since is '{since}' and --last is '{last}'; give one of them.")
    if last:
        span = parse_span(last, "--last")
        try:
            return datetime.now(UTC) - span
        except OverflowError as error:
            raise SettingWrong(f"--last is '{last}', before all times; give less.") from error
    return parse_time(since, "--since") if since else None


def _margins(**given: Any) -> Margins:
    try:
        return Margins(**given)
    except ValueError as error:
        raise SettingWrong(str(error)) from error


def _rules(
    files: list[str], abs_tol: float | None, rel_tol: float | None, by_path: tuple[Rule, ...]
) -> Rules:
    """Those of the files, then those of the options: of several for one place the last counts."""
    read = [read_rules(Path(file)) for file in files]
    given = read[-1].tolerance if read else UNRULED
    tolerance = Tolerance(
        given.absolute if abs_tol is None else abs_tol,
        given.relative if rel_tol is None else rel_tol,
    )
    if not (tolerance.absolute >= 0 and tolerance.relative >= 0):
        raise SettingWrong(
            f"The tolerance is {tolerance.absolute} absolute and {tolerance.relative} relative; "
            "set both to 0 or more."
        )
    return Rules(
        tolerance=tolerance,
        by_path=(*(r for rules in read for r in rules.by_path), *by_path),
        noise_floor=next((r.noise_floor for r in read[::-1] if r.noise_floor is not None), None),
        is_of_file=bool(files),
    )


def _noise_floor(option: str | None, rules: Rules) -> NoiseFloor:
    """The option's, else the rules'."""
    if option is not None:
        return parse_noise_floor(option, "--noise-floor")
    if rules.noise_floor is not None:
        return parse_noise_floor(str(rules.noise_floor), "noise_floor of --rules")
    return "off"


_To = Annotated[
    str, typer.Option(metavar="URL", help="The candidate's address, as http://host:8080.")
]
_ToGrpc = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Its address for gRPC; else gRPC calls are skipped."),
]
_Rate = Annotated[
    str | None,
    typer.Option(metavar="N/s", help="At most so many calls per second, as 50/s or 600/m."),
]
_Concurrency = Annotated[int, typer.Option(min=1, max=1024, help="At most so many calls at once.")]
_Primary = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The primary InferenceService, when there are several."),
]
_Timeout = Annotated[
    float, typer.Option(min=0.001, metavar="SECONDS", help="The longest wait for an answer.")
]


def replay_command(
    *,
    context: typer.Context,
    to: _To,
    to_grpc: _ToGrpc = None,
    rate: _Rate = None,
    concurrency: _Concurrency = 8,
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
    primary: _Primary = None,
    timeout: _Timeout = 60.0,
    itself: Annotated[
        bool,
        typer.Option(
            "--itself",
            help="The candidate is the primary: tell how often it differs from itself (noise). Its "
            "rows are kept apart.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the replay that was stopped.")
    ] = False,
    state: Annotated[
        Path, typer.Option(metavar="FILE", help="Where a stopped replay is kept.")
    ] = Path("shadow-replay.json"),
) -> None:
    """Send the primary's stored calls to a candidate under their own pair ids, then compare.

    The candidate needs the recording transformer with SHADOW_ROLE=shadow and this database, so
    that its answers can be compared. The exit code is that of `compare`; with --itself it is 0.
    """
    # aiohttp takes a while to import, and the other commands have no need of it.
    from shadow_report.replay.calls import parse_target  # noqa: PLC0415
    from shadow_report.replay.candidate import Candidate, parse_rate  # noqa: PLC0415
    from shadow_report.replay.run import Plan, replay  # noqa: PLC0415

    plan = Plan(
        candidate=Candidate(
            target=parse_target(to),
            grpc=to_grpc,
            source="replay",
            concurrency=concurrency,
            timeout_seconds=timeout,
            is_primary=itself,
        ),
        rate=parse_rate(rate) if rate else None,
        original_timing=original_timing,
        state_file=state,
        primary=primary,
        since=time_of(since, "--since"),
        until=time_of(until, "--until"),
        resume=resume,
    )
    raise typer.Exit(asyncio.run(replay(_database(context), plan)))


def follow_command(
    *,
    context: typer.Context,
    to: _To,
    to_grpc: _ToGrpc = None,
    rate: _Rate = None,
    concurrency: _Concurrency = 8,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="One call after the other, as they were delivered.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Calls from this time on (ISO 8601, or 24h for a day ago); by default from the "
            "candidate's first call in the last day on, or from now.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End once the calls before this time are done."),
    ] = None,
    primary: _Primary = None,
    shadow: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The candidate's InferenceService, as its rows say."),
    ] = None,
    share: Annotated[
        str, typer.Option(metavar="N/OF", help="This follower's part, as 2/3 of three followers.")
    ] = "1/1",
    timeout: _Timeout = 60.0,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serves /metrics and /ready there.")
    ] = None,
) -> None:
    """Send each new call of the primary to a candidate, soon after it was recorded, until stopped.

    The candidate needs the recording transformer with SHADOW_ROLE=shadow and this database. Which
    calls it has answered is known from there, so that a follower may be killed and started again.
    """
    import logging  # noqa: PLC0415

    from shadow_report.replay.calls import parse_target  # noqa: PLC0415
    from shadow_report.replay.candidate import Candidate, parse_rate  # noqa: PLC0415
    from shadow_report.replay.follow import Plan, follow, parse_part  # noqa: PLC0415

    plan = Plan(
        candidate=Candidate(
            target=parse_target(to),
            grpc=to_grpc,
            source="follow",
            concurrency=concurrency,
            timeout_seconds=timeout,
        ),
        primary=primary,
        shadow=shadow,
        since=time_or_ago(since, "--since"),
        until=time_or_ago(until, "--until"),
        share=parse_part(share),
        rate=parse_rate(rate) if rate else None,
        in_order=in_order,
        port=port,
    )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    print(asyncio.run(follow(_database(context), plan)))


@judging
def serve_command(
    *,
    context: typer.Context,
    settings: Comparison,
    since: Annotated[str | None, typer.Option(help="First call, as an ISO time.")] = None,
    last: Annotated[
        str | None, typer.Option(help="Only the last 24h, 7d …, and up to a sixteenth more.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8090,
    address: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for all addresses.")
    ] = "127.0.0.1",
    every: Annotated[str, typer.Option(help="How often the tables are looked at.")] = "5s",
    max_age: Annotated[
        str, typer.Option(help="A verdict that is older is WAIT, as when the database is away.")
    ] = "1m",
) -> None:
    """Keep the verdict up and serve it, until stopped.

    The page at /, the report at /verdict.json, /gate (200 on PROMOTE, else 4xx), /metrics, /ready
    and /live. Each option may also stand in the environment: --max-age as SERVE_MAX_AGE.
    """
    import logging  # noqa: PLC0415

    from shadow_report.live.service import Plan, serve  # noqa: PLC0415

    if since and last:
        raise SettingWrong(f"--since is '{since}' and --last is '{last}'; give one of them.")
    settings = replace(settings, since=time_of(since, "--since"))
    plan = Plan(
        candidates={each.shadow or "": each for each in settings.each_candidate()},
        last=parse_span(last, "--last") if last else None,
        address=address,
        port=port,
        every=parse_span(every, "--every"),
        max_age=parse_span(max_age, "--max-age"),
    )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    asyncio.run(serve(_database(context), plan))


def time_or_ago(text: str | None, option: str) -> datetime | None:
    """A time in UTC, also as a span before now."""
    if text is not None and SPAN_AGO.fullmatch(text):
        return datetime.now(UTC) - parse_span(text, option)
    return time_of(text, option)


def time_of(text: str | None, option: str) -> datetime | None:
    """A time in UTC."""
    return None if text is None else parse_time(text, option).astimezone(UTC)


def maintain_command(
    context: typer.Context,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Drop the days that ended longer ago than this, as 30d or 4w; at least 1d. "
            "Without it nothing is dropped.",
        ),
    ] = None,
    ahead: Annotated[
        int, typer.Option(min=0, max=366, help="Make the partitions of this many days to come.")
    ] = 7,
) -> None:
    """Make the daily partitions ahead, and drop those older than --keep."""
    kept = keep_of(keep)
    actions = maintain(_database(context), kept, ahead, say=lambda text: typer.echo(text, err=True))
    for action in actions:
        typer.echo(str(action))
    if not actions:
        typer.echo("nothing to do")


def rules_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="As --rules takes it.")],
) -> None:
    """Read a file of rules, and say how many it has or what is wrong with it."""
    typer.echo(f"{file}: {counted(len(read_rules(Path(file)).by_path), 'rule')}")


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def shadow_report(
    check: Annotated[
        bool,
        typer.Option("--check", help="Only read the command's options; without a database."),
    ] = False,
) -> None:
    """Compares the primary's and the shadow's answers: may the shadow replace the primary?"""


app.command("compare")(compare_command)
app.command("replay")(replay_command)
app.command("follow")(follow_command)
app.command("serve", context_settings={"auto_envvar_prefix": "SERVE"})(serve_command)
app.command("maintain")(maintain_command)
app.command("rules")(rules_command)
