"""What is wrong with the evidence, and how to mend it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from shadow_report.report import (
    Bucket,
    Finding,
    Integrity,
    MissingContrast,
    NewestCall,
    Side,
    Window,
)
from shadow_report.wording import counted, duration, moment, pasted, percent, second_after

# The pair source of a call that the entry copied.
MIRRORED = "x-shadow-pair-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the findings are drawn from."""

    primary: Side
    shadow: Side
    window: Window
    integrity: Integrity
    """Without its findings."""
    uniform_since: datetime | None
    """From here on each side has one service, model and version; None where there is no such time.
    """
    whole_since: datetime | None
    """From here on no record is lost; None where none is, or where nobody knows."""
    min_coverage: float
    coverage_fails: bool
    """Whether its gate fails."""
    newest: Mapping[str, NewestCall]
    """By role without a call in the window, the newest one in the tables."""
    generated_at: datetime
    timeline: tuple[Bucket, ...]
    is_mirrored: bool
    """Whether the entry copied the calls to the shadow; else a follower or replay sent them."""

    @property
    def pairs(self) -> int:
        """Pairs with the same request on both sides."""
        return self.integrity.paired

    @property
    def missing_is_explained(self) -> bool:
        """Whether the calls that were never sent to the shadow are, but for what the coverage
        allows, all that are missing: then nobody need ask whether it is up.
        """
        integrity, calls = self.integrity, self.primary.calls
        unsent = integrity.unmirrored_bodies + integrity.past_entry
        unsent += integrity.withheld_cut + integrity.withheld_redacted
        due = integrity.expected_share * (calls - unsent)
        allowed = (1 - self.min_coverage) * integrity.expected_share * calls
        return unsent > 0 and due - self.pairs <= allowed


def _when_complete(facts: Facts) -> str:
    """When calls without a pair, which the window leaves out, are to be looked at again."""
    if facts.is_mirrored:
        return "Incomplete calls count once they are older than --settle; look again then."
    return DIRECT


def _newest(facts: Facts, role: str, others: Side | None = None) -> str:
    """Where a side's calls are instead, and how far from the `others` of the window."""
    newest = facts.newest.get(role)
    if newest is None:
        return ""
    time, apart = newest.request_time, ""
    if others and others.first_call and time < others.first_call:
        apart = f", {duration(others.first_call - time)} before the first of them"
    elif others and others.last_call and time > others.last_call:
        apart = f", {duration(time - others.last_call)} after the last of them"
    named = f"the newest {role} call in the tables, of {newest.inference_service},"
    return f"; {named} came at {moment(time)} UTC{apart}"


def _beginning(facts: Facts) -> str:
    """Where the window begins, which the page of a live verdict may have from its environment."""
    since = facts.window.since
    return "" if since is None else f" since {moment(since)} UTC"


def _is_named(facts: Facts, side: Side) -> str:
    """Asks for the name of a side that was chosen, where the calls there are have another."""
    newest = facts.newest.get(side.role)
    if newest is None or side.service in ("", newest.inference_service):
        return ""
    return f"Is {side.service} the {side.role}'s name, as --{side.role} has it? "


def _ahead(facts: Facts) -> str:
    """What a clock takes that is ahead of ours, by which no window without an end has its calls."""
    newest, skew = facts.newest.get("primary"), timedelta(milliseconds=SKEW_MS)
    if newest is None or newest.request_time <= facts.generated_at + skew:
        return ""
    return "That call is stamped in the future: set the clock of the primary's node. "


