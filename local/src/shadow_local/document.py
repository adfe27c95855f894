"""A manifest's mappings, read field by field so that nothing in them is passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any

_DURATION = r"(\d+(?:\.\d+)?)(ms|h|m|s)"
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


class Untranslated(Exception):
    """A manifest says something that this runner cannot do; the message names object and field."""


@dataclass
class Section:
    """One mapping of a manifest; leaving its `with` block refuses every field that nobody read."""

    owner: str
    path: str
    fields: Mapping[str, Any]
    _read: set[str] = field(default_factory=set)

    def __enter__(self) -> Section:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            for name in self.fields.keys() - self._read:
                raise self.refusal(name, "the local runner does not translate it")

    def has(self, name: str) -> bool:
        return name in self.fields

    def take(self, name: str, default: Any = None) -> Any:
        """The field's value as it stands, marked as read."""
        self._read.add(name)
        return self.fields.get(name, default)

    def text(self, name: str, default: str | None = None) -> str:
        """A string; a missing one without a default is refused."""
        value = self.take(name, default)
        if not isinstance(value, str):
            raise self.refusal(name, "a text is needed")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.take(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refusal(name, "a whole number is needed")
        return value

    def duration(self, name: str, default: str | None = None) -> str:
        """A length of time as Envoy writes it, in seconds, from Go's notation such as `1m30s`."""
        text = self.text(name, default)
        if not re.fullmatch(rf"({_DURATION})+", text):
            raise self.refusal(name, "a time such as 250ms, 60s or 1m30s is needed")
        parts = re.findall(_DURATION, text)
        return f"{sum(Decimal(number) * _SECONDS[unit] for number, unit in parts):f}s"

    def texts(self, name: str) -> list[str]:
        """A list of strings; empty when the field is missing."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refusal(name, "a list of texts is needed")
        return value

    def table(self, name: str) -> dict[str, str]:
        """A mapping of strings to strings; empty when the field is missing."""
        value = self.take(name, {})
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self.refusal(name, "a mapping of texts is needed")
        return value

    def section(self, name: str) -> Section:
        """The mapping in a field; an empty one when the field is missing."""
        value = self.take(name, {})
        if not isinstance(value, dict):
            raise self.refusal(name, "a mapping is needed")
        return Section(self.owner, self._below(name), value)

    def sections(self, name: str) -> Iterator[Section]:
        """The mappings of a list; none when the field is missing."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.refusal(name, "a list of mappings is needed")
        for position, item in enumerate(value):
            yield Section(self.owner, f"{self._below(name)}[{position}]", item)

    def has_no_effect_here(self, *names: str) -> None:
        """Mark fields as read that mean nothing on one machine."""
        self._read.update(names)

    def refusal(self, name: str, why: str) -> Untranslated:
        """The error that names the object, the field and its value."""
        value = repr(self.fields[name]) if name in self.fields else "missing"
        return Untranslated(f"{self.owner}: {self._below(name)} is {value}; {why}.")

    def _below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def document(manifest: Mapping[str, Any]) -> Section:
    """The top section of a Kubernetes object."""
    name = manifest.get("metadata", {}).get("name", "without a name")
    return Section(f"{manifest.get('kind', 'object')} {name}", "", manifest)
