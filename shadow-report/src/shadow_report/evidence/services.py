"""Whom a comparison compares, from which calls on, and what both recorded of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from shadow_report.evidence.database import CallGroup, Scope, Tables
from shadow_report.settings import Comparison
from shadow_report.wording import NOT_RECORDED

# Further than this the two rows of a call are hardly apart.
APART = timedelta(seconds=1)
# Of a service that is still called, so long a silence is as rare as one in 20,000.
SILENCES = 10


@dataclass(frozen=True, slots=True)
class RoleServices:
    """The service of one role, and the others of that role that were recorded too."""

    service: str | None
    others: tuple[str, ...]


def choose_service(groups: Sequence[CallGroup], role: str, wanted: str | None) -> RoleServices:
    """The wanted service, or the one of this role with most calls; None without any call."""
    calls: Counter[str] = Counter()
    for group in groups:
        if group.role == role:
            calls[group.inference_service] += group.calls
    if wanted is not None:
        return RoleServices(wanted if wanted in calls else None, ())
    ranked = sorted(calls, key=lambda service: (-calls[service], service))
    return RoleServices(ranked[0] if ranked else None, tuple(ranked[1:]))


def groups_of(groups: Sequence[CallGroup], role: str, service: str) -> list[CallGroup]:
    """The groups of one side."""
    return [g for g in groups if g.role == role and g.inference_service == service]


def calls_by(
    groups: Sequence[CallGroup], value: Callable[[CallGroup], str | None]
) -> dict[str, int]:
    """Calls by some property, most frequent first; a missing value counts as `(none)`."""
    calls: Counter[str] = Counter()
    for group in groups:
        calls[value(group) or NOT_RECORDED] += group.calls
    return dict(calls.most_common())


def uniform_since(
    groups: Sequence[CallGroup], primary: str | None, shadow: str | None
) -> datetime | None:
    """The time in UTC from which on each side recorded its newest service, model and version alone;
    `primary` and `shadow` are the only services that count, where they are given.

    None when there were no others, when a side has no calls since then, or as long as the newest
    may be taking turns with others.
    """
    sides = []
    for role, wanted in (("primary", primary), ("shadow", shadow)):
        side = [g for g in groups if g.role == role and wanted in (None, g.inference_service)]
        last = max(side, key=lambda group: group.last_call, default=None)
        if last is None:
            return None
        newest = [group for group in side if _kind(group) == _kind(last)]
        sides.append((newest, [group for group in side if _kind(group) != _kind(last)]))
    ends = [group.last_call for _, others in sides for group in others]
    if not ends:
        return None
    begins = [min(group.first_call for group in newest) for newest, others in sides if others]
    # The other side's rows of the last old call and of the first new one are on the right side too.
    since = max(max(ends) + APART, max(begins) - APART)
    is_over = all(_is_alone(newest, others, since) for newest, others in sides)
    return since.astimezone(UTC) if is_over else None


def _is_alone(newest: Sequence[CallGroup], others: Sequence[CallGroup], since: datetime) -> bool:
    """Whether a side's newest kind has calls since then, and the others are gone for good: for
    longer than they were there together, or for many times as long as they kept silent before.
    """
    last = max(group.last_call for group in newest)
    if last < since or not others:
        return last >= since
    together = since - min(group.first_call for group in newest)
    silence = max(_silence([g for g in others if _kind(g) == kind]) for kind in map(_kind, others))
    return last - since >= min(together, SILENCES * silence)


def _silence(groups: Sequence[CallGroup]) -> timedelta:
    """The mean time from one call of a kind to its next; zero for a single stray one."""
    span = max(g.last_call for g in groups) - min(g.first_call for g in groups)
    return span / max(1, sum(group.calls for group in groups) - 1)


def _kind(group: CallGroup) -> tuple[str, str, str | None]:
    return group.inference_service, group.model_name, group.model_version


def merged(some: Sequence[CallGroup], more: Sequence[CallGroup]) -> list[CallGroup]:
    """The groups of two parts of a window, as those of the whole."""
    found: dict[tuple[object, ...], CallGroup] = {}
    for group in (*some, *more):
        key = (*kind_of(group), group.recorder_id)
        found[key] = _together(found[key], group) if key in found else group
    return sorted(
        found.values(),
        key=lambda g: (g.role, g.inference_service, g.first_call, g.recorder_id),
    )


def kind_of(group: CallGroup) -> tuple[str | None, ...]:
    """All of a group but who recorded it, and how much."""
    return (
        group.role,
        group.inference_service,
        group.model_name,
        group.model_version,
        group.protocol,
        group.pair_source,
    )


def _together(one: CallGroup, other: CallGroup) -> CallGroup:
    return replace(
        one,
        calls=one.calls + other.calls,
        cut_requests=one.cut_requests + other.cut_requests,
        first_call=min(one.first_call, other.first_call),
        last_call=max(one.last_call, other.last_call),
        first_sequence=min(one.first_sequence, other.first_sequence),
        last_sequence=max(one.last_sequence, other.last_sequence),
        delivery_lag_seconds=max(one.delivery_lag_seconds, other.delivery_lag_seconds),
    )


def may_have_gaps(groups: Sequence[CallGroup], *, from_one: bool) -> bool:
    """False when every recorder's numbers are without a hole; cheap to tell.

    from_one: each recorder must also begin with 1.
    """
    for recorder in {group.recorder_id for group in groups}:
        own = [group for group in groups if group.recorder_id == recorder]
        first = min(group.first_sequence for group in own)
        last = max(group.last_sequence for group in own)
        if last - first + 1 != sum(group.calls for group in own) or (from_one and first != 1):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Sides:
    """Who is compared, from which calls on, and what both recorded of themselves."""

    primary: RoleServices
    shadow: RoleServices
    began: datetime | None
    scope: Scope
    groups: list[CallGroup]
    asked: list[CallGroup]
    """The groups of all services in the window that was asked for, from before mirroring began."""
    is_paired: bool = False
    """Whether any pair says when mirroring began."""

    @property
    def before_first_pair(self) -> int:
        """The primary's calls from before the shadow's first pair."""
        asked = groups_of(self.asked, "primary", self.scope.primary)
        counted = self.groups_of("primary")
        return sum(group.calls for group in asked) - sum(group.calls for group in counted)

    @property
    def is_mirrored(self) -> bool:
        """Whether the primary's calls came through an entry that mirrors them; else whatever the
        shadow got was sent later, from the tables.
        """
        groups = self.groups_of("primary")
        return any(group.pair_source == "x-shadow-pair-id" for group in groups)

    @property
    def compared(self) -> list[CallGroup]:
        """Both sides' groups."""
        return [*self.groups_of("primary"), *self.groups_of("shadow")]

    def groups_of(self, role: str) -> list[CallGroup]:
        """This side's groups."""
        service = self.scope.primary if role == "primary" else self.scope.shadow
        return groups_of(self.groups, role, service)