def _how_to_have_calls(facts: Facts) -> str:
    until = facts.window.until
    newest = call.request_time if (call := facts.newest.get("primary")) else None
    if newest is None:
        return (
            "Send traffic, widen the window (--since, --last), check that the transformers' "
            "POSTGRES_URI is this database, and see whether their logs say why nothing arrives."
        )
    if ahead := _ahead(facts):
        return ahead.rstrip()
    if until is not None and newest >= until:
        settle = timedelta(seconds=facts.window.settle_seconds)
        if facts.generated_at - until <= settle:  # where the live verdict ends, without an --until
            return "Calls count once they are older than --settle; look again then."
        return f"The window ends before it, at {moment(until)} UTC: give a later --until."
    since = facts.window.since
    if since is not None and since > facts.generated_at:
        return f"The window begins in the future: give an earlier --since than {moment(since)} UTC."
    days = math.ceil((facts.generated_at - newest) / timedelta(days=1))
    return (
        f"Send traffic, or widen the window to that call's day (--last {max(1, days)}d); if there "
        "was traffic since, see whether the transformers' logs say why nothing arrives, and check "
        "that their POSTGRES_URI is this database."
    )


def absent(facts: Facts) -> Iterator[Finding]:
    """Sides without a single call."""
    if not facts.primary.calls and not facts.shadow.calls:
        left_out = facts.window.warm_up_pairs + facts.window.in_flight
        yield Finding(
            "no-calls",
            True,
            f"All calls of the window are left out: {facts.window.warm_up_pairs:,} as warm-up, "
            f"{facts.window.in_flight:,} as incomplete."
            if left_out
            else f"There is not one call{' of the primary' * bool(facts.shadow.first_call)} in the "
            f"window{_beginning(facts)}{_newest(facts, 'primary')}.",
            _when_complete(facts) if facts.window.in_flight else _how_to_have_calls(facts),
        )
    elif not facts.shadow.calls:
        yield Finding(
            "no-shadow-calls",
            True,
            f"The primary recorded {counted(facts.primary.calls, 'call')} and the shadow none"
            f"{_newest(facts, 'shadow', facts.primary)}.",
            _is_named(facts, facts.shadow) + _why_none(facts),
        )
    elif not facts.primary.calls:
        yield Finding(
            "no-primary-calls",
            True,
            f"The shadow recorded {counted(facts.shadow.calls, 'call')} and the primary none"
            f"{_newest(facts, 'primary', facts.shadow)}.",
            _is_named(facts, facts.primary)
            + _ahead(facts)
            + "A window goes by the primary's clock: give one with its calls (--since, --until)."
            if "primary" in facts.newest
            else "Does the primary run with SHADOW_ROLE=primary and this database's POSTGRES_URI?",
        )


FOLLOWED = (
    "Is the follower up, and does it reach the shadow? shadow_follow_lag_seconds says how far"
    " behind it is, its log which calls it could not send and why (gRPC needs --to-grpc), and"
    " after some five minutes which ones the shadow answered and did not record here"
    " (RECORD_SAMPLE, or another database in its POSTGRES_URI)."
)
ENTRY = "Send callers to the entry's path, not to the primary's own or to its Service."
UNMIRRORED = (
    "Is mirroring on? Check the mirror section of the entry VirtualService, that calls go through "
    "it, and that its content-length (mirror-content-length in the settings) admits their bodies: "
    "--verbose counts those alone that no mirror takes, of 1 MB and more or of no announced length."
)
# Nothing was mirrored at all, which is as it should be in front of a follower alone.
DIRECT = (
    "None of them came through an entry that mirrors. Where there is one, "
    f"{ENTRY[0].lower()}{ENTRY[1:]} In the topology follow they wait for the follower instead. "
    f"{FOLLOWED}"
)


def _why_none(facts: Facts) -> str:
    """What to look at when the shadow has recorded nothing."""
    if MIRRORED not in facts.primary.pair_sources:
        return DIRECT
    if facts.missing_is_explained:
        return "None of them was sent to it, for the reason that follows."
    return (
        "Is the shadow up, with SHADOW_ROLE=shadow, the primary's --model_name and this database's "
        f"POSTGRES_URI? Does its log say why it records nothing? {UNMIRRORED}"
    )


