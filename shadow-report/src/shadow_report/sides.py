"""Whom a comparison compares, and from which calls on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from shadow_report.evidence.database import CallGroup, Scope, Tables
from shadow_report.evidence.services import Chosen, choose_service, groups_of
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

    def candidates(self, role: str) -> list[CallGroup]:
        """The groups of every service that could stand on this side."""
        chosen = self.primary if role == "primary" else self.shadow
        names = {chosen.service, *chosen.others}
        return [g for g in self.groups if g.role == role and g.inference_service in names]


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
    began = tables.began(scope) if primary.service and shadow.service else None
    if began is not None:
        scope = replace(scope, since=began)
        # What ran before mirroring began is no part of the evidence.
        if any(group.first_call < began for group in groups):
            groups = tables.calls(scope)
    return Sides(primary, shadow, began, scope, groups)
