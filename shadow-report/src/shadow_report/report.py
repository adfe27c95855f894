"""The finished comparison as plain data: all that an output shows, nothing that it must compute.

Written as JSON, the top-level keys `schema_version`, `verdict`, `reasons`, `pairs` and
`gates` are fixed by contract, all others may grow. Counts are whole numbers of pairs or calls
unless the name says otherwise; shares lie between 0 and 1; times are UTC; durations carry their
unit in the name. None means that there was nothing to compute the figure from.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from shadow_report.statistics.sequences import Interval
from shadow_report.wording import NOT_RECORDED, counted, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many more pairs settle a gate at its present rate, and how.

    `pairs` and `towards` are None when no number of pairs does; `reason` says why. `further` says
    what they need to have where these repeat each other: `with different requests`.
    """

    pairs: int | None
    towards: Literal["pass", "fail"] | None
    reason: str
    further: str = ""


Status = Literal["pass", "fail", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One line of the report.

    name: `coverage`, `faults`, `disagreement`, `bad`, `slow`, `first_token`, `judge`; `newest` and
        `worst` for runs of calls, `slices` for slices of the requests; or that of a rule's margin.
    estimate: the observed share; None without a single trial, and for a run or slices that pass.
    interval: the two bounds that decide: the one that passes at alpha, the one that fails at alpha
        over the number of gates; each holds at every look. NaN for runs and slices.
    margin: a minimum for `coverage` (`is_minimum`), a maximum for the others.
    n: calls or pairs; of a run or slices that pass, those that were looked at. n_eff: what they are
        worth, and in one line why it is less.
    reason: one sentence for a person.
    need: for a waiting gate, what would settle it; else None.
    path: for the gate of a rule's margin the place that it is of, as `paths` have it; else None.
    """

    name: str
    estimate: float | None
    interval: Interval
    margin: float | None
    is_minimum: bool
    n: int
    n_eff: float
    n_eff_reason: str
    status: Status
    reason: str
    need: Need | None = None
    path: str | None = None

    @property
    def has_figures(self) -> bool:
        """Runs of calls and slices have none where nothing was found."""
        return self.estimate is not None or self.margin is not None


@dataclass(frozen=True, slots=True)
class PairedTable:
    """A paired 2x2 table of something bad: `shadow_only` is new, `primary_only` is gone."""

    neither: int
    shadow_only: int
    primary_only: int
    both: int


@dataclass(frozen=True, slots=True)
class StatusPair:
    """How often these two statuses came together; None means no answer."""

    primary: int | None
    shadow: int | None
    pairs: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """Figures of the numeric differences at one path; d is shadow minus primary."""

    values: int
    bias: float
    bias_interval: Interval | None
    sd: float
    mean_absolute: float
    absolute_quantiles: dict[str, float]
    """Quantiles of |d| by name (`p50`, `p90`, `p95`, `p99`), within 1 % and never above `max`,
    which is exact."""
    pair_quantiles: dict[str, float]
    """The same of the largest |d| in each pair, by the names `p50`, `p95` and `max`."""
    correlation: float | None
    limits_of_agreement: Interval
    """Bland-Altman: bias +- 1.96 sd."""
    primary_quantiles: dict[str, float]
    shadow_quantiles: dict[str, float]
    distance: float
    """Kolmogorov-Smirnov D between the two sides' values (description, not a gate)."""
    wasserstein: float
    """How far a value moved on average, in the values' unit, whichever call it answers."""
    psi: float
    """Population stability index over ten bins of equal shares of the primary's values."""
    psi_by_chance: float
    """What the index is on average for two samples of this size without any shift."""
    histogram: tuple[tuple[float, float, int], ...]
    """(low, high, count) of d, at most a few dozen bins of equal width and, where values lie far
    out, a wider one at that end."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Figures of the labels at one path."""

    values: int
    agreement: float
    kappa: float | None
    classes: tuple[str, ...]
    """Most frequent first; rare ones are gathered as `other`."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows are the primary's classes, columns the shadow's."""
    distance: float
    """Total variation between the two sides' label shares."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike the texts or lists at one path are; 1 for equal ones."""

    name: str
    """`similarity` of texts, `cosine` of vectors, `overlap` and `correlation` of rankings."""
    values: int
    below: int
    """Values that are less alike than the rule asks for."""
    least: float
    """What the rule asks for."""
    mean: float
    quantiles: dict[str, float]
    """`min`, which is exact, `p1`, `p5`, `p25`, `p50`."""
    histogram: tuple[tuple[float, float, int], ...]
    """As that of `Numbers`."""


@dataclass(frozen=True, slots=True)
class PathReport:
    """One place in the answers, list positions collapsed: `predictions[*]`, `outputs.a.data[*]`."""

    path: str
    kind: str
    """`number`, `label`, `probability vector`, `top class`, `text`, `boolean`, `list`, `object`,
    `mixed` ..."""
    pairs: int
    """Pairs in which the path stands on both sides; one that lacks it is in the next alone."""
    differing_pairs: int
    values: int
    agreeing: int
    """Values that are equal or within tolerance."""
    absolute_tolerance: float
    relative_tolerance: float
    faults: dict[str, int]
    """Values by outcome: `missing`, `extra`, `type`, `length`, `order`, `non-finite` ..."""
    numbers: Numbers | None
    labels: Labels | None
    similarities: tuple[Similarity, ...] = ()
    lengths: Numbers | None = None
    """Characters of the texts, where a rule reads them as such."""
    margin: float | None = None
    """Share of the pairs that may differ here, where a rule says so."""


@dataclass(frozen=True, slots=True)
class PathMargin:
    """How often the answers differ where a rule says how often they may."""

    path: str
    """As the rule has it."""
    place: str
    """The same; of patterns with their names, as the place of the classes that they make."""
    gate: str
    """What its gate is called."""
    margin: float
    pairs: int
    """Pairs in which the place stands."""
    differing_pairs: int
    any_number: bool = False
    """No number differs there, since the rule's tolerance is infinite."""


@dataclass(frozen=True, slots=True)
class Example:
    """One pair as evidence. Bodies are text as stored, cut for the report; `*_cut` says so."""

    pair_id: str
    request_time: datetime
    what: str
    """The first difference: `predictions[0]: 6.6 became 9.9`."""
    size: float | None
    """That of the gravest difference that has one. Of numbers the difference, relative to the
    larger side, or itself under a rule whose tolerance is absolute alone; of what a `Similarity` is
    of, 1 less that. None where nothing has a size."""
    primary_status: int | None
    shadow_status: int | None
    primary_duration_ms: float | None
    shadow_duration_ms: float | None
    request: str
    primary_response: str
    shadow_response: str
    request_cut: bool
    primary_cut: bool
    shadow_cut: bool
    place: str = ""
    """Where the two texts below stand; empty for the whole answer."""
    primary_value: str = ""
    """What differs there, from shortly before the first difference on, or of a key that one side
    lacks from before its place in the object; empty where it is a status."""
    shadow_value: str = ""
    primary_error: str = ""
    """Why it failed, as its row says, whatever its body; empty where the row says nothing."""
    shadow_error: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """Pairs that differ in the same way (`predictions[*]: number`), most frequent first."""

    signature: str
    in_words: str
    """The same as a clause: `predictions[*] is another number`."""
    is_fault: bool
    """True for a new fault, False for a disagreement."""
    pairs: int
    share: float
    of: int
    """What `pairs` is a share of: the trials of the gate that judges it, in its `unit`."""
    unit: Literal["pair", "call"]
    largest: tuple[Example, ...]
    typical: tuple[Example, ...]
    has_own_margin: bool = False
    """It differs only where a rule has a margin of its own; the gate of that margin judges it."""
    gravity: int = 0
    """That of its gravest difference, the greater the graver: another label is more than another
    number, and a status more than both."""
    any_value: bool = False
    """Its pairs have one place and kind of difference in common, and not the values there."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How many pairs differ at one place in one way, whatever else differs in them."""

    in_words: str
    """A clause: `predictions[*] is another number`."""
    is_fault: bool
    gravity: int
    """As that of a `Signature`."""
    pairs: int
    one_sided: str = ""
    """Its path, where a field is there on one side only."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was looked at. `began` is the first mirrored call: coverage counts from there."""

    since: datetime | None
    until: datetime | None
    began: datetime | None
    first_pair: datetime | None
    last_pair: datetime | None
    hours: float
    pairs_per_hour: float | None
    settle_seconds: float
    in_flight: int
    """Calls newer than the settle time whose other half is not there yet; left out."""
    warm_up_seconds: float
    warm_up_pairs: int
    """Pairs of the warm-up; left out."""
    before_first_pair: int = 0
    """The primary's calls from before `began`; left out."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one side recorded in the window, since mirroring began."""

    role: str
    service: str
    other_services: tuple[str, ...]
    """Further services that recorded in this role, when none was chosen."""
    calls: int
    unpaired: int
    duplicates: int
    """Further calls with a pair id that this side had recorded already; only the first counts."""
    unanswered: int
    """Calls without a response row: the process died in the middle of them."""
    failed: int
    lost_records: int
    """Calls that were numbered but are not in the tables (`inference_gaps`)."""
    cut_requests: int
    cut_responses: int
    unparseable: int
    model_names: dict[str, int]
    model_versions: dict[str, int]
    protocols: dict[str, int]
    pair_sources: dict[str, int]
    recorders: int
    first_call: datetime | None
    last_call: datetime | None
    delivery_lag_seconds: float | None
    """Longest time between a call and its row in the tables."""

    @property
    def title(self) -> str:
        """The service, and its model version when all its calls recorded the same one."""
        versions = set(self.model_versions)
        if len(versions) != 1 or versions == {NOT_RECORDED}:
            return self.service
        return f"{self.service}, version {versions.pop()}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about the evidence. Only what is `unsound` makes the verdict INVALID."""

    code: str
    unsound: bool
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class NewestCall:
    """The newest call of a role in the tables, whatever the window."""

    inference_service: str
    request_time: datetime


@dataclass(frozen=True, slots=True)
class MissingContrast:
    """How the primary calls without a shadow call differ from the others in one respect."""

    respect: str
    """`request size`, `status`, `time` or `id`."""
    missing: str
    paired: str
    distance: float
    """0 = alike, 1 = nothing in common (Kolmogorov-Smirnov D, or total variation)."""
    p_value: float | None
    unlike: bool


@dataclass(frozen=True, slots=True)
class Integrity:
    """Whether the pairs may stand for the traffic."""

    primary_calls: int
    paired: int
    expected_share: float
    """Share of the primary's calls that should have been mirrored (1 unless set)."""
    coverage: float | None
    """Pairs over expected pairs, as the gate has it; 1 where a share is mirrored and more came."""
    share_is_exceeded: bool
    """More calls are mirrored than should be, beyond chance."""
    different_requests: int
    """Pairs whose sides did not receive the same request body; not compared."""
    unanswered: int
    """Calls without a pair for which no row says why the shadow should not have got them."""
    cut_pairs: int
    """Pairs with a response stored cut; their answers are not compared."""
    abandoned: int
    """Pairs of which nobody waited for an answer; not compared."""
    shadow_left: int
    """Of those, the ones in which the primary's answer was awaited and the shadow's stream not."""
    retried: int
    """Pairs that a further shadow call made worse."""
    resent: int
    """A follower's attempts that ended with the shadow's process, of calls that it sent again and
    that were answered; only the answer counts."""
    unmirrored_bodies: int
    """Calls without a pair whose body no entry mirrors: 1 MB and more, or of unknown length."""
    past_entry: int
    """Calls without a pair that did not come through the entry, which alone mirrors."""
    withheld_cut: int
    """Calls without a pair that no follower sends, since their stored body is cut."""
    withheld_redacted: int
    """Calls without a pair that no follower sends, since values of their body are redacted."""
    mirrored_only: int
    """Mirrored shadow calls whose primary call is not in the tables."""
    mirrored_only_times: tuple[datetime, datetime] | None
    """When the first and the last of them came; None without any."""
    primary_watermark: datetime | None
    """The newest call that each side has delivered."""
    shadow_watermark: datetime | None
    clock_skew_ms: float | None
    """Median of the shadow's request time minus the primary's."""
    missing: tuple[MissingContrast, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Clusters:
    """How far the calls repeat each other: they are worth their number over the design effect."""

    by: str
    """`request` for equal requests, a time unit, or a field of the requests."""
    clusters: int
    pairs: int
    design_effect: float
    source: str
    """What sets it: `independent`, `clusters`, `likeness` or `clumps`."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One step of the timeline; all buckets are equally long."""

    start: datetime
    seconds: float
    primary_calls: int
    pairs: int
    new_faults: int
    unanswered: int
    """Calls without a shadow call of which no row says why."""
    disagreements: int
    slow: int

    @property
    def end(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    @property
    def coverage(self) -> float | None:
        """The share of the primary's calls with a pair; None without calls."""
        return min(self.pairs / self.primary_calls, 1.0) if self.primary_calls else None

    @property
    def fault_share(self) -> float:
        return self.new_faults / max(1, self.pairs)

    @property
    def disagreement_share(self) -> float:
        return self.disagreements / max(1, self.pairs)


@dataclass(frozen=True, slots=True)
class LatencyShift:
    """One quantile of the durations on both sides, and shadow minus primary with its interval."""

    quantile: float
    primary_ms: float
    shadow_ms: float
    shift_ms: float
    interval_ms: Interval | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Durations as each transformer measured them, of pairs that both sides answered."""

    pairs: int
    slo_ms: float | None
    slow: PairedTable | None
    shifts: tuple[LatencyShift, ...]
    median_difference_ms: float | None
    """Median of the paired differences (not the difference of the medians)."""
    caveat: str


@dataclass(frozen=True, slots=True)
class Shift:
    """One quantile of a figure on both sides, and shadow minus primary with its interval."""

    quantile: float
    primary: float
    shadow: float
    shift: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Drift:
    """A figure of generated answers on both sides, of the pairs in which both are known."""

    name: str
    """`first token`, `tokens per second` (after the first), `tokens out`, `tokens in`."""
    unit: str
    pairs: int
    shifts: tuple[Shift, ...]
    mean_difference: float
    """Shadow minus primary."""
    mean_interval: Interval | None
    """It holds at every look; those of the shifts are for one look."""


@dataclass(frozen=True, slots=True)
class Flip:
    """How often these two came together."""

    primary: str
    shadow: str
    pairs: int


@dataclass(frozen=True, slots=True)
class Generated:
    """What the two sides' generated answers have in common: pairs of chats and the like."""

    pairs: int
    texts: int
    """Pairs with two whole answers, of which the four next figures are."""
    same_words: int
    """Equal but for width, case and white space."""
    refusals: PairedTable
    """By `refusal` in the answer, or by the pattern of that name in the rules."""
    tool_calls: PairedTable
    """Answers that call a tool."""
    finish_reasons: tuple[Flip, ...]
    """The most frequent first, those that agree among them."""
    broken: PairedTable
    """Streams that broke off, or in which the engine reported an error."""
    left: int
    """Pairs with a stream whose caller did not wait for its end; not compared."""
    drifts: tuple[Drift, ...]


@dataclass(frozen=True, slots=True)
class Noise:
    """How often the primary disagrees with itself when it sees the same request again."""

    source: Literal["repeats", "replay"] | None
    """`repeats` of a request in the traffic, or a `replay` of calls to the primary itself."""
    repeated_requests: int
    """Request bodies that it answered more than once."""
    comparisons: int
    disagreements: int
    share: float | None
    interval: Interval | None
    shadow_share: float | None
    """The shadow's disagreement, to compare it with."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Which answers another model called better, of sampled pairs that differ.

    better, worse, ties: the shadow's answers, where both orders of the sides gave the same opinion.
    """

    model: str
    asked: int
    better: int
    worse: int
    ties: int
    inconsistent: int
    """The opinion changed with the order."""
    failed: int
    failure: str
    """What the last failed question met; empty when none failed."""
    net_worse: Interval | None = None
    """Share that is worse less share that is better, of the consistent opinions."""

    @property
    def consistent(self) -> int:
        return self.better + self.worse + self.ties


@dataclass(frozen=True, slots=True)
class Refused:
    """That both sides answer nearly all calls with one 4xx, which says nothing of the models."""

    status: int
    pairs: int
    path: str
    """Where the primary's predictor was asked in one of these calls."""
    body: str
    """The beginning of its answer."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The pairs of one value of a request field or header, against all other pairs."""

    by: str
    value: str
    pairs: int
    new_faults: int
    disagreements: int
    share: float
    rest_share: float
    p_value: float
    discovered: bool
    """True when the slice is worse after the false discovery rate is controlled at alpha."""


SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Report:
    """The whole comparison. Outputs read it; nothing writes to it."""

    schema_version: int
    verdict: str
    """`PROMOTE`, `REJECT`, `WAIT` or `INVALID`."""
    reasons: tuple[str, ...]
    """Whole sentences, the most important first."""
    remarks: tuple[str, ...]
    """What else to know before acting on the verdict: noise, options without effect."""
    pairs: int
    """Pairs that the verdict rests on."""
    compared: int
    """Pairs that agree or differ, which disagreement counts among: all but those with a new fault,
    those that both sides refuse or fail alike, and those that nobody can compare."""
    gates: tuple[Gate, ...]
    more_pairs: int | None
    """For WAIT: how many more pairs would settle it, if they are like these."""
    eta_seconds: float | None
    """For WAIT: how long that takes at the present rate of pairs, or of those that it takes: with
    different requests, say. None where none come."""
    tool_version: str
    generated_at: datetime
    settings: dict[str, object]
    """Every setting that the result depends on, without the connection."""
    settings_sha256: str
    window: Window
    primary: Side
    shadow: Side
    integrity: Integrity
    outcomes: dict[str, int]
    """Pairs by outcome: `equal`, `not compared`, `number`, `status`, `missing`, `failed` ..."""
    errors: PairedTable
    statuses: tuple[StatusPair, ...]
    new_faults: int
    disagreements: int
    forgiven: int
    """Pairs that differ beyond the tolerance only where a rule has a margin of its own: no
    disagreements; the gates of these margins judge them."""
    paths: tuple[PathReport, ...]
    latency: Latency
    generated: Generated | None
    """None where no answer was generated."""
    noise: Noise
    opinion: Opinion | None
    """None where no judge was asked."""
    refused: Refused | None
    """None where the calls are not refused alike."""
    clusters: Clusters | None
    slices: tuple[Slice, ...]
    signatures: tuple[Signature, ...]
    timeline: tuple[Bucket, ...]
    unmatched_rules: tuple[str, ...]
    """Options by path that found nothing that they are for in this window: `ignore meta.took`, or
    `rule labels (unordered, and no list there)`."""
    notes: tuple[str, ...]
    """What to know next to the verdict: what was left out, what a figure does not prove."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Several candidates, each with a report of its own against the same primary.

    `verdict` is the gravest of the candidates' (PROMOTE only where all of them are), `reasons` has
    the first reason of each, `pairs` is their sum.
    """

    schema_version: int
    verdict: str
    reasons: tuple[str, ...]
    pairs: int
    alpha: float
    """The chance of any wrong verdict; each candidate is judged at an equal share of it."""
    candidates: tuple[Report, ...]
    """In the order in which they were named."""

    @property
    def promoted(self) -> tuple[str, ...]:
        """The candidates that may replace the primary."""
        return tuple(r.shadow.service for r in self.candidates if r.verdict == "PROMOTE")


Judged = Report | SideBySide
"""What an output shows: the comparison with one shadow, or with several."""


def each_report(judged: Judged) -> tuple[Report, ...]:
    """The one report, or that of each candidate."""
    return judged.candidates if isinstance(judged, SideBySide) else (judged,)


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair that stands for its kind of difference."""

    signature: Signature
    example: Example
    before: int
    """Pairs of the same kind that are shown before it."""

    @property
    def kind(self) -> str:
        """`new fault`, `disagreement`, or `own margin` where that of a rule judges it."""
        if self.signature.is_fault:
            return "new fault"
        return "own margin" if self.signature.has_own_margin else "disagreement"

    @property
    def alike(self) -> str:
        """How many are of its kind, `140 of 3,000 pairs, 4.67 %`, or how many more."""
        signature = self.signature
        if not self.before:
            among = counted(signature.of, signature.unit)
            whatever = ", whatever the values" * signature.any_value
            return f"{signature.pairs:,} of {among}, {percent(signature.share)}{whatever}"
        more = signature.pairs - self.before - 1
        return f"another of these{f': {more:,} more' * (more > 0)}"


def worst_pairs(signatures: tuple[Signature, ...], limit: int) -> list[ShownPair]:
    """Up to `limit` pairs, no pair twice: one of every kind of difference before a second of any.

    Faults come before disagreements, of these the graver before the others (another label before
    another number), and frequent kinds before rare ones; kinds that begin with the same difference
    as one before them, and have more besides, come after the others.
    """
    ranked = sorted(
        signatures, key=lambda s: (not s.is_fault, 0 if s.is_fault else -s.gravity, -s.pairs)
    )
    begun: set[str] = set()
    firsts: list[Signature] = []
    others: list[Signature] = []
    for signature in ranked:
        first = signature.signature.partition(" + ")[0]
        (others if first in begun else firsts).append(signature)
        begun.add(first)
    queues = [(s, [*s.largest, *s.typical]) for s in (*firsts, *others)]
    chosen: list[ShownPair] = []
    seen: dict[str, set[str]] = {}
    for turn in range(max((len(examples) for _, examples in queues), default=0)):
        for signature, examples in queues:
            if turn < len(examples) and len(chosen) < limit:
                of_kind = seen.setdefault(signature.signature, set())
                if examples[turn].pair_id not in of_kind:
                    chosen.append(ShownPair(signature, examples[turn], len(of_kind)))
                    of_kind.add(examples[turn].pair_id)
    return chosen