RAISE_IT = "Raise RECORD_MAX_BODY_BYTES on the primary's transformer for those that are cut."
MIRROR_IT = (
    "What RECORD_REDACT takes out is nowhere, and never guessed: have those calls mirrored, or "
    "redact the answers alone."
)


def never_sent(facts: Facts) -> Iterator[Finding]:
    """Missing calls that the sender left out by its own rules: those that are most come first.

    They lead where they are why the coverage is not met.
    """
    integrity = facts.integrity
    leads = facts.missing_is_explained and (facts.coverage_fails or not facts.pairs)
    later = _later(facts) if leads else ""
    bodies, past = integrity.unmirrored_bodies, integrity.past_entry
    cut, redacted = integrity.withheld_cut, integrity.withheld_redacted
    found = {
        Finding(
            "unmirrored-bodies",
            leads,
            f"{counted(bodies, 'call')} without a shadow call had a body that is not mirrored: of "
            "1 MB and more, or chunked, so that nobody knows its length before.",
            "Have those callers (the user-agent in request_headers) send a content-length, or "
            "follow (topology follow): a follower "
            f"sends every body that was recorded whole, up to RECORD_MAX_BODY_BYTES.{later}",
        ): bodies,
        Finding(
            "past-entry",
            leads,
            f"{counted(past, 'call')} without a shadow call came past the entry, which alone "
            "mirrors.",
            f"{ENTRY} Where a follower sends them (topology follow), see that it is up and reaches "
            f"the shadow.{later}",
        ): past,
        Finding(
            "withheld",
            leads,
            f"{counted(cut + redacted, 'call')} could not be sent again: {cut:,} with a body "
            f"stored cut, {redacted:,} with redacted values; missing, and not counted as faults.",
            " ".join(filter(None, (RAISE_IT * bool(cut), MIRROR_IT * bool(redacted)))) + later,
        ): cut + redacted,
    }
    yield from sorted(filter(found.get, found), key=lambda finding: -found[finding])


def services(facts: Facts) -> Iterator[Finding]:
    """More than one service per role."""
    for side in (facts.primary, facts.shadow):
        if others := side.other_services:
            names = (side.service, *others)
            # Not done unasked: what a rollout renamed is not a second candidate, and how many share
            # alpha must be known before looking.
            together = f", judge them side by side with --shadow {','.join(names)}"
            yield Finding(
                "several-services",
                True,
                f"Several services recorded as {side.role}: {', '.join(names)}.",
                f"Does each of them run with the right SHADOW_ROLE? If so, choose one with "
                f"--{side.role}{together * (side is facts.shadow)}, or a window in "
                f"which only one ran{_since(facts)}.",
            )


def versions(facts: Facts) -> Iterator[Finding]:
    """What changed on a side in the window, or differs between the sides."""
    for side in (facts.primary, facts.shadow):
        if len(side.model_versions) > 1:
            listed = ", ".join(
                f"{name} ({counted(n, 'call')})" for name, n in side.model_versions.items()
            )
            yield Finding(
                "several-versions",
                True,
                f"The {side.role} changed its model version in the window: {listed}.",
                f"Choose a window with one version{_since(facts)}.",
            )
        if len(side.model_names) > 1:
            yield Finding(
                "several-models",
                True,
                f"The {side.role} served several models: {', '.join(side.model_names)}.",
                "Record one model per service, or choose a window in which one was called"
                f"{_since(facts)}.",
            )
    ours, theirs = set(facts.primary.model_names), set(facts.shadow.model_names)
    if ours and theirs and len(ours) == len(theirs) == 1 and ours != theirs:
        yield Finding(
            "model-names",
            False,
            f"The primary serves model {ours.pop()}, the shadow {theirs.pop()}.",
            "Callers address a model by its name; give the shadow the primary's before promoting.",
        )


