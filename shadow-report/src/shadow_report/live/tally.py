"""The tallies of one candidate, kept: each look adds what is new, and goes back where the past
changed.

A look judges the calls before a watermark, and gives what `compare --until` that watermark gives.
The counters can only add. So all that is older than a few seconds before the watermark is the
*base*, to which each look adds once; the newest seconds, in which the two sides of a call may stand
on either side of the watermark, are counted anew on a copy of it. What came late, or was answered
late, is counted from a checkpoint before it; what was changed or deleted, from the start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.paths import Rules
from shadow_report.assemble import Observed
from shadow_report.compare import (
    begin_counters,
    explained,
    extent,
    lost_records,
    newest_calls,
    reads_requests,
    refused,
    with_rules_of_protocol,
)
from shadow_report.counting import Counters
from shadow_report.counting.noise import NoiseFloor, replayed_floor
from shadow_report.counting.timeline import from_microseconds, microseconds
from shadow_report.evidence.batch import NO_ANSWER, NO_CALL, Batch
from shadow_report.evidence.database import (
    CallGroup,
    Delivery,
    Duplicates,
    LostCalls,
    Scope,
    Tables,
)
from shadow_report.evidence.services import (
    Sides,
    calls_of_all,
    choose_service,
    find_sides,
    from_rollout,
    kind_of,
    merged,
    mirroring_began,
    uniform_since,
)
from shadow_report.evidence.watermark import followed_until, is_mirrored
from shadow_report.report import Report
from shadow_report.settings import Comparison

log = logging.getLogger("shadow_report.serve")

# Both sides of a call are recorded within this, but for clocks that differ by more.
TAIL = timedelta(seconds=5)
# A row is seen when its transaction ends, and `created_at` is when that began. Nearly all take no
# time, and a transformer's delivery gives one 45 s: so far back goes each look, and now and then
# one.
OVERLAP, LONG_OVERLAP = timedelta(seconds=5), timedelta(seconds=60)
LONG_LOOK_EVERY = timedelta(seconds=15)
# Rows are delivered after their calls came, but for clocks that differ.
CLOCKS_APART = timedelta(seconds=60)
# So much is read at once, so that memory stays bounded when much is new.
STEP, IDS_AT_ONCE = timedelta(seconds=60), 4096
# Calls without an answer and without their primary may still get one; so many are looked up again.
MOST_WATCHED, WATCHED_AT_ONCE = 10_000, 1000
# What is late by more than the older of two checkpoints is counted from the start.
CHECKPOINT_EVERY, CHECKPOINT_KEPT = timedelta(seconds=60), timedelta(minutes=10)
# Counting from the start takes at most this share of the time.
RECOUNTING_SHARE = 0.1
# Whatever escaped all that: a change that the server does not count, as on a standby.
RECOUNT_EVERY = timedelta(hours=1)

FIRST = -(2**63)
FIRST_TIME = datetime.min.replace(tzinfo=UTC)
# Of few pairs, their calls are numbered whether there are further ones or not.
ANY_DUPLICATES = Duplicates(primary=1, shadow=1, resent=1, joined=True)


@dataclass(slots=True)
class Base:
    """What was counted of the calls before `until`, for good unless it changes."""

    until: datetime
    counters: Counters
    groups: dict[str, list[CallGroup]]
    """By window, as those of `Sides`: `groups`, `asked`, and `history`, from before a rollout."""
    duplicates: Duplicates
    pending: set[str]
    """Pair ids of calls before `until` that are not counted: an answer may be under way."""
    open: dict[str, tuple[datetime, int, int]]
    """By pair id, the time and the statuses of calls that were counted without an answer."""
    alone: dict[str, datetime]
    """By pair id, the time of the shadow's calls that were counted without their primary's."""

    def copy(self, rules: Rules) -> Base:
        """One that counts on its own; the rules are shared, since they never change."""
        return replace(
            self,
            counters=deepcopy(self.counters, {id(rules): rules}),
            pending=set(self.pending),
            open=dict(self.open),
            alone=dict(self.alone),
        )


@dataclass(frozen=True, slots=True)
class WholeTables:
    """What only a look at whole tables says: the lost records where numbers are missing, and the
    noise floor by a replay to the primary itself.
    """

    lost: dict[str, LostCalls]
    replayed: NoiseFloor | None


@dataclass(frozen=True, slots=True)
class Noted:
    """What tells a look what is new in the past.

    seen: by record id, when it was delivered, of what came lately. changes: as `Tables` has them.
    """

    at: datetime
    long_at: datetime
    """When a look last went further back."""
    seen: dict[UUID, datetime]
    changes: dict[str, int]


class Changed(Exception):
    """The tallies are not those of the tables any more, for this reason."""


class AnotherComparison(Changed):
    """The calls are of others than those that were judged."""


class Tally:
    """One candidate's verdict, from what was counted and what is new.

    last: the window begins so long ago, up to a sixteenth more. recounting_share: of the time, at
    most so much goes into counting from the start. on_another: told why the last report is of
    another comparison than the next will be, as soon as a look knows, and from when on that can be
    counted, by time.monotonic.
    """

    def __init__(
        self,
        settings: Comparison,
        last: timedelta | None = None,
        recounting_share: float = RECOUNTING_SHARE,
        on_another: Callable[[str, float], None] = lambda why, after: None,
    ) -> None:
        self._asked_for, self._last, self._share = settings, last, recounting_share
        self._on_another = on_another
        self.looks = dict.fromkeys(("added", "rebuilt", "failed"), 0)
        self._base: Base | None = None
        self._noted = Noted(FIRST_TIME, FIRST_TIME, {}, {})
        self._why = "nothing was counted yet"
        self._recount_after = 0.0
        self._checkpoints: list[Base] = []
        # Of the last count from the start:
        self._settings = settings
        self._window_since: datetime | None = None
        self._sides: Sides
        self._windows: dict[str, Scope]
        self._kinds: frozenset[tuple[str | None, ...]] = frozenset()
        self._counted_at: datetime
        # Of the last look:
        self._until: datetime
        self._followed: datetime | None = None
        """How far a follower has come."""
        self.waiting = 0
        """Calls that no follower has come to, though they are settled."""
        self._whole: WholeTables | None = None
        self._whole_after = 0.0

    def look(self, tables: Tables, before: datetime | None = None) -> Report | None:
        """The report of the calls before the watermark, or `before`, if that is earlier.

        None when the tallies are to be counted from the start and it is too early to do so again.
        """
        # First: what is changed after this look's snapshot must not seem known.
        changes = tables.changes()
        now = tables.now()
        # A look that fails leaves what was: it adds to a copy of the base.
        known = self._base, [*self._checkpoints], self._noted
        try:
            report = self._add(tables, now, before, changes)
            if report is not None:
                self.looks["added"] += 1
                return report
            if time.monotonic() < self._recount_after:
                return None
            log.info("Counting from the start: %s.", self._why)
            report = self._recount(tables, now, before, changes)
            self.looks["rebuilt"] += 1
            return report
        except Changed as change:
            # Rows from a clock that is more than a minute fast may say so even then.
            self._forget(change)
            return None
        except BaseException:
            self._base, self._checkpoints, self._noted = known
            self.looks["failed"] += 1
            raise

    def _add(
        self, tables: Tables, now: datetime, before: datetime | None, changes: dict[str, int]
    ) -> Report | None:
        """The report from what is new; None when all is to be counted again."""
        if self._base is None:
            return None
        try:
            self._refuse_what_is_gone(now, changes)
            until = self._watermark(tables, now, before)
            late = self._changed_since(tables, self._base, now, until)
            rules = self._settings.rules
            base = self._base.copy(rules) if late is None else self._before(late)
            self._advance(tables, base, until)
            self._base = base
            return self._judge(tables, base, now, until)
        except Changed as change:
            self._forget(change)
            return None

    def _forget(self, change: Changed) -> None:
        self._base, self._checkpoints, self._why = None, [], str(change)
        until_then = "the verdict stays until then"
        if isinstance(change, AnotherComparison):
            self._on_another(self._why, self._recount_after)
            until_then = "WAIT until then"
        if (left := self._recount_after - time.monotonic()) > 1:
            log.info("To be counted from the start in %.0f s; %s: %s.", left, until_then, self._why)

    # -- counting from the start -------------------------------------------------------------------

    def _recount(
        self, tables: Tables, now: datetime, before: datetime | None, changes: dict[str, int]
    ) -> Report:
        """The report from all that is in the tables."""
        began = time.monotonic()
        self._whole = None
        base = self._base = self._begin(tables, now, before)
        since = now - LONG_OVERLAP - LONG_LOOK_EVERY
        rows = tables.deliveries(self._asked_for.shadow, since, base.until)
        self._noted = Noted(now, now, {row.record_id: row.created_at for row in rows}, changes)
        self._counted_at = now
        report = self._judge(tables, base, now, self._until)
        ended = time.monotonic()
        self._recount_after = ended + (ended - began) * (1 / self._share - 1)
        return report

    def _begin(self, tables: Tables, now: datetime, before: datetime | None) -> Base:
        """Everything before the watermark's last seconds, in one pass as `compare` does it."""
        until, settings, sides = self._window(tables, now, before)
        settings = with_rules_of_protocol(settings, sides.compared)
        self._until, self._settings, self._sides, scope = until, settings, sides, sides.scope
        # What came before the first pair is not part of the base, nor of what is added to it.
        settled = max(until - TAIL, sides.began or until - TAIL)
        duplicates = tables.duplicates(scope)
        counters = begin_counters(settings, sides, self._settled(until))
        if duplicates.joined:
            counters.take_in_further(tables.further_shadow_calls(scope, duplicates))
        history = Scope("", "", self._window_since, until)
        windows = {
            "groups": replace(scope, primary="", shadow=""),
            "asked": Scope("", "", settings.since, until, is_followed=scope.is_followed),
            "history": calls_of_all(tables, history, settings.shadow)[0],
        }
        self._windows = {
            name: replace(window, whole_since=window.since or FIRST_TIME)
            if window.is_followed
            else window
            for name, window in windows.items()
        }
        self._kinds = _kinds(self._groups(tables, until=until))
        base = Base(
            until=settled,
            counters=counters,
            groups=self._groups(tables, until=settled),
            duplicates=tables.duplicates(replace(scope, until=settled)),
            pending=set(),
            open={},
            alone={},
        )
        batches = tables.pairs(
            scope,
            duplicates,
            with_requests=reads_requests(settings),
            followed=not is_mirrored(sides, settings),
        )
        part = FIRST, microseconds(settled)
        base.pending = self._count_for_good(base, batches, part, until)
        return base

    def _window(
        self, tables: Tables, now: datetime, before: datetime | None
    ) -> tuple[datetime, Comparison, Sides]:
        """The watermark, the comparison of what came before it, and whom that compares."""
        asked = self._asked_for
        since = asked.since if self._last is None else now - self._last
        self._window_since = since
        until = now - asked.settle if before is None else min(now - asked.settle, before)
        while True:
            if since is not None:
                until = max(until, since + timedelta(microseconds=1))
            settings = replace(asked, since=since, until=until)
            if asked.since_rollout:
                settings = from_rollout(tables, settings)
            sides = find_sides(tables, settings)
            self._followed = followed_until(tables, sides, settings)
            settled = self._settled(now - settings.settle)
            if settled >= until or (since is not None and settled <= since):
                return until, settings, sides
            until = settled

    # -- adding what is new ------------------------------------------------------------------------

    def _watermark(self, tables: Tables, now: datetime, before: datetime | None) -> datetime:
        """Up to when calls are judged."""
        settings, sides, lately = self._settings, self._sides, now - CHECKPOINT_KEPT
        self._followed = followed_until(tables, sides, settings, lately) or self._followed
        until = self._settled(now - settings.settle)
        return until if before is None else min(until, before)

    def _settled(self, until: datetime) -> datetime:
        """The end of what is settled up to `until`: further on, a follower has calls to send."""
        return until if self._followed is None else min(until, self._followed)

    def _advance(self, tables: Tables, base: Base, until: datetime) -> None:
        """Count for good all but the newest seconds before `until`."""
        settled = max(base.until, until - TAIL)
        while base.until < settled:
            part = self._part(base, min(settled, base.until + STEP))
            self._add_groups(tables, base, part)
            batches = self._pairs_of(tables, base, part, until)
            ends = microseconds(base.until), microseconds(_end(part))
            base.pending = self._count_for_good(base, batches, ends, until)
            base.until = _end(part)
            if (
                not self._checkpoints
                or base.until - self._checkpoints[-1].until >= CHECKPOINT_EVERY
            ):
                self._keep_checkpoint(base)

    def _judge(self, tables: Tables, base: Base, now: datetime, until: datetime) -> Report:
        """The report of the base and of the newest seconds."""
        self._until, live = until, base.copy(self._settings.rules)
        if live.until < until:
            part = self._part(live, until)
            self._add_groups(tables, live, part)
        self._refuse_another_comparison(live)
        if live.until < until:
            ends = microseconds(live.until), microseconds(until)
            batches = self._pairs_of(tables, live, part, until)
            live.counters.take_in(
                (batch.only(_of_part(live, batch, ends)) for batch in batches), lambda done: None
            )
        settings, sides = replace(self._settings, until=until), self._sides_of(live, until)
        self.waiting = self._waiting(tables, sides, until, now - settings.settle)
        whole = self._of_whole_tables(tables, sides, settings)
        return Observed(
            settings=settings,
            sides=sides,
            counters=live.counters,
            duplicates=live.duplicates,
            lost=whole.lost,
            replayed=whole.replayed,
            signatures=explained(tables, sides.scope, live.counters, settings),
            refused=refused(tables, sides.scope, live.counters),
            newest=newest_calls(tables, sides),
            generated_at=now.astimezone(UTC),
        ).report()

    def _waiting(self, tables: Tables, sides: Sides, until: datetime, settled: datetime) -> int:
        if sides.scope.is_followed and not sides.groups_of("shadow"):
            # All were judged: for a shadow that has none of them yet, no watermark waits.
            return sum(group.calls for group in sides.groups_of("primary"))
        since = max(self._settled(until), sides.scope.since or FIRST_TIME)
        beyond = replace(sides.scope, since=since, until=settled)
        return tables.waiting(beyond) if since < settled else 0

    def _part(self, base: Base, until: datetime) -> Scope:
        return Scope("", "", base.until, until, delivered_since=base.until - CLOCKS_APART)

    def _groups(self, tables: Tables, **asked: Any) -> dict[str, list[CallGroup]]:
        """By window, the groups of what is asked for of it."""
        scopes = {name: replace(window, **asked) for name, window in self._windows.items()}
        # The parts of two windows are mostly the same, and each question costs.
        found = {scope: tables.calls(scope) for scope in {*scopes.values()}}
        return {name: found[scope] for name, scope in scopes.items()}

    def _add_groups(self, tables: Tables, base: Base, part: Scope) -> None:
        asked = {"since": part.since, "until": part.until, "shadow_began": None}
        further = self._groups(tables, **asked, delivered_since=part.delivered_since)
        base.groups = {name: merged(some, further[name]) for name, some in base.groups.items()}

    def _pairs_of(
        self, tables: Tables, base: Base, part: Scope, until: datetime
    ) -> Iterator[Batch]:
        """All pairs with a call in this part of the window, and those that are pending.

        The counters are made ready for them.
        """
        scope, counters = replace(self._sides.scope, until=until), base.counters
        _, last, calls = extent(self._sides_of(base, until), self._settings, until)
        counters.extend(last, calls)
        clock = counters.classifier.clock
        settled_before = microseconds(self._settled(until))
        counters.classifier.clock = replace(clock, settled_before=settled_before)
        arrivals = tables.arrivals(scope, part)
        # A follower's further calls come when they come, of whichever part their primary's is.
        is_followed = scope.is_followed
        if further := {a.pair_id for a in arrivals if a.is_further or is_followed}:
            base.duplicates += self._further(tables, part, until, further)
        ids = {*(arrival.pair_id for arrival in arrivals), *base.pending}
        for some in _portions(sorted(ids)):
            portion = replace(scope, pair_ids=some)
            counters.take_in_further(tables.further_shadow_calls(portion, ANY_DUPLICATES))
            for batch in tables.pairs(
                portion,
                ANY_DUPLICATES,
                with_requests=reads_requests(self._settings),
                followed=not is_mirrored(self._sides, self._settings),
            ):
                self._refuse_first_pair(batch)
                yield batch

    def _further(self, tables: Tables, part: Scope, until: datetime, ids: set[str]) -> Duplicates:
        """How many further calls with these pair ids this part of the window adds."""
        now, before = (
            tables.duplicates(replace(self._sides.scope, until=end, pair_ids=sorted(ids)))
            for end in (min(until, _end(part)), part.since)
        )
        return now - before

    def _count_for_good(
        self, base: Base, batches: Iterable[Batch], part: tuple[int, int], until: datetime
    ) -> set[str]:
        """Count the pairs of this part that are what they will be, and the pending ones that became
        so. Returns the ids of the others.
        """
        pending: set[str] = set()
        counts_settled = self._settings.mirrored_share < 1

        def final() -> Iterator[Batch]:
            settled_before = microseconds(self._settled(until))
            for batch in batches:
                chosen, complete = _of_part(base, batch, part), _is_complete(batch)
                newest = np.maximum(batch.integers("primary_time"), batch.integers("shadow_time"))
                # Where a share is mirrored, the coverage counts settled pairs only.
                unsure = np.ones_like(complete) if counts_settled else ~complete
                waits = chosen & unsure & (newest >= settled_before)
                pending.update(batch.pair_id(row) for row in np.flatnonzero(waits).tolist())
                for row in np.flatnonzero(chosen & ~waits & ~complete).tolist():
                    _watch(base, batch, row)
                yield batch.only(chosen & ~waits)

        base.counters.take_in(final(), lambda done: None)
        return pending

    def _sides_of(self, base: Base, until: datetime) -> Sides:
        settings, asked = self._settings, base.groups["asked"]
        return replace(
            self._sides,
            primary=choose_service(asked, "primary", settings.primary),
            shadow=choose_service(asked, "shadow", settings.shadow),
            scope=replace(self._sides.scope, until=until),
            groups=base.groups["groups"],
            asked=asked,
        )

    def _of_whole_tables(self, tables: Tables, sides: Sides, settings: Comparison) -> WholeTables:
        """As the tables say, asked for no more often than counting from the start."""
        if self._whole is None or time.monotonic() >= self._whole_after:
            began = time.monotonic()
            roles = ("primary", "shadow")
            self._whole = WholeTables(
                lost={role: lost_records(tables, sides, role, settings) for role in roles},
                replayed=replayed_floor(tables.with_itself(sides.scope), settings.rules),
            )
            ended = time.monotonic()
            self._whole_after = ended + (ended - began) * (1 / self._share - 1)
        return self._whole

    # -- what changed in the past ------------------------------------------------------------------

    def _refuse_what_is_gone(self, now: datetime, changes: dict[str, int]) -> None:
        if now - self._counted_at > RECOUNT_EVERY:
            raise Changed("the last time was an hour ago")
        since = self._window_since
        if self._last is not None and since is not None and now - since > self._last * (17 / 16):
            raise Changed("the window moved on")
        noted = self._noted.changes
        if noted.keys() - changes.keys():
            raise Changed("a day was dropped")
        if any(changes[partition] != count for partition, count in noted.items()):
            raise Changed("rows were changed or deleted")
        for name, role, *_, source in self._kinds:
            is_mirrored = (role, source) == ("primary", "x-shadow-pair-id")
            if is_mirrored and self._windows[str(name)].is_followed:
                raise Changed("the window had no shadow call by its own clock")
        self._noted = replace(self._noted, changes=changes)

    def _refuse_another_comparison(self, live: Base) -> None:
        """A new service, version, protocol or source of ids may be another comparison."""
        if new := _kinds(live.groups) - self._kinds:
            _, role, service, _, version, *_ = min(new, key=str)
            named = f"{service}, version {version}," if version else service
            raise AnotherComparison(f"the {role} {named} has calls of a new kind")
        settings, scope = self._settings, self._sides.scope
        for role, wanted, chosen in (
            ("primary", settings.primary, scope.primary),
            ("shadow", settings.shadow, scope.shadow),
        ):
            found = choose_service(live.groups["asked"], role, wanted).service
            if (found or wanted or "") != chosen:
                raise AnotherComparison(f"another service has most calls as {role}")
        if settings.since_rollout:
            since = uniform_since(live.groups["history"], settings.primary, settings.shadow)
            if (since or self._window_since) != settings.since:
                raise AnotherComparison("a rollout goes on")
        first, *_ = extent(self._sides_of(live, self._until), settings, self._until)
        counted_from = live.counters.classifier.clock.counted_from
        if live.groups["groups"] and microseconds(first) != counted_from:
            raise Changed("an earlier call is there")

    def _refuse_first_pair(self, batch: Batch) -> None:
        """The first pair ever says when mirroring began, and so what counts."""
        if self._sides.is_paired:
            return
        paired = batch.integers("primary_status") != NO_CALL
        if (paired & (batch.integers("shadow_status") != NO_CALL)).any():
            raise Changed("the first pair is there")

    def _refuse_earlier_pair(self, tables: Tables, base: Base, pair_ids: Sequence[str]) -> None:
        """A shadow call that is late may make an earlier pair the first, and so more calls count.

        Its own stamp does not tell: what matters is when its primary's call came.
        """
        sides, since = self._sides, self._settings.since
        if not sides.is_paired or sides.began is None or sides.began == since:
            return
        before = replace(sides.scope, since=None, until=sides.began + timedelta(microseconds=1))
        if not any(tables.first_calls(before, some) for some in _portions(pair_ids)):
            return
        asked = replace(sides.scope, since=since, shadow_began=None)
        first = mirroring_began(tables, asked, base.groups["asked"])
        if first != (sides.began, sides.scope.shadow_began):
            raise Changed("an earlier pair is there")

    def _changed_since(
        self, tables: Tables, base: Base, now: datetime, until: datetime
    ) -> datetime | None:
        """The time of the earliest call that was counted and is not as it was; None without any."""
        noted = self._noted
        is_long = now - noted.long_at > LONG_LOOK_EVERY
        since = noted.at - (LONG_OVERLAP if is_long else OVERLAP)
        settled = max(base.until, until - TAIL)
        rows = tables.deliveries(self._asked_for.shadow, since, settled)
        is_known = self._sides.shadow.service is not None or self._sides.scope.is_followed
        if not is_known and any(row.role == "shadow" for row in rows):
            # By its own clock it has none in the window; by the primary's it may have.
            raise Changed("the shadow may have the first of its calls")
        unseen = [row for row in rows if row.record_id not in noted.seen]
        late = self._late(tables, base, unseen) + self._answered_late(tables, base)
        if until < base.until:
            # A primary's call was delivered late, and its follower has yet to send it.
            late.append(until)
        seen = noted.seen | {row.record_id: row.created_at for row in unseen}
        if is_long:
            kept = now - LONG_OVERLAP - LONG_LOOK_EVERY - OVERLAP
            seen = {record: at for record, at in seen.items() if at >= kept}
        long_at = now if is_long else noted.long_at
        self._noted = replace(noted, at=now, long_at=long_at, seen=seen)
        return min(late, default=None)

    def _late(self, tables: Tables, base: Base, unseen: Sequence[Delivery]) -> list[datetime]:
        """The times of those that belong to what was counted: their own, or that of the primary's
        call, whichever primary's.
        """
        ids = [row.pair_id for row in unseen if row.role == "shadow"]
        self._refuse_earlier_pair(tables, base, ids)
        firsts = self._first_calls(tables, self._windows["history"], ids)
        is_followed = any(window.is_followed for window in self._windows.values())
        # A pending pair is not counted, but where the shadow's calls are of its time, they are.
        times = (at for pair, at in firsts.items() if is_followed or pair not in base.pending)
        return [at for at in (*(row.request_time for row in unseen), *times) if at < base.until]

    def _answered_late(self, tables: Tables, base: Base) -> list[datetime]:
        """The times of calls that were counted as unanswered, or as alone, and are not any more."""
        late = []
        if watched := _next_of(base.open):
            scope = replace(self._sides.scope, until=None, pair_ids=watched)
            for batch in tables.pairs(scope, ANY_DUPLICATES, with_requests=False, followed=False):
                for row in range(len(batch)):
                    at, *statuses = base.open[batch.pair_id(row)]
                    if statuses != _statuses(batch, row):
                        late.append(at)
        if alone := _next_of(base.alone):
            found = self._first_calls(tables, self._sides.scope, alone)
            late += [min(at, base.alone[pair_id]) for pair_id, at in found.items()]
        return late

    def _first_calls(
        self, tables: Tables, scope: Scope, pair_ids: Sequence[str]
    ) -> dict[str, datetime]:
        scope, found = replace(scope, until=None), {}
        for some in _portions(pair_ids):
            found.update(tables.first_calls(scope, some))
        return found

    def _before(self, late: datetime) -> Base:
        """The newest checkpoint that has counted nothing of what changed."""
        self._checkpoints = [base for base in self._checkpoints if base.until <= late]
        if not self._checkpoints:
            raise Changed(f"calls of {late:%H:%M:%S} UTC came or were answered late")
        return self._checkpoints[-1].copy(self._settings.rules)

    def _keep_checkpoint(self, base: Base) -> None:
        """Two at most: one of a minute ago or two, and one of up to ten."""
        if len(self._checkpoints) == 2:
            is_old = base.until - self._checkpoints[0].until > CHECKPOINT_KEPT
            del self._checkpoints[0 if is_old else 1]
        self._checkpoints.append(base.copy(self._settings.rules))


