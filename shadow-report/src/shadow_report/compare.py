"""One comparison: a single pass over the pairs in bounded memory, then the judged report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from shadow_report import __version__
from shadow_report.answers.comparer import Comparer
from shadow_report.answers.figures import advice, path_reports
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import RequestField
from shadow_report.counting import Counters
from shadow_report.counting.classify import Classifier, Clock
from shadow_report.counting.noise import NoiseFloor, replayed_floor
from shadow_report.counting.timeline import from_microseconds, microseconds
from shadow_report.counting.worst import signatures
from shadow_report.evidence.batch import WholePair
from shadow_report.evidence.database import CallGroup, Duplicates, Scope, Tables, open_tables
from shadow_report.evidence.services import (
    Sides,
    calls_by,
    find_sides,
    from_rollout,
    may_have_gaps,
    uniform_since,
)
from shadow_report.judging.gates import (
    MIRROR_REJECT_ALPHA,
    Evidence,
    Net,
    Rate,
    Unmirrored,
    judge,
)
from shadow_report.judging.integrity import Facts, findings
from shadow_report.judging.verdict import Verdict, decide, gravest
from shadow_report.report import (
    SCHEMA_VERSION,
    Integrity,
    Noise,
    Opinion,
    PathMargin,
    PathReport,
    Report,
    Side,
    SideBySide,
    Signature,
    Window,
)
from shadow_report.rules import read_rules
from shadow_report.settings import Comparison
from shadow_report.statistics.sequences import share_is_exceeded
from shadow_report.wording import counted, percent, percent_range

# Called with pairs done and pairs expected, after each batch.
Progress = Callable[[int, int], None]
Ask = Callable[[Sequence[WholePair]], Opinion]


def compare(
    uri: str,
    settings: Comparison,
    progress: Progress = lambda done, of: None,
    ask: Ask | None = None,
) -> Report:
    """Compare what the tables at `uri` hold, and judge it.

    ask: gives another model's opinion of the sampled pairs that differ.

    Raises OneLineError when the tables cannot be read. Reads only, in one snapshot where the server
    has one, and else up to what is settled.
    """
    with open_tables(uri) as tables:
        observed = observe(tables, settings, progress)
    return observed.asked(ask).report()


def compare_candidates(
    uri: str,
    settings: Comparison,
    progress: Progress = lambda done, of: None,
    ask: Ask | None = None,
) -> SideBySide:
    """Compare each of the candidates with the primary in one snapshot, and judge it at its share of
    alpha. Asks and raises as `compare` does.
    """
    with open_tables(uri) as tables:
        observed = [observe(tables, each, progress) for each in settings.each_candidate()]
    reports = [each.asked(ask).report() for each in observed]
    return side_by_side(reports, settings.margins.alpha)


def side_by_side(reports: Sequence[Report], alpha: float) -> SideBySide:
    """These candidates' reports as one; `alpha` is what they shared."""
    return SideBySide(
        schema_version=SCHEMA_VERSION,
        verdict=gravest(Verdict(report.verdict) for report in reports).value,
        reasons=tuple(
            f"{report.shadow.service}: {report.verdict}. {reason}"
            for report in reports
            for reason in report.reasons[:1]
        ),
        pairs=sum(report.pairs for report in reports),
        alpha=alpha,
        candidates=tuple(reports),
    )


def observe(tables: Tables, settings: Comparison, progress: Progress) -> Observed:
    """All that a comparison reads and counts, in one pass."""
    now = tables.now()
    if not tables.has_snapshot():
        # What is settled no longer changes, so that all questions are about the same calls.
        settled = now - settings.settle
        settings = replace(settings, until=min(settings.until or settled, settled))
    if settings.since_rollout:
        settings = from_rollout(tables, settings)
    sides = find_sides(tables, settings)
    settings = with_rules_of_protocol(settings, sides.groups)
    duplicates = tables.duplicates(sides.scope)
    calls = sum(group.calls for group in sides.groups_of("primary"))
    counters = begin_counters(
        settings,
        sides,
        settled_watermark(tables, sides, settings, now),
        worst_retries(tables, sides.scope, settings, duplicates) if duplicates.shadow else {},
    )
    batches = tables.pairs(
        sides.scope,
        duplicates,
        with_requests=reads_requests(settings),
        followed=not is_mirrored(sides, settings),
    )
    counters.take_in(batches, lambda done: progress(done, calls))
    asked = counters.differing.pair_ids
    return Observed(
        settings=settings,
        sides=sides,
        counters=counters,
        duplicates=duplicates,
        lost={role: lost_records(tables, sides, role, settings) for role in ("primary", "shadow")},
        signatures=explained(tables, sides.scope, counters, settings),
        sampled=tuple(tables.whole_pairs(sides.scope, asked)) if asked else (),
        replayed=replayed_floor(tables.with_itself(sides.scope), settings.rules),
        generated_at=now.astimezone(UTC),
    )