def _since(facts: Facts) -> str:
    """The option to paste, where the calls from some time on are of one kind."""
    if facts.uniform_since is None:
        return ""
    return f": --since {pasted(facts.uniform_since)}"


# Further apart than this are late copies, replayed calls, or two clocks.
SKEW_MS = 1000.0


def pairing(facts: Facts) -> Iterator[Finding]:
    """How the pair ids came about, and whether they pair."""
    primary, shadow = facts.primary, facts.shadow
    if not primary.calls or not shadow.calls:
        return
    sources = primary.pair_sources.keys() | shadow.pair_sources.keys()
    foreign = sum(n for s, n in primary.pair_sources.items() if s != MIRRORED)
    if MIRRORED not in sources:
        yield Finding(
            "pair-ids",
            True,
            "No call carries x-shadow-pair-id; pair ids come from "
            f"{' and '.join(sorted(sources))}, which a second gateway hop may replace "
            "and callers may repeat.",
            "Is the entry VirtualService used? It sets x-shadow-pair-id; send the traffic through "
            "its path, not straight to the InferenceService.",
        )
    elif foreign < primary.calls and foreign:  # all of them: they are followed, not mirrored
        yield Finding(
            "direct-calls",
            False,
            f"{foreign:,} of {counted(primary.calls, 'primary call')} came without "
            "x-shadow-pair-id.",
            "They did not pass the entry VirtualService, which mirrors; route them through it. "
            "After a switch to the topology follow, or from it, judge those since then alone "
            "(--since).",
        )
    if not facts.pairs and not facts.missing_is_explained:
        # The entry gives its id to both copies; the shadow's others were sent straight to it.
        direct = facts.is_mirrored and MIRRORED not in shadow.pair_sources
        unmarked = f"; no shadow call carries {MIRRORED}, as a mirrored one does"
        yield Finding(
            "no-pairs",
            True,
            f"{primary.calls:,} primary and {counted(shadow.calls, 'shadow call')}, "
            f"and no pair among them{unmarked * direct}.",
            "Their ids match; they are left out for the reason that follows."
            if 2 * facts.integrity.different_requests > shadow.calls
            else "What is sent straight to the shadow, such as a test of it, pairs with nothing. "
            f"{UNMIRRORED} Does the shadow's log say that it refuses the copies (another "
            "--model_name)? Where as many calls reached it as the primary, something on the way "
            "to it takes the header off."
            if direct
            else "Both copies must carry the same x-shadow-pair-id: is the header set by the entry "
            "VirtualService, before the mirror, and not overwritten by a later one?",
        )
    if different := facts.integrity.different_requests:
        beyond = different > (1 - facts.min_coverage) * (facts.pairs + different)
        yield Finding(
            "different-requests",
            beyond,
            f"{counted(different, 'pair')} left out: another request body on each side.",
            "Does a client repeat its request ids, or something rewrite the body of one copy?",
        )


