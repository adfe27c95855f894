"""What one run observed becomes the judged report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from shadow_report import __version__
from shadow_report.answers.comparer import NOTHING_SEEN
from shadow_report.answers.figures import numbers_by_name, path_reports
from shadow_report.answers.outcome import Outcome
from shadow_report.counting import Counters
from shadow_report.counting.noise import NoiseFloor
from shadow_report.counting.timeline import from_microseconds
from shadow_report.counting.worst import differences
from shadow_report.evidence.batch import WholePair
from shadow_report.evidence.database import Duplicates, LostCalls
from shadow_report.evidence.services import APART, Sides, calls_by, uniform_since
from shadow_report.evidence.watermark import is_mirrored
from shadow_report.judging.gates import judge
from shadow_report.judging.integrity import Facts, findings
from shadow_report.judging.questions import Evidence
from shadow_report.judging.rates import MIRROR_REJECT_ALPHA, Net, Rate, Unmirrored
from shadow_report.judging.verdict import decide
from shadow_report.remarks import details, notes, of_outage, of_preset, of_refused, remarks
from shadow_report.report import (
    SCHEMA_VERSION,
    Integrity,
    NewestCall,
    Noise,
    Opinion,
    PathMargin,
    Refused,
    Report,
    Side,
    Signature,
    Window,
)
from shadow_report.settings import Comparison
from shadow_report.statistics.sequences import share_is_exceeded

Ask = Callable[[Sequence[WholePair]], Opinion]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that one run read and counted, before it is judged."""

    settings: Comparison
    sides: Sides
    counters: Counters
    duplicates: Duplicates
    lost: dict[str, LostCalls]
    signatures: tuple[Signature, ...]
    refused: Refused | None = None
    replayed: NoiseFloor | None = None
    """The noise floor by a replay to the primary itself; without it, repeated requests tell."""
    sampled: tuple[WholePair, ...] = ()
    """Pairs that differ, for a judge's opinion."""
    opinion: Opinion | None = None
    newest: Mapping[str, NewestCall] = field(default_factory=dict)
    """By role without a call in the window, the newest one in the tables."""
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
        noise, generated = self._noise(), counters.generated.report(alpha)
        floor = self._floor()
        seen = counters.seen | (NOTHING_SEEN if floor is None else floor.seen)
        timeline = counters.timeline.report()
        paths = path_reports(counters.comparer.places.all, ledger.differing, alpha)
        decision = decide(
            gates,
            settings.margins,
            problems=[f"{f.what} {f.remedy}" for f in integrity.findings if f.unsound],
            duration=timedelta(hours=window.hours),
            pairs_per_second=window.pairs_per_hour and window.pairs_per_hour / 3600,
            further_per_second=counters.trials.further_per_second(),
            details=details(
                integrity.findings,
                differences(counters.groups, counters.comparer.places.all),
                paths,
                numbers_by_name(counters.comparer.places.all),
                faults=ledger.new_faults,
                disagreements=ledger.disagreements,
                preset=of_preset(primary.protocols, settings),
                outage=of_outage(timeline, unanswered=settings.mirrored_share == 1),
            ),
        )
        return Report(
            schema_version=SCHEMA_VERSION,
            verdict=decision.verdict.value,
            reasons=decision.reasons,
            remarks=(
                *of_refused(self.refused, ledger.pairs, primary.protocols),
                *remarks(noise, self._opinion(), generated, settings),
            ),
            pairs=ledger.pairs,
            compared=ledger.compared,
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
            forgiven=ledger.forgiven,
            paths=paths,
            latency=counters.latency.report(alpha),
            generated=generated,
            noise=noise,
            opinion=self._opinion(),
            refused=self.refused,
            clusters=counters.trials.report(),
            slices=counters.slices.report(alpha),
            signatures=self.signatures,
            timeline=timeline,
            unmatched_rules=counters.unmatched_rules(seen),
            notes=notes(
                settings,
                counters.classifier.counts.warm_up,
                counters.comparer.ignored(seen),
            ),
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
            before_first_pair=self.sides.before_first_pair,
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
            lost_records=self.lost[role].count,
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
        counts = self.counters.classifier.counts
        due = self.counters.trials.rate("coverage")
        copied = due.trials - due.events
        expected = max(copied, due.trials * settings.mirrored_share)
        times = counts.mirrored_only_times
        integrity = Integrity(
            primary_calls=counts.primary.calls,
            paired=ledger.pairs,
            expected_share=settings.mirrored_share,
            coverage=copied / expected if expected else None,
            different_requests=counts.different_requests,
            share_is_exceeded=settings.mirrored_share < 1
            and share_is_exceeded(copied, due.trials, settings.mirrored_share, MIRROR_REJECT_ALPHA),
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
            mirrored_only_times=times
            and (from_microseconds(times[0]), from_microseconds(times[1])),
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
            newest=self.newest,
            whole_since=self._whole_since(),
            generated_at=self.generated_at,
            timeline=self.counters.timeline.report(),
            is_mirrored=is_mirrored(self.sides, settings),
        )
        return replace(integrity, findings=findings(facts))

    def _whole_since(self) -> datetime | None:
        """From which primary call on no record is lost; None where none is, or nobody knows."""
        # What is sent later bears times that say nothing of the primary's calls.
        roles = ("primary", "shadow") if is_mirrored(self.sides, self.settings) else ("primary",)
        ends = [over for role in roles if (over := self.lost[role].over) is not None]
        return (max(ends) + APART).astimezone(UTC) if ends else None

    def _evidence(self) -> Evidence:
        ledger, trials, share = self.counters.ledger, self.counters.trials, self.settings
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
            errors_alike=ledger.errors_alike,
            unknown=self.counters.classifier.counts.cut_pairs,
            slow=trials.net("slow"),
            first_token=trials.net("first_token"),
            first_token_ratio=share.first_token_ratio or 0.0,
            # Where nothing differs nothing is worse, and nobody is asked.
            opinion=self._net_opinion() if self.opinion and self.opinion.asked else None,
            opinion_asked=self.opinion.asked if self.opinion else 0,
            noise=None if (floor := self._floor()) is None else floor.rate,
            scans=trials.scans(),
            slices=self.counters.slices.report(self.settings.margins.alpha)
            if self.settings.slices
            else None,
            why={name: trials.why(name) for name in trials.gates},
            further={name: trials.further(name) for name in trials.gates},
            margins=self._margins(trials.rate("disagreement")),
        )

    def _margins(self, disagreement: Rate) -> tuple[tuple[PathMargin, Rate], ...]:
        """The margins by path; their pairs repeat each other as those of the disagreement do."""
        share = disagreement.n_eff / disagreement.trials if disagreement.trials else 1.0
        return tuple(
            (found, Rate(found.differing_pairs, found.pairs, share * found.pairs))
            for found in self.counters.margins.report()
        )