def is_mirrored(sides: Sides, settings: Comparison) -> bool:
    """Whether the entry copied the calls to the shadow; else a follower or replay sent them."""
    return sides.is_mirrored and settings.shadow_since is None


def reads_requests(settings: Comparison) -> bool:
    """Whether the counters ask for the requests' bodies and headers."""
    return bool(settings.slices) or isinstance(settings.cluster, RequestField)


def explained(
    tables: Tables, scope: Scope, counters: Counters, settings: Comparison
) -> tuple[Signature, ...]:
    """The ways in which pairs differ, with examples from the tables."""
    return signatures(
        counters.groups,
        [place.path for place in counters.comparer.places.all],
        counters.ledger.pairs,
        settings.rules,
        partial(tables.whole_pairs, scope),
    )


def with_rules_of_protocol(settings: Comparison, groups: Sequence[CallGroup]) -> Comparison:
    """The same comparison, by the rules for the calls' protocol where no file of rules was named;
    those that were given come after them.
    """
    given = settings.rules
    if given.is_of_file or {group.protocol for group in groups} != {"openai"}:
        return settings
    # Each generated answer has an id of its own: without rules no two would ever agree.
    by_path = (*read_rules(Path("openai")).by_path, *given.by_path)
    return replace(settings, rules=replace(given, by_path=by_path), rules_by_protocol=True)


def noise_floor(uri: str, settings: Comparison) -> Noise | None:
    """How often the primary differs from itself on calls that were sent to it once more.

    None when none was. OneLineError when the tables cannot be read.
    """
    with open_tables(uri) as tables:
        scope = Scope(settings.primary or "", "", settings.since, settings.until)
        settings = with_rules_of_protocol(settings, tables.calls(scope))
        found = replayed_floor(tables.with_itself(scope), settings.rules)
    return None if found is None else found.report(None, settings.margins.alpha)


def worst_retries(
    tables: Tables, scope: Scope, settings: Comparison, duplicates: Duplicates
) -> dict[int, Outcome]:
    """By the hash of a pair id, the gravest outcome of the shadow's further calls with it."""
    clock = Clock(counted_from=-(2**63), settled_before=2**63 - 1)
    classifier = Classifier(Comparer(settings.rules), settings.rules, clock)
    worst: dict[int, Outcome] = {}
    for batch in tables.further_shadow_calls(scope, duplicates):
        found = classifier.classify(batch)
        hashes = batch.integers("pair_hash")[found.usable].tolist()
        for pair, outcome in zip(hashes, found.outcomes[found.usable].tolist(), strict=True):
            worst[pair] = max(worst.get(pair, Outcome.EQUAL), Outcome(outcome))
    return worst


def settled_watermark(
    tables: Tables, sides: Sides, settings: Comparison, now: datetime
) -> datetime:
    """Calls from here on may still be under way, to the tables or to the shadow."""
    settled = now - settings.settle
    if is_mirrored(sides, settings) or settings.shadow_since is not None:
        return settled
    followed = tables.followed_until(sides.scope)
    return settled if followed is None else min(settled, followed)


def begin_counters(
    settings: Comparison, sides: Sides, settled_before: datetime, retries: dict[int, Outcome]
) -> Counters:
    """Empty tallies for the calls of these groups."""
    first, last, calls = extent(sides, settings, settled_before)
    clock = Clock(counted_from=microseconds(first), settled_before=microseconds(settled_before))
    return Counters.begin(
        settings,
        clock,
        first=first,
        last=last,
        calls=calls,
        retries=retries,
        is_mirrored=is_mirrored(sides, settings),
    )


def extent(
    sides: Sides, settings: Comparison, settled_before: datetime
) -> tuple[datetime, datetime, int]:
    """From when to when calls are counted, and how many the primary has."""
    groups = sides.groups_of("primary") or sides.groups_of("shadow")
    began = sides.began or min((g.first_call for g in groups), default=settled_before)
    first = began + settings.warm_up
    last = max((group.last_call for group in groups), default=settled_before)
    return first, max(first, last), sum(group.calls for group in sides.groups_of("primary"))