def missing(facts: Facts) -> Iterator[Finding]:
    """Primary calls without a shadow call."""
    # A mirror that takes a share by chance leaves out calls for no reason to be looked for.
    contrasts = facts.integrity.missing if facts.integrity.expected_share == 1 else ()
    unlike = [contrast for contrast in contrasts if contrast.unlike]
    for contrast in unlike:
        remedies = {
            "request size": TOO_LONG,
            "time": "Was the shadow or its connection limit down for a while?",
            "status": "Are some calls answered before they reach the mirror?",
            "id": "Has the shadow a lower RECORD_SAMPLE than the primary? Give both the same.",
        }
        yield Finding(
            "missing-unlike",
            False,
            "Calls without a shadow are unlike the others in "
            f"{'time' if contrast.respect == 'hour' else contrast.respect}: "
            f"{contrast.missing} against {contrast.paired}.",
            remedies[contrast.respect] if facts.is_mirrored else FOLLOWED,
        )
    coverage, share = facts.integrity.coverage, facts.integrity.expected_share
    if facts.integrity.share_is_exceeded:
        yield Finding(
            "share-exceeded",
            True,
            f"{counted(facts.pairs, 'pair')} among {counted(facts.primary.calls, 'primary call')} "
            f"are more than the {percent(share)} that should be mirrored.",
            "Give the share that is (--mirrored-share, or MIRROR_PERCENTAGE), or a window in which "
            "it was the same all the time (--since).",
        )
    # Where a share is mirrored, the coverage varies by chance; its gate knows how much.
    is_short = facts.coverage_fails or (share == 1 and (coverage or 1) < facts.min_coverage)
    if is_short and facts.pairs and not facts.missing_is_explained:
        unlike_by_id = [found for found in unlike if found.respect == "id"]
        if not facts.is_mirrored:
            remedy = FOLLOWED
        elif unlike_by_id:
            remedy = (
                f"Of their ids there is {unlike_by_id[0].missing}: has the shadow a lower "
                "RECORD_SAMPLE than the primary? Give both the same."
            )
        elif when := _stretch(facts):
            remedy = f"{when} {SUSPECTS} Or was mirror-percentage lower then, or is it now?"
        else:
            remedy = f"{SUSPECTS} {_of_share(share)}"
        yield Finding(
            "coverage",
            False,
            f"{facts.primary.unpaired:,} of {counted(facts.primary.calls, 'primary call')} without "
            f"a shadow call (coverage {percent(coverage)}).",
            f"{_unsent(facts)}{_of_sizes(unlike) * facts.is_mirrored}{remedy}{_later(facts)}",
        )


TOO_LONG = (
    "No mirror sends bodies beyond mirror-content-length in the settings, or beyond the gateway's "
    "buffers."
)
SUSPECTS = (
    "Look for a stopped shadow, another --model_name or another database there, another trouble in "
    "its log, calls past the entry path, large bodies, a RECORD_SAMPLE of the shadow's alone, and "
    "copies that the connection limits of the DestinationRule drop: of a shadow too slow for the "
    "traffic (Latency on the page), or where a patch has lowered them."
)


def _of_share(share: float) -> str:
    return (
        f"{percent(share)} of the calls should be mirrored: only if mirror-percentage is another, "
        "say so with --mirrored-share, which hides what is lost besides; if it was a lower one for "
        "a part of the window, leave that out (--since)."
    )


def _of_sizes(unlike: list[MissingContrast]) -> str:
    """That the bodies of the missing calls are longer than the others'."""
    found = (each for each in unlike if each.respect == "request size")
    said = (
        f"Their bodies are longer ({at.missing} against {at.paired}). {TOO_LONG} " for at in found
    )
    return "".join(said)


def _unsent(facts: Facts) -> str:
    """How many of the missing calls no mirror sends."""
    past, bodies = facts.integrity.past_entry, facts.integrity.unmirrored_bodies
    said = f"{counted(past, 'call')} of those without one came past the entry. " if past else ""
    return said + f"{counted(bodies, 'call')} had a body that is not mirrored. " * bool(bodies)


def _steps(facts: Facts) -> tuple[list[Bucket], list[int]]:
    """The steps of the timeline with calls, and which of them miss the coverage, or have a few
    missing calls right before or after one that does.
    """
    steps = [step for step in facts.timeline if step.primary_calls]
    short = {i for i, step in enumerate(steps) if (step.coverage or 0) < facts.min_coverage}
    edges = {
        j
        for i in short
        for j in (i - 1, i + 1)
        if 0 <= j < len(steps)
        and steps[j].pairs < steps[j].primary_calls
        and steps[min(i, j)].end == steps[max(i, j)].start
    }
    return steps, sorted(short | edges)


def _share_paired(steps: list[Bucket]) -> float:
    return sum(step.pairs for step in steps) / sum(step.primary_calls for step in steps)


