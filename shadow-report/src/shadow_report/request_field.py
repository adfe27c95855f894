"""What a request says about itself, to slice or to cluster by."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from shadow_report.answers.paths import Step, parse_path, pick

NO_VALUE = "(none)"
MAX_VALUE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class RequestField:
    """Something that a request says about itself: a JSON path of its body, or `header:NAME`."""

    name: str
    header: str | None
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, text: str) -> RequestField:
        """From the command line; ValueError when it is neither a header nor a path."""
        if text.startswith("header:"):
            if not (header := text.removeprefix("header:").strip().lower()):
                raise ValueError(f"'{text}' names no header; write it like header:x-country.")
            return cls(text, header, ())
        return cls(text, None, parse_path(text))

    def read(self, body: object, headers: object) -> str:
        """The field's value as text, cut when it is long."""
        if self.header is None:
            value = pick(body, self.steps)
        elif isinstance(headers, dict):
            value = next((v for k, v in headers.items() if k.lower() == self.header), None)
        else:
            value = None
        if value is None:
            return NO_VALUE
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        return text[:MAX_VALUE_LENGTH]


def request_parts(body: bytes | None, headers: bytes | None) -> tuple[object, object]:
    """The request's body and headers as values; None where they are not JSON."""
    parts: list[object] = []
    for text in (body, headers):
        try:
            parts.append(orjson.loads(text) if text else None)
        except orjson.JSONDecodeError:
            parts.append(None)
    return parts[0], parts[1]