def lost_records(tables: Tables, sides: Sides, role: str, settings: Comparison) -> int:
    """How many calls this side's recorders numbered that are not in the tables."""
    groups, everything = sides.groups_of(role), settings.since is None
    if not may_have_gaps(groups, from_one=everything):
        return 0
    # In a window the numbers before and after it are not missed.
    numbers: dict[UUID, tuple[int, int]] = {}
    for group in groups:
        first, last = numbers.get(group.recorder_id, (group.first_sequence, group.last_sequence))
        first = 0 if everything else min(first, group.first_sequence)
        numbers[group.recorder_id] = first, max(last, group.last_sequence)
    return tables.lost_calls(role, groups[0].inference_service, numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that one run read and counted, before it is judged."""

    settings: Comparison
    sides: Sides
    counters: Counters
    duplicates: Duplicates
    lost: dict[str, int]
    signatures: tuple[Signature, ...]
    replayed: NoiseFloor | None = None
    """The noise floor by a replay to the primary itself; without it, repeated requests tell."""
    sampled: tuple[WholePair, ...] = ()
    """Pairs that differ, for a judge's opinion."""
    opinion: Opinion | None = None
    generated_at: datetime

    def asked(self, ask: Ask | None) -> Observed:
        """The same with a judge's opinion. It takes minutes: no tables should be open meanwhile."""
        return self if ask is None else replace(self, opinion=ask(self.sampled))

    def report(self) -> Report:
        """The report, with gates and verdict."""
        settings, counters, ledger = self.settings, self.counters, self.counters.ledger
        alpha, window = settings.margins.alpha, self._window()
        primary, shadow = self._side("primary"), self._side("shadow")
        gates = judge(self._evidence(), settings.margins)
        coverage_fails = any(g.name == "coverage" and g.status == "fail" for g in gates)
        integrity = self._integrity(window, primary, shadow, coverage_fails=coverage_fails)
        noise = self._noise()
        unmatched = counters.unmatched_rules()
        paths = path_reports(counters.comparer.places.all, ledger.differing, alpha)
        decision = decide(
            gates,
            settings.margins,
            problems=[f"{f.what} {f.remedy}" for f in integrity.findings if f.unsound],
            duration=timedelta(hours=window.hours),
            pairs_per_second=window.pairs_per_hour and window.pairs_per_hour / 3600,
            details=self._details(integrity, paths),
        )
        return Report(
            schema_version=SCHEMA_VERSION,
            verdict=decision.verdict.value,
            reasons=decision.reasons,
            remarks=(*_remarks(noise, settings), *_remark_of(self._opinion())),
            pairs=ledger.pairs,
            gates=decision.gates,
            more_pairs=decision.more_pairs,
            eta_seconds=None if decision.eta is None else decision.eta.total_seconds(),
            tool_version=__version__,
            generated_at=self.generated_at,
            settings=settings.as_plain(),
            settings_sha256=settings.sha256(),
            window=window,
            primary=primary,
            shadow=shadow,
            integrity=integrity,
            outcomes={o.title: ledger.outcomes[o] for o in Outcome if ledger.outcomes[o]},
            errors=ledger.errors(),
            statuses=ledger.status_pairs(),
            new_faults=ledger.new_faults,
            disagreements=ledger.disagreements,
            paths=paths,
            latency=counters.latency.report(alpha),
            generated=counters.generated.report(alpha),
            noise=noise,
            opinion=self._opinion(),
            clusters=counters.trials.report(),
            slices=counters.slices.report(alpha),
            signatures=self.signatures,
            timeline=counters.timeline.report(),
            unmatched_rules=unmatched,
            notes=self._notes(),
        )

    def _floor(self) -> NoiseFloor | None:
        # The replay asks what the traffic asks; repeats are of common requests only.
        return self.replayed or self.counters.noise.floor()

    def _noise(self) -> Noise:
        ledger, floor = self.counters.ledger, self._floor()
        share = ledger.disagreements / ledger.compared if ledger.compared else None
        if floor is None:
            return Noise(None, 0, 0, 0, None, None, share)
        return floor.report(share, self.settings.margins.alpha)

    def _net_opinion(self) -> Net | None:
        opinion = self.opinion
        return None if opinion is None else Net(opinion.worse, opinion.better, opinion.consistent)

    def _opinion(self) -> Opinion | None:
        if self.opinion is None or (net := self._net_opinion()) is None or not net.trials:
            return self.opinion
        alpha = self.settings.margins.alpha
        return replace(self.opinion, net_worse=net.bounds(alpha, alpha))

    def _expected_pairs(self) -> int:
        """Primary calls that should have a shadow call."""
        calls = self.counters.classifier.counts.primary.calls
        return max(self.counters.ledger.pairs, round(calls * self.settings.mirrored_share))

    def _window(self) -> Window:
        settings, ledger = self.settings, self.counters.ledger
        counts, first, last = self.counters.classifier.counts, ledger.first_pair, ledger.last_pair
        hours = 0.0 if first is None or last is None else (last - first) / 3.6e9
        return Window(
            since=settings.since,
            until=settings.until,
            began=self.sides.began,
            first_pair=None if first is None else from_microseconds(first),
            last_pair=None if last is None else from_microseconds(last),
            hours=hours,
            pairs_per_hour=ledger.pairs / hours if hours > 0 else None,
            settle_seconds=settings.settle.total_seconds(),
            in_flight=counts.in_flight,
            warm_up_seconds=settings.warm_up.total_seconds(),
            warm_up_pairs=counts.warm_up,
        )

    def _side(self, role: str) -> Side:
        sides, counts = self.sides, self.counters.classifier.counts
        groups, is_primary = sides.groups_of(role), role == "primary"
        side = counts.primary if is_primary else counts.shadow
        return Side(
            role=role,
            service=sides.scope.primary if is_primary else sides.scope.shadow,
            other_services=(sides.primary if is_primary else sides.shadow).others,
            calls=side.calls,
            unpaired=self.counters.ledger.missing if is_primary else counts.shadow_only,
            duplicates=self.duplicates.primary if is_primary else self.duplicates.shadow,
            unanswered=side.unanswered,
            failed=side.failed,
            lost_records=self.lost[role],
            cut_requests=sum(group.cut_requests for group in groups),
            cut_responses=side.cut,
            unparseable=side.unparseable,
            model_names=calls_by(groups, lambda group: group.model_name),
            model_versions=calls_by(groups, lambda group: group.model_version),
            protocols=calls_by(groups, lambda group: group.protocol),
            pair_sources=calls_by(groups, lambda group: group.pair_source),
            recorders=len({group.recorder_id for group in groups}),
            first_call=min((group.first_call for group in groups), default=None),
            last_call=max((group.last_call for group in groups), default=None),
            delivery_lag_seconds=max((g.delivery_lag_seconds for g in groups), default=None),
        )

    def _integrity(
        self, window: Window, primary: Side, shadow: Side, *, coverage_fails: bool
    ) -> Integrity:
        settings, ledger = self.settings, self.counters.ledger
        counts, expected = self.counters.classifier.counts, self._expected_pairs()
        due = self.counters.trials.rate("coverage")
        integrity = Integrity(
            primary_calls=counts.primary.calls,
            paired=ledger.pairs,
            expected_share=settings.mirrored_share,
            coverage=ledger.pairs / expected if expected else None,
            different_requests=counts.different_requests,
            share_is_exceeded=settings.mirrored_share < 1
            and share_is_exceeded(
                due.trials - due.events, due.trials, settings.mirrored_share, MIRROR_REJECT_ALPHA
            ),
            unanswered=ledger.unanswered,
            cut_pairs=counts.cut_pairs,
            abandoned=counts.abandoned,
            shadow_left=counts.shadow_left,
            retried=counts.retried,
            resent=self.duplicates.resent,
            unmirrored_bodies=counts.unmirrored_bodies,
            past_entry=counts.past_entry,
            withheld_cut=counts.withheld_cut,
            withheld_redacted=counts.withheld_redacted,
            mirrored_only=counts.mirrored_only,
            primary_watermark=primary.last_call,
            shadow_watermark=shadow.last_call,
            clock_skew_ms=ledger.clock_skew_ms,
            missing=self.counters.missing.report(),
            findings=(),
        )
        facts = Facts(
            primary=primary,
            shadow=shadow,
            window=window,
            integrity=integrity,
            uniform_since=uniform_since(self.sides.groups, settings.primary, settings.shadow),
            min_coverage=settings.margins.min_coverage,
            coverage_fails=coverage_fails,
            is_mirrored=is_mirrored(self.sides, settings),
        )
        return replace(integrity, findings=findings(facts))

    def _evidence(self) -> Evidence:
        ledger, trials, share = self.counters.ledger, self.counters.trials, self.settings
        slow = None
        if "slow" in trials.gates:
            gate, latency = trials.rate("slow"), self.counters.latency
            slow = Net(gate.events, latency.primary_only, gate.trials, gate.effective_trials)
        coverage = trials.rate("coverage")
        missing: Rate | Unmirrored = coverage
        if share.mirrored_share < 1:
            copied = coverage.trials - coverage.events
            missing = Unmirrored(copied, coverage.trials, share.mirrored_share)
        return Evidence(
            missing=missing,
            faults=trials.rate("faults"),
            disagreement=trials.rate("disagreement"),
            bad=trials.rate("bad"),
            unanswered=ledger.unanswered if share.mirrored_share == 1 else 0,
            unknown=self.counters.classifier.counts.cut_pairs,
            slow=slow,
            opinion=self._net_opinion(),
            noise=None if (floor := self._floor()) is None else floor.rate,
            scans=trials.scans(),
            slices=self.counters.slices.report(self.settings.margins.alpha)
            if self.settings.slices
            else None,
            why={name: trials.why(name) for name in trials.gates},
            margins=self._margins(trials.rate("disagreement")),
        )

    def _margins(self, disagreement: Rate) -> tuple[tuple[PathMargin, Rate], ...]:
        """The margins by path; their pairs repeat each other as those of the disagreement do."""
        share = disagreement.n_eff / disagreement.trials if disagreement.trials else 1.0
        return tuple(
            (found, Rate(found.differing_pairs, found.pairs, share * found.pairs))
            for found in self.counters.margins.report()
        )

    def _details(self, integrity: Integrity, paths: tuple[PathReport, ...]) -> dict[str, str]:
        """For the reasons: the most frequent fault and disagreement, what may mend the coverage."""
        details = {f.code: f.remedy for f in integrity.findings if f.code == "coverage"}
        for signature in self.signatures:
            if signature.has_own_margin:
                continue
            gate = "faults" if signature.is_fault else "disagreement"
            pairs = counted(signature.pairs, "pair")
            details.setdefault(gate, f"Most often {signature.signature} ({pairs}).")
        if "disagreement" in details and (hint := advice(paths)):
            details["disagreement"] += f" {hint}"
        return details

    def _notes(self) -> tuple[str, ...]:
        settings, counts = self.settings, self.counters.classifier.counts
        notes = ["The verdict is about this window's traffic; other days may bring other requests."]
        if (of := len(settings.candidates)) > 1:
            alpha = settings.margins.alpha
            notes.append(
                f"Judged at alpha {alpha:g}, its share of {of * alpha:g} among {of} candidates."
            )
        if counts.warm_up:
            notes.append(f"{counted(counts.warm_up, 'pair')} of the warm-up left out.")
        if settings.mirrored_share < 1:
            notes.append(
                "Coverage is judged against the configured mirrored share of "
                f"{settings.mirrored_share:g}."
            )
        if settings.rules_by_protocol:
            notes.append("Generated answers are compared by the rules of --rules openai.")
        if ignored := self.counters.comparer.ignored():
            notes.append(f"Not compared: {', '.join(ignored)}.")
        if settings.slo_ms is None:
            notes.append("Without --slo-ms no answer is too slow for the verdict.")
        return tuple(notes)


def _remark_of(opinion: Opinion | None) -> tuple[str, ...]:
    """What the judge says, which is a gate only with --judge-margin."""
    if opinion is None:
        return ()
    failed = f"{opinion.failed:,} questions failed ({opinion.failure})" if opinion.failed else ""
    if not opinion.consistent or opinion.net_worse is None:
        return (f"The judge {opinion.model} has no opinion of {opinion.asked:,} pairs. {failed}",)
    changed = opinion.inconsistent
    further = f"its opinion changed with their order in {changed:,}" if changed else ""
    said = (
        f"The judge {opinion.model} calls the shadow's answer better in {opinion.better:,}, worse "
        f"in {opinion.worse:,} and as good in {opinion.ties:,} of "
        f"{counted(opinion.consistent, 'differing pair')} (worse less better "
        f"{percent_range(opinion.net_worse)})"
    )
    return (f"{'; '.join(filter(None, (said, further, failed)))}.",)


def _remarks(noise: Noise, settings: Comparison) -> tuple[str, ...]:
    """What moves the verdict without being a reason for it: the noise floor."""
    floor = settings.margins.noise_floor
    if floor == "auto" and not noise.comparisons:
        unknown = "The noise floor is not known, so nothing is taken off"
        how = "shadow-report replay --itself --to <its transformer>"
        return (f"{unknown}: send the primary its own calls ({how}).",)
    if not noise.disagreements or noise.shadow_share is None:
        return ()
    what = (
        f"The primary disagrees with itself in {percent(noise.share)} of "
        f"{counted(noise.comparisons, 'repeated request')} (noise), and the shadow with it in "
        f"{percent(noise.shadow_share)}"
    )
    if floor == "auto":
        return (f"{what}; disagreement is judged above the noise.",)
    if floor != "off":
        return (f"{what}; disagreement is judged above the {percent(floor)} that are given.",)
    return (f"{what}; --noise-floor auto judges what exceeds the noise.",)