def _stretch(facts: Facts) -> str:
    """When calls had no shadow call, most of them at its height, where that was one stretch of the
    window.
    """
    steps, short = _steps(facts)
    if not short or len(short) == len(steps) or short[-1] - short[0] + 1 != len(short):
        return ""
    within = steps[short[0] : short[-1] + 1]
    if min(_share_paired([step]) for step in within) > 1 / 2:
        return ""
    begin, end = moment(within[0].start), moment(within[-1].end)
    if within[-1] is not steps[-1]:
        return f"It was missed from {begin} to {end} UTC alone."
    # How long the shadow has been silent says it better.
    return "" if _behind(facts) > BEHIND else f"It was met until {begin} UTC."


# So seldom would all calls after the last bad one be good by chance.
MENDED_BELOW = 0.001


def _later(facts: Facts) -> str:
    """How to judge later calls alone, where the cause of those that are missing seems gone."""
    steps, short = _steps(facts)
    if not short:
        return ""
    before, after = steps[: short[-1] + 1], steps[short[-1] + 1 :]
    calls = sum(step.primary_calls for step in after)
    if not calls or _share_paired(before) ** calls >= MENDED_BELOW:
        return ""
    return f" {_alone_from(before[-1].end)}"


def _alone_from(time: datetime) -> str:
    return f"Where that is mended, judge later calls alone: --since {pasted(time)}."


# Delivery lags by seconds; further apart than this a side is behind.
BEHIND = timedelta(minutes=1)


def _behind(facts: Facts) -> timedelta:
    """How long before the primary's newest call the shadow's came; 0 where nobody knows."""
    integrity = facts.integrity
    primary, shadow = integrity.primary_watermark, integrity.shadow_watermark
    if primary is None or shadow is None or integrity.expected_share < 1:
        return timedelta(0)
    # What its clock is behind is not what the shadow is.
    return primary - shadow + timedelta(milliseconds=min(0.0, integrity.clock_skew_ms or 0.0))


WITHOUT_PRIMARY = (
    "the primary has lost them (inference_gaps), or has a RECORD_SAMPLE that the shadow has not"
)


def _alone_until(facts: Facts) -> str:
    """What kept the primary's calls from the tables, and until when, where it seems gone."""
    integrity = facts.integrity
    if integrity.mirrored_only_times is None:
        return ""
    begin, end = integrity.mirrored_only_times
    after = sum(step.pairs for step in facts.timeline if step.start > end)
    before = facts.pairs - after
    if (before / (before + integrity.mirrored_only)) ** after >= MENDED_BELOW:
        return ""
    return (
        f"They are of {moment(begin)} to {moment(end)} UTC alone: {WITHOUT_PRIMARY}. "
        f"{_alone_from(second_after(end))}"
    )


def watermarks(facts: Facts) -> Iterator[Finding]:
    """How far each side's rows are delivered, and calls that one of them must still have."""
    integrity = facts.integrity
    primary, shadow = integrity.primary_watermark, integrity.shadow_watermark
    if primary is None or shadow is None:
        return
    if alone := integrity.mirrored_only:
        yield Finding(
            "primary-behind",
            alone > (1 - facts.min_coverage) * (facts.pairs + alone),
            f"{counted(alone, 'mirrored shadow call')} without their primary call in the tables; "
            f"the primary's newest call there is of {moment(primary)}, the shadow's of "
            f"{moment(shadow)} UTC.",
            _alone_until(facts)
            or "Is the delivery of a primary's transformer stuck? Its log and "
            "prediction_db_oldest_unwritten_seconds say so; look again once the rows are there. "
            f"If nothing waits there, {WITHOUT_PRIMARY}: judge later calls alone (--since) once "
            "both have the same.",
        )
    if (behind := _behind(facts)) > BEHIND:
        yield Finding(
            "shadow-behind",
            False,
            f"The shadow's newest call in the tables came at {moment(shadow)} UTC, "
            f"{duration(behind)} before the primary's.",
            "Is the shadow down, its delivery stuck, mirroring off, or another version of it "
            "running that has recorded no call?",
        )


