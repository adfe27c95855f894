"""Findings about who was called and what served."""

from __future__ import annotations

from collections.abc import Iterator

from shadow_report.integrity.facts import Facts
from shadow_report.report import Finding
from shadow_report.wording import counted


def absent(facts: Facts) -> Iterator[Finding]:
    """Sides without a single call."""
    if not facts.primary.calls and not facts.shadow.calls:
        left_out = facts.warm_up + facts.in_flight
        yield Finding(
            "no-calls",
            True,
            f"All calls of the window are left out: {facts.warm_up:,} as warm-up, "
            f"{facts.in_flight:,} as incomplete."
            if left_out
            else "There is not one call in the window.",
            "Send traffic, widen the window (--since, --last), and check that the transformers' "
            "POSTGRES_URI is this database.",
        )
    elif not facts.shadow.calls:
        yield Finding(
            "no-shadow-calls",
            True,
            f"The primary recorded {counted(facts.primary.calls, 'call')} and the shadow none.",
            "Is mirroring on? Check the mirror section of the entry VirtualService, that calls go "
            "through it, and that the shadow runs with SHADOW_ROLE=shadow.",
        )
    elif not facts.primary.calls:
        yield Finding(
            "no-primary-calls",
            True,
            f"The shadow recorded {counted(facts.shadow.calls, 'call')} and the primary none.",
            "Does the primary run with SHADOW_ROLE=primary and this database's POSTGRES_URI?",
        )


def services(facts: Facts) -> Iterator[Finding]:
    """More than one service per role."""
    for side, others in (
        (facts.primary, facts.other_primaries),
        (facts.shadow, facts.other_shadows),
    ):
        if others:
            yield Finding(
                "several-services",
                True,
                f"Several services recorded as {side.role}: {', '.join((side.service, *others))}.",
                f"Choose one with --{side.role}, or a window in which only one ran{_since(facts)}.",
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
    return f": --since {facts.uniform_since.isoformat().replace('+00:00', 'Z')}"
