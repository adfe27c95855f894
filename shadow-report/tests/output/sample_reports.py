"""Finished reports for the tests of the outputs: one per verdict, and one full of hostile text."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from shadow_report.compare import side_by_side
from shadow_report.report import (
    SCHEMA_VERSION,
    Bucket,
    Clusters,
    Drift,
    Example,
    Finding,
    Flip,
    Gate,
    Generated,
    Integrity,
    Labels,
    Latency,
    LatencyShift,
    MissingContrast,
    Need,
    Noise,
    Numbers,
    PairedTable,
    PathReport,
    Report,
    Shift,
    Side,
    SideBySide,
    Signature,
    Similarity,
    Slice,
    StatusPair,
    Window,
)
from shadow_report.statistics.sequences import UNKNOWN, Interval

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
HOSTILE = (
    '</script><img src=x onerror="document.title=1337"><svg onload=alert(1)>'
    " [bold red]markup[/] \x1b[31mred\x1b[0m \x00 \u202egnp.exe \u2066iso \ud800 {{7*7}} & \"'`"
)


MARGINS = {"coverage": 0.99, "faults": 0.001, "disagreement": 0.01, "slow": 0.01}


GENERATED = Generated(
    pairs=3000,
    texts=2980,
    same_words=1900,
    refusals=PairedTable(2900, 30, 10, 40),
    tool_calls=PairedTable(2500, 0, 80, 400),
    finish_reasons=(Flip("stop", "stop", 2900), Flip("stop", HOSTILE, 80)),
    broken=PairedTable(2990, 7, 2, 1),
    left=10,
    drifts=(
        Drift(
            "first token",
            "ms",
            2980,
            (
                Shift(0.05, 110.0, 140.0, 30.0, Interval(25.0, 35.0)),
                Shift(0.5, 210.0, 260.0, 50.0, Interval(45.0, 55.0)),
                Shift(0.95, 800.0, 990.0, 190.0, None),
            ),
            55.5,
            Interval(50.0, 61.0),
        ),
        Drift("tokens out", "", 2980, (Shift(0.5, 80.0, 120.0, 40.0, None),), 41.0, None),
    ),
)


def gate(
    name: str,
    estimate: float | None,
    interval: tuple[float, float],
    status: str,
    reason: str,
    *,
    need: Need | None = None,
    n: int = 12480,
) -> Gate:
    return Gate(
        name=name,
        estimate=estimate,
        interval=Interval(*interval),
        margin=MARGINS[name],
        is_minimum=name == "coverage",
        n=n,
        n_eff=n * 0.92,
        n_eff_reason="10,211 distinct requests, and the calls of one turn out alike" if n else "",
        status=status,  # type: ignore[arg-type]
        reason=reason,
        need=need,
    )


def finding_gate(name: str, status: str, reason: str, need: Need | None = None) -> Gate:
    """A gate of a run of calls or of slices: it has no bounds."""
    bad = status != "pass"
    return Gate(
        name=name,
        estimate=0.6 if bad else None,
        interval=UNKNOWN,
        margin=0.03 if bad and name != "slices" else None,
        is_minimum=False,
        n=40 if bad else 12480,
        n_eff=40.0 if bad else 12480.0,
        n_eff_reason="",
        status=status,  # type: ignore[arg-type]
        reason=reason,
        need=need,
    )


def side(role: str, service: str) -> Side:
    return Side(
        role=role,
        service=service,
        other_services=(),
        calls=12500 if role == "primary" else 12484,
        unpaired=20 if role == "primary" else 4,
        duplicates=3,
        unanswered=0,
        failed=2,
        lost_records=0,
        cut_requests=0,
        cut_responses=1,
        unparseable=0,
        model_names={"model": 12500},
        model_versions={"2026-11-1": 12500} if role == "primary" else {"2026-12-rc1": 12484},
        protocols={"v1": 11000, "v2": 1500},
        pair_sources={"x-shadow-pair-id": 12500},
        recorders=2,
        first_call=START,
        last_call=START + timedelta(hours=30),
        delivery_lag_seconds=0.61,
    )


def example(i: int, size: float | None, what: str, body: str = "") -> Example:
    return Example(
        pair_id=f"0198f3c2-77aa-7d1e-9b5e-{i:012x}",
        request_time=START + timedelta(minutes=7 * i),
        what=what,
        size=size,
        primary_status=200,
        shadow_status=200 if size is not None else 500,
        primary_duration_ms=4.2 + i % 5,
        shadow_duration_ms=4.9 + i % 7,
        request=body or '{"values": ["3.3", "62.3", "324"]}',
        primary_response=body or '{"predictions": [6.6, 124.6, 648.0]}',
        shadow_response=body or '{"predictions": [9.9, 186.9, 972.0]}',
        request_cut=False,
        primary_cut=False,
        shadow_cut=bool(body),
        primary_error=body,
        shadow_error=body,
    )


def numbers() -> Numbers:
    edges = [-6 + i * 0.5 for i in range(25)]
    histogram = tuple(
        (low, low + 0.5, int(900 * math.exp(-((low + 0.25 - 0.4) ** 2) / 3.1)))
        for low in edges[:-1]
    )
    histogram += ((6.0, 961.0, 80),)
    return Numbers(
        values=37440,
        bias=0.402,
        bias_interval=(0.388, 0.417),
        sd=1.25,
        mean_absolute=0.97,
        absolute_quantiles={"p50": 0.71, "p90": 2.2, "p95": 2.9, "p99": 4.4, "max": 5.9},
        pair_quantiles={"p50": 1.2, "p95": 3.9, "max": 5.9},
        correlation=0.9971,
        limits_of_agreement=(-2.05, 2.85),
        primary_quantiles={"p01": 1.2, "p25": 40.1, "p50": 77.0, "p75": 120.4, "p99": 660.0},
        shadow_quantiles={"p01": 1.3, "p25": 40.6, "p50": 77.4, "p75": 121.0, "p99": 661.2},
        distance=0.041,
        wasserstein=0.02,
        psi=0.013,
        psi_by_chance=0.006,
        histogram=histogram,
    )


def similarity() -> Similarity:
    bars = tuple((0.8 + i / 100, 0.81 + i / 100, 40 * i * i) for i in range(20))
    return Similarity(
        name="similarity",
        values=12480,
        below=96,
        least=0.9,
        mean=0.962,
        quantiles={"min": 0.12, "p1": 0.88, "p5": 0.91, "p25": 0.95, "p50": 0.97},
        histogram=((0.12, 0.8, 31), *bars),
    )


def labels() -> Labels:
    return Labels(
        values=12480,
        agreement=0.9712,
        kappa=0.943,
        classes=("approve", "review", "decline", "other"),
        confusion=((7901, 62, 11, 0), (88, 2790, 41, 2), (9, 66, 1410, 5), (0, 1, 3, 91)),
        distance=0.013,
    )


def timeline(hours: int = 30) -> tuple[Bucket, ...]:
    return tuple(
        Bucket(
            start=START + timedelta(hours=i),
            seconds=3600.0,
            primary_calls=(calls := 416 + round(120 * math.sin(i / 4))),
            pairs=calls - (22 if i == 17 else i % 3 == 0),
            new_faults=1 if i in (9, 21) else 0,
            unanswered=22 if i == 17 else 0,
            disagreements=8 + i % 5 + (40 if i in (21, 22) else 0),
            slow=2,
        )
        for i in range(hours)
    )


def rejected() -> Report:
    """A rich REJECT: every part of the report has something in it."""
    worst = tuple(
        example(i, 0.5 + i / 10, f"predictions[0]: 6.6 became {9.9 + i:.1f}") for i in range(3)
    )
    return Report(
        schema_version=SCHEMA_VERSION,
        verdict="REJECT",
        reasons=(
            "Disagreement is 2.88 % of 12,480 pairs, beyond the margin of 1 % for good.",
            "The most frequent difference is predictions[*]: number, in 201 pairs.",
            "worst: 24 of 40 calls from 08:00 to 08:10 have a new fault, allowed 3 %.",
        ),
        remarks=(
            "The primary disagrees with itself in 0.12 % of 1,630 answers to repeated requests.",
        ),
        pairs=12480,
        compared=12470,
        more_pairs=None,
        eta_seconds=None,
        gates=(
            gate("coverage", 0.99840, (0.9972, 0.9991), "pass", "Coverage is at least 99 %."),
            gate(
                "faults",
                0.00048,
                (0.00012, 0.0013),
                "wait",
                "6 of 12,480 pairs have a new fault: between 0.012 % and 0.13 %, allowed 0.1 %; "
                "about 9,400 more pairs at this rate would pass it.",
                need=Need(
                    pairs=9400, towards="pass", reason="About 9,400 more pairs at this rate."
                ),
            ),
            gate("disagreement", 0.0288, (0.0242, 0.0341), "fail", "At least 2.42 % differ."),
            gate("slow", 0.0021, (0.0008, 0.0049), "pass", "At most 0.49 % are newly slow."),
            finding_gate("newest", "pass", "The newest calls are not worse than allowed."),
            finding_gate(
                "worst",
                "wait",
                "24 of 40 calls from 08:00 to 08:10 have a new fault, allowed 3 %.",
                Need(pairs=None, towards=None, reason="find out what happened then"),
            ),
        ),
        tool_version="0.1.0",
        generated_at=START + timedelta(hours=31),
        settings={
            "alpha": 0.05,
            "max_disagreement": 0.01,
            "rel_tol": 1e-6,
            "ignore": ["predictions[*].trace_id"],
        },
        settings_sha256="9f2c1d" + "0" * 58,
        window=Window(
            since=START,
            until=None,
            began=START,
            first_pair=START,
            last_pair=START + timedelta(hours=30),
            hours=30.0,
            pairs_per_hour=416.0,
            settle_seconds=60.0,
            in_flight=2,
            warm_up_seconds=0.0,
            warm_up_pairs=0,
        ),
        primary=side("primary", "double-minimal-inference"),
        shadow=side("shadow", "triple-minimal-inference"),
        integrity=Integrity(
            primary_calls=12500,
            paired=12480,
            expected_share=1.0,
            coverage=0.9984,
            share_is_exceeded=False,
            different_requests=0,
            unanswered=20,
            cut_pairs=0,
            abandoned=1,
            shadow_left=0,
            retried=0,
            resent=0,
            unmirrored_bodies=0,
            past_entry=0,
            withheld_cut=0,
            withheld_redacted=0,
            mirrored_only_times=None,
            mirrored_only=4,
            primary_watermark=START + timedelta(hours=30),
            shadow_watermark=START + timedelta(hours=30),
            clock_skew_ms=0.4,
            missing=(
                MissingContrast("request size", "median 81 kB", "median 210 B", 0.62, 0.0003, True),
                MissingContrast("status", "100 % status 200", "100 % status 200", 0.0, None, False),
            ),
            findings=(
                Finding(
                    "missing-unlike",
                    False,
                    "Calls without a shadow call have larger requests than the others.",
                    "Raise the mirror's body limit, or read the verdict as one on small requests.",
                ),
            ),
        ),
        outcomes={
            "equal": 11000,
            "within tolerance": 1114,
            "number": 360,
            "non-finite": 4,
            "failed": 2,
        },
        errors=PairedTable(neither=12476, shadow_only=2, primary_only=1, both=1),
        statuses=(
            StatusPair(200, 200, 12476),
            StatusPair(200, 500, 2),
            StatusPair(503, 200, 1),
            StatusPair(400, None, 1),
        ),
        new_faults=6,
        disagreements=360,
        forgiven=17,
        paths=(
            PathReport(
                path="predictions[*]",
                kind="number",
                pairs=12480,
                differing_pairs=201,
                values=37440,
                agreeing=37101,
                absolute_tolerance=1e-9,
                relative_tolerance=1e-6,
                faults={"number": 335, "non-finite": 4},
                numbers=numbers(),
                labels=None,
            ),
            PathReport(
                path="label",
                kind="label",
                pairs=12480,
                differing_pairs=288,
                values=12480,
                agreeing=12192,
                absolute_tolerance=1e-9,
                relative_tolerance=1e-6,
                faults={"label": 288},
                numbers=None,
                labels=labels(),
            ),
            PathReport(
                path="summary",
                kind="text",
                pairs=12480,
                differing_pairs=96,
                values=12480,
                agreeing=12384,
                absolute_tolerance=1e-9,
                relative_tolerance=1e-6,
                faults={"similarity": 96},
                numbers=None,
                labels=None,
                similarities=(similarity(),),
                lengths=numbers(),
                margin=0.02,
            ),
            PathReport("note", "text", 12480, 0, 12480, 12480, 1e-9, 1e-6, {}, None, None),
        ),
        latency=Latency(
            pairs=12476,
            slo_ms=50.0,
            slow=PairedTable(neither=12431, shadow_only=26, primary_only=12, both=7),
            shifts=(
                LatencyShift(0.5, 4.21, 4.52, 0.31, (0.22, 0.40)),
                LatencyShift(0.95, 9.80, 11.9, 2.10, (1.4, 2.9)),
                LatencyShift(0.99, 21.4, 20.1, -1.30, (-4.8, 2.3)),
            ),
            median_difference_ms=0.28,
            caveat="Durations are each transformer's own; mirrored load is not promoted load.",
        ),
        generated=None,
        noise=Noise(
            source="repeats",
            repeated_requests=412,
            comparisons=1630,
            disagreements=2,
            share=0.0012,
            interval=(0.0001, 0.0049),
            shadow_share=0.0288,
        ),
        opinion=None,
        refused=None,
        clusters=Clusters(
            by="request", clusters=10211, pairs=12480, design_effect=1.09, source="likeness"
        ),
        slices=(
            Slice("header:x-region", "eu-west", 3100, 1, 210, 0.0677, 0.016, 1e-12, True),
            Slice("header:x-region", "us-east", 6200, 3, 100, 0.0161, 0.041, 0.8, False),
        ),
        signatures=(
            Signature(
                "predictions[*]: number",
                "predictions[*] is another number",
                False,
                201,
                0.0161,
                12470,
                "pair",
                worst,
                worst[:1],
            ),
            Signature(
                "status: 200 became 500",
                "the shadow failed with 500",
                True,
                2,
                0.00016,
                12480,
                "call",
                (example(9, None, "status 200 became 500"),),
                (),
            ),
            Signature(
                "label: label",
                "label is another label",
                False,
                288,
                0.0231,
                12470,
                "pair",
                (example(12, None, "label: 'approve' became 'decline'"),),
                (),
            ),
        ),
        timeline=timeline(),
        unmatched_rules=(),
        notes=("Two pairs were still in flight and are left out.",),
    )


def waiting() -> Report:
    """WAIT: young, nothing wrong yet."""
    need = Need(pairs=7200, towards="pass", reason="About 7,200 more pairs at this rate.")
    return replace(
        rejected(),
        verdict="WAIT",
        reasons=("No gate is beyond its margin; 7,200 more pairs settle it, about 17 hours.",),
        pairs=800,
        more_pairs=7200,
        eta_seconds=17 * 3600.0,
        gates=(
            gate("coverage", 1.0, (0.9931, 1.0), "pass", "Coverage is at least 99 %.", n=800),
            gate("faults", 0.0, (0.0, 0.0098), "wait", "No fault yet.", need=need, n=800),
            gate("disagreement", 0.0, (0.0, 0.0098), "pass", "At most 0.98 %.", n=800),
        ),
        signatures=(),
        slices=(),
        clusters=None,
    )


def promoted() -> Report:
    """PROMOTE: an identical shadow."""
    return replace(
        waiting(),
        verdict="PROMOTE",
        reasons=("Every gate has cleared its margin.",),
        gates=tuple(
            gate(name, float(name == "coverage"), bounds, "pass", "Cleared.")
            for name, bounds in (
                ("coverage", (0.9995, 1.0)),
                ("faults", (0.0, 0.0007)),
                ("disagreement", (0.0, 0.0007)),
            )
        ),
    )


def invalid() -> Report:
    """INVALID: no shadow rows at all, so nearly every figure is missing."""
    nan = (math.nan, math.nan)
    return replace(
        waiting(),
        verdict="INVALID",
        reasons=("The shadow recorded no call: is mirroring on?",),
        pairs=0,
        compared=0,
        gates=(
            gate("coverage", None, nan, "wait", "There is nothing to look at.", n=0),
            gate("faults", None, nan, "wait", "There is nothing to look at.", n=0),
        ),
        window=Window(None, None, None, None, None, 0.0, None, 60.0, 0, 0.0, 0),
        integrity=Integrity(
            primary_calls=0,
            paired=0,
            expected_share=1.0,
            coverage=None,
            share_is_exceeded=False,
            different_requests=0,
            unanswered=0,
            cut_pairs=0,
            abandoned=0,
            shadow_left=0,
            retried=0,
            resent=0,
            unmirrored_bodies=0,
            past_entry=0,
            withheld_cut=0,
            withheld_redacted=0,
            mirrored_only_times=None,
            mirrored_only=0,
            primary_watermark=None,
            shadow_watermark=None,
            clock_skew_ms=None,
            missing=(),
            findings=(
                Finding(
                    "no-shadow-calls", True, "The shadow recorded no call.", "Is mirroring on?"
                ),
            ),
        ),
        outcomes={},
        errors=PairedTable(0, 0, 0, 0),
        statuses=(),
        new_faults=0,
        disagreements=0,
        forgiven=0,
        paths=(),
        latency=Latency(0, None, None, (), None, "Durations are measured in each transformer."),
        generated=GENERATED,
        noise=Noise(None, 0, 0, 0, None, None, None),
        timeline=(),
        unmatched_rules=(),
        notes=(),
    )


def hostile() -> Report:
    """Every free text of a REJECT is an attack."""
    report = rejected()
    worst = tuple(
        replace(example(i, float(i), HOSTILE, HOSTILE + "x" * 20_000), pair_id=HOSTILE)
        for i in range(10)
    )
    signatures = tuple(
        Signature(f"{HOSTILE}{n}", HOSTILE, bool(n % 2), 5, 0.0004, 12480, "pair", worst, worst)
        for n in range(20)
    )
    return replace(
        report,
        reasons=(HOSTILE,),
        gates=tuple(replace(g, reason=HOSTILE) for g in report.gates),
        primary=replace(report.primary, service=HOSTILE, model_names={HOSTILE: 1}),
        settings={HOSTILE: HOSTILE},
        unmatched_rules=(HOSTILE,),
        paths=tuple(replace(p, path=HOSTILE) for p in report.paths),
        generated=GENERATED,
        slices=tuple(replace(s, by=HOSTILE, value=HOSTILE) for s in report.slices),
        signatures=signatures,
        notes=(HOSTILE,),
    )


def candidates() -> SideBySide:
    """Three of them, one to promote; the hostile one has a name to match."""
    bad = hostile()
    bad = replace(bad, shadow=replace(bad.shadow, service=f"{HOSTILE} second"))
    return side_by_side([promoted(), waiting(), bad], 0.05)