def unanswered(facts: Facts) -> Iterator[Finding]:
    """Calls that the shadow should have got, and pairs that nobody could compare."""
    integrity = facts.integrity
    if integrity.unanswered and integrity.expected_share == 1 and facts.pairs:
        lost = facts.shadow.lost_records
        why = f", {counted(lost, 'record')} of the shadow lost among them perhaps" if lost else ""
        yield Finding(
            "no-shadow-answer",
            False,
            f"{counted(integrity.unanswered, 'call')} without a shadow call, and no row says "
            f"why{why}; they count as new faults.",
            "Did the shadow crash on them, or were they never sent: a connection limit of the "
            "DestinationRule, a gateway that was restarted, another --mirrored-share?"
            if facts.is_mirrored
            else f"Did the shadow crash on them? {FOLLOWED}",
        )
    if integrity.resent:
        yield Finding(
            "resent",
            False,
            f"{counted(integrity.resent, 'attempt')} ended without an answer, with the shadow's "
            "process; those calls were sent again, and their answers count.",
            "Did the shadow crash on them, or was it restarted?",
        )
    if abandoned := integrity.abandoned - integrity.shadow_left:
        yield Finding(
            "abandoned",
            False,
            f"{counted(abandoned, 'pair')} not compared: the caller did not wait for the "
            "primary's answer (499), or the primary died in the middle of it.",
            "Do callers give up before the primary answers?",
        )
    if left := integrity.shadow_left:
        # What is left out is what takes long, and a slow shadow must not look better for it.
        yield Finding(
            "shadow-left",
            left > (1 - facts.min_coverage) * max(1, facts.pairs),
            f"{counted(left, 'pair')} not compared: the shadow's stream was let go before its end, "
            "the primary's was not.",
            "Raise the route's timeout for the shadow (or the follower's --timeout): it is "
            "slower than that, or its pods stop in the middle of answers.",
        )


def clocks(facts: Facts) -> Iterator[Finding]:
    """Stamps of the two sides that lie far apart, where a mirror sent both at once."""
    skew = facts.integrity.clock_skew_ms
    if facts.is_mirrored and skew is not None and abs(skew) > SKEW_MS:
        yield Finding(
            "clock-skew",
            False,
            f"The shadow's calls are stamped {abs(skew) / 1000:,.1f} s "
            f"{'after' if skew > 0 else 'before'} the primary's.",
            "Expected after a replay and with a follower. Otherwise copies waited for a slow "
            "shadow (Latency on the page), or the nodes' clocks differ: set them."
            if skew > 0
            else "The nodes' clocks differ: set them.",
        )


def bodies(facts: Facts) -> Iterator[Finding]:
    """Answers that cannot be compared."""
    if cut := facts.integrity.cut_pairs:
        beyond = cut > (1 - facts.min_coverage) * max(1, facts.pairs)
        sides = [side for side in (facts.primary, facts.shadow) if side.cut_responses]
        listed = " and ".join(f"{side.cut_responses:,} of the {side.role}'s" for side in sides)
        yield Finding(
            "cut-bodies",
            beyond,
            f"{cut:,} of {counted(facts.pairs, 'pair')} have a response stored cut "
            f"({listed}{' alone' * (len(sides) == 1)}); their answers are not compared.",
            "Set RECORD_MAX_BODY_BYTES alike on both sides, and high enough for the longer answers."
            if len(sides) == 1
            else "Raise RECORD_MAX_BODY_BYTES on both transformers.",
        )
    both = min(facts.primary.unparseable, facts.shadow.unparseable)
    if both > (1 - facts.min_coverage) * max(1, facts.pairs):
        # What PASS_PATHS opens may answer with a picture; v1, v2 and OpenAI's API do not.
        passed_on = facts.primary.protocols.get("other", 0)
        yield Finding(
            "unparseable",
            both > passed_on,
            f"{facts.primary.unparseable:,} answers of the primary are neither JSON nor tensors, "
            "so they can only be compared byte for byte.",
            "Compare JSON answers, or let the model answer in JSON.",
        )


