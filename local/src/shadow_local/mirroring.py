"""How much of the traffic the shadow gets a copy of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shadow_local.routes import virtual_services


def mirror_percentage(manifests: Iterable[dict[str, Any]]) -> float | None:
    """The share of the calls that is copied, above 0 to 100; None when nothing is."""
    for service in virtual_services(manifests, mirror_host_suffix=False):
        for route in service.routes:
            for copy in route.get("route", {}).get("request_mirror_policies", ()):
                share = copy["runtime_fraction"]["default_value"]["numerator"]
                return float(share / 10_000)
    return None
