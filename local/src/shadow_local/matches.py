"""The match blocks of a VirtualService as Envoy route matches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shadow_local.document import Section


def route_matches(section: Section) -> Iterator[dict[str, Any]]:
    """The Envoy match of one block; its conditions must all hold."""
    with section as match:
        match.has_no_effect_here("name")
        found: dict[str, Any] = _path(match.section("uri"))
        if match.take("ignoreUriCase", False):
            found["case_sensitive"] = False
        headers = []
        for pseudo, name in ((":method", "method"), (":authority", "authority")):
            if match.has(name):
                headers.append(_header(pseudo, match.section(name)))
        headers += _headers(match.section("headers"))
        for header in _headers(match.section("withoutHeaders")):
            header["invert_match"] = True
            if "present_match" not in header:
                # Istio's rule: a header that is not there does not have the value.
                header["treat_missing_header_as_empty"] = True
            headers.append(header)
        if headers:
            found["headers"] = headers
    yield found


def _path(section: Section) -> dict[str, Any]:
    with section as uri:
        if uri.has("exact"):
            return {"path": uri.text("exact")}
        if uri.has("regex"):
            return {"safe_regex": {"regex": uri.text("regex")}}
        return {"prefix": uri.text("prefix", "/")}


def _headers(section: Section) -> list[dict[str, Any]]:
    with section as headers:
        return [_header(name.lower(), headers.section(name)) for name in sorted(section.fields)]


def _header(name: str, section: Section) -> dict[str, Any]:
    with section as wanted:
        for kind, envoy in (("exact", "exact"), ("prefix", "prefix")):
            if wanted.has(kind):
                return {"name": name, "string_match": {envoy: wanted.text(kind)}}
        if wanted.has("regex"):
            regex = wanted.text("regex")
            return {"name": name, "string_match": {"safe_regex": {"regex": regex}}}
        return {"name": name, "present_match": True}