def _kinds(groups: dict[str, list[CallGroup]]) -> frozenset[tuple[str | None, ...]]:
    """By window: a former version's may be new since a rollout."""
    return frozenset((name, *kind_of(group)) for name, some in groups.items() for group in some)


def _end(part: Scope) -> datetime:
    assert part.until is not None  # noqa: S101 - a part has both ends; for the type checker
    return part.until


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def _is_complete(batch: Batch) -> NDArray[np.bool_]:
    """Which pairs have both calls, with their answers."""
    primary, shadow = batch.integers("primary_status"), batch.integers("shadow_status")
    return np.asarray((primary > NO_ANSWER) & (shadow > NO_ANSWER))


def _of_part(base: Base, batch: Batch, part: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pairs are of this part of the window, by their primary's call, or are pending."""
    first, last = part
    has_primary = batch.integers("primary_status") != NO_CALL
    times = np.where(has_primary, batch.integers("primary_time"), batch.integers("shadow_time"))
    chosen = np.asarray((times >= first) & (times < last))
    if base.pending:
        for row in np.flatnonzero(times < first).tolist():
            chosen[row] = batch.pair_id(row) in base.pending
    return chosen


def _watch(base: Base, batch: Batch, row: int) -> None:
    """Note a call that may still get its answer, or a shadow's that may get its primary's."""
    primary, shadow = _statuses(batch, row)
    pair_id = batch.pair_id(row)
    if primary == NO_CALL:
        base.alone[pair_id] = from_microseconds(int(batch.scalars["shadow_time"][row]))
    if NO_ANSWER in (primary, shadow):
        time_of = "shadow_time" if primary == NO_CALL else "primary_time"
        at = from_microseconds(int(batch.scalars[time_of][row]))
        base.open[pair_id] = (at, primary, shadow)
    for watched in (base.open, base.alone):
        if len(watched) > MOST_WATCHED:
            del watched[next(iter(watched))]


def _statuses(batch: Batch, row: int) -> list[int]:
    return [int(batch.scalars[f"{role}_status"][row]) for role in ("primary", "shadow")]


def _next_of(watched: dict[str, Any]) -> list[str]:
    """The next of those that are watched, each in its turn."""
    chosen = list(islice(watched, WATCHED_AT_ONCE))
    for pair_id in chosen:
        watched[pair_id] = watched.pop(pair_id)
    return chosen
