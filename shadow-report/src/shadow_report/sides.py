"""Whom a comparison compares, and from which calls on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from shadow_report.evidence.database import CallGroup, Scope, Tables
from shadow_report.evidence.services import Chosen, choose_service, groups_of, uniform_since
from shadow_report.settings import Comparison


@dataclass(frozen=True, slots=True)
class Sides:
    """Who is compared, from which calls on, and what both sides recorded about themselves."""

    primary: Chosen
    shadow: Chosen
    began: datetime | None
    scope: Scope
    groups: list[CallGroup]

    def groups_of(self, role: str) -> list[CallGroup]:
        """This side's groups."""
        service = self.scope.primary if role == "primary" else self.scope.shadow
        return groups_of(self.groups, role, service)


def find_sides(tables: Tables, settings: Comparison) -> Sides:
    """Choose the services, find when mirroring began, and read who recorded since then."""
    asked = Scope(
        primary="",
        shadow="",
        since=settings.since,
        until=settings.until,
        shadow_since=settings.shadow_since,
    )
    groups = tables.calls(asked)
    primary = choose_service(groups, "primary", settings.primary)
    shadow = choose_service(groups, "shadow", settings.shadow)
    scope = replace(
        asked,
        primary=primary.service or settings.primary or "",
        shadow=shadow.service or settings.shadow or "",
    )
    began = None
    if primary.service and shadow.service and (first := tables.first_pair(scope)):
        began, shadow_began = first
        scope = replace(scope, since=began, shadow_began=shadow_began)
        # What ran before mirroring began is no part of the evidence.
        reached_back = asked.since is not None and shadow_began < asked.since
        if reached_back or any(group.first_call < began for group in groups):
            groups = tables.calls(scope)
    return Sides(primary, shadow, began, scope, groups)


def from_rollout(tables: Tables, settings: Comparison) -> Comparison:
    """The same comparison, from where each side's newest service, model and version stood alone."""
    groups = tables.calls(Scope("", "", settings.since, settings.until))
    since = uniform_since(groups, settings.primary, settings.shadow)
    return settings if since is None else replace(settings, since=since)