def _after_losses(facts: Facts) -> str:
    """How to judge the calls since then, with the option to paste where the tables tell it."""
    if facts.whole_since is None:
        return '--since the time of "Calls are recorded again" in the transformer\'s log'
    return f"--since {pasted(facts.whole_since)}"


def losses(facts: Facts) -> Iterator[Finding]:
    """Records that are lost, repeated or incomplete."""
    primary, shadow, retried = facts.primary, facts.shadow, facts.integrity.retried
    for side in (primary, shadow):
        if side.lost_records:
            beyond = side.lost_records > (1 - facts.min_coverage) * (side.calls + side.lost_records)
            yield Finding(
                "lost-records",
                beyond,
                f"{counted(side.lost_records, 'record')} of the {side.role} lost (inference_gaps).",
                "Was the spool full or its disk failing? Raise SPOOL_MAX_BYTES and look at "
                'prediction_db_records_total{outcome="dropped"}. Did Postgres refuse rows '
                "(dead_letter there)? Insert them again, as docs/operations.md says at "
                "ShadowRecordsSetAside. Else judge later calls alone: "
                f"{_after_losses(facts)}.",
            )
        if side.duplicates:
            beyond = side.duplicates > (1 - facts.min_coverage) * (side.calls + side.duplicates)
            yield Finding(
                "duplicates",
                beyond,
                f"{counted(side.duplicates, 'call')} of the {side.role} with a repeated pair id; "
                + (
                    "only the first of each counts."
                    if side.role == "primary"
                    else f"the worst of each counts, which made {counted(retried, 'pair')} worse."
                ),
                "Is a retry policy on? Set retries to 0 on the entry route. Does a client repeat "
                "ids of its own? Send it to the entry's path, where each call gets a new one.",
            )
    if primary.unanswered or shadow.unanswered:
        listed = " and ".join(
            f"{counted(side.unanswered, 'call')} of the {side.role}"
            for side in (primary, shadow)
            if side.unanswered
        )
        yield Finding(
            "unanswered",
            False,
            f"{listed} without a response record, counted as failed.",
            "Did the process die in the middle of them, or are they still under way at a predictor "
            "that is stuck? Does its log say that Postgres refuses rows? Those can be put back, as "
            "docs/operations.md says at ShadowRecordsSetAside.",
        )
    if before := facts.window.before_first_pair:
        yield Finding(
            "before-first-pair",
            False,
            f"{counted(before, 'call')} of the primary from before this shadow's first pair, left "
            "out.",
            "A shadow may come later than its primary.",
        )
    in_flight = facts.window.in_flight
    # Of a shadow's calls alone, which `absent` names, nobody can say how they came.
    if in_flight and (primary.calls or not shadow.calls):
        yield Finding(
            "in-flight",
            False,
            f"{counted(in_flight, 'call')} "
            + (
                f"of the last {facts.window.settle_seconds:g} s, by the later stamp of both sides"
                if facts.is_mirrored
                else "that no entry mirrored, and to which no follower has come yet"
            )
            + ", left out: the pair or an answer may still come.",
            "Look again once they have it." if facts.is_mirrored else FOLLOWED,
        )


QUESTIONS = (
    absent,
    never_sent,
    services,
    pairing,
    versions,
    bodies,
    losses,
    watermarks,
    unanswered,
    clocks,
    missing,
)


def findings(facts: Facts) -> tuple[Finding, ...]:
    """All that is unsound first, then what a reader should know."""
    found = [finding for question in QUESTIONS for finding in question(facts)]
    return tuple(sorted(found, key=lambda finding: not finding.unsound))
