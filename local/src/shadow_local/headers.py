"""Header changes of a VirtualService as Envoy makes them."""

from __future__ import annotations

from typing import Any

from shadow_local.document import Section


def header_changes(section: Section) -> dict[str, Any]:
    """Envoy's header fields of a route; with `host_rewrite_literal` when Host is set."""
    found: dict[str, Any] = {}
    with section as headers:
        for side in ("request", "response"):
            with headers.section(side) as changes:
                added = []
                for name, value in sorted(changes.table("set").items()):
                    if name.lower() in ("host", ":authority"):
                        found["host_rewrite_literal"] = value
                    else:
                        added.append(_header(name, value, "OVERWRITE_IF_EXISTS_OR_ADD"))
                for name, value in sorted(changes.table("add").items()):
                    added.append(_header(name, value, "APPEND_IF_EXISTS_OR_ADD"))
                if added:
                    found[f"{side}_headers_to_add"] = added
                if removed := changes.texts("remove"):
                    found[f"{side}_headers_to_remove"] = removed
    return found


def _header(name: str, value: str, action: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": action}