def calls_of_all(tables: Tables, asked: Scope, shadow: str | None) -> tuple[Scope, list[CallGroup]]:
    """The groups of the window, in which a follower's calls are those of the primary's calls.

    So are a mirror's where the window has none of them, of this `shadow` if one is wanted: the
    clocks of the nodes may be further apart than it is long.
    """
    groups = tables.calls(asked)
    sources = {group.pair_source for group in groups if group.role == "primary"}
    is_bounded = asked.since is not None or asked.until is not None
    if not sources or not is_bounded or asked.shadow_since is not None:
        return asked, groups
    by_pair = replace(asked, is_followed=True)
    if "x-shadow-pair-id" not in sources:
        return (by_pair, tables.calls(by_pair)) if asked.until is not None else (asked, groups)
    if not choose_service(groups, "shadow", shadow).service:
        found = tables.calls(by_pair)
        if choose_service(found, "shadow", shadow).service:
            return by_pair, found
    return asked, groups


def mirroring_began(
    tables: Tables, asked: Scope, groups: Sequence[CallGroup]
) -> tuple[datetime, datetime] | None:
    """From when on the primary's calls count, and the shadow's: both services' first pair in the
    window that was asked for, or its start where this shadow was mirrored to before it.

    None without any pair. groups: what was recorded in that window.
    """
    first = tables.first_pair(asked)
    if first is None or asked.since is None:
        return first
    versions = {g.model_version for g in groups_of(groups, "shadow", asked.shadow)}
    if tables.mirrored_before(asked, sorted(versions, key=str)):
        # Only what ran before this shadow's first call ever is not part of the evidence.
        return asked.since, min(asked.since, first[1])
    return first


def find_sides(tables: Tables, settings: Comparison) -> Sides:
    """Choose the services, find when mirroring began, and read who recorded since then."""
    asked = Scope(
        primary="",
        shadow="",
        since=settings.since,
        until=settings.until,
        shadow_since=settings.shadow_since,
    )
    asked, groups = calls_of_all(tables, asked, settings.shadow)
    primary = choose_service(groups, "primary", settings.primary)
    shadow = choose_service(groups, "shadow", settings.shadow)
    scope = replace(
        asked,
        primary=primary.service or settings.primary or "",
        shadow=shadow.service or settings.shadow or "",
    )
    if settings.shadow_since is not None or not (primary.service and shadow.service):
        # Whatever a replay sent counts from the first call on.
        return Sides(primary, shadow, asked.since, scope, groups, groups)
    began, everything = asked.since, groups
    if first := mirroring_began(tables, scope, groups):
        began, shadow_began = first
        scope = replace(scope, since=began, shadow_began=shadow_began)
        reached_back = asked.since is not None and shadow_began < asked.since
        if reached_back or any(group.first_call < began for group in groups):
            groups = tables.calls(scope)
    return Sides(primary, shadow, began, scope, groups, everything, is_paired=first is not None)


def from_rollout(tables: Tables, settings: Comparison) -> Comparison:
    """The same comparison, from where each side's newest service, model and version stood alone."""
    asked = Scope("", "", settings.since, settings.until)
    _, groups = calls_of_all(tables, asked, settings.shadow)
    since = uniform_since(groups, settings.primary, settings.shadow)
    return settings if since is None else replace(settings, since=since)
