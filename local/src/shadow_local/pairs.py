"""The pairs that calls have left in Postgres, as a table and a sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.box import SIMPLE_HEAD
from rich.table import Table

QUERY = """
SELECT pair_id, request_data, primary_status, shadow_status, primary_response, shadow_response
FROM inference_pairs
WHERE pair_id = ANY(%s) AND primary_record_id IS NOT NULL AND shadow_record_id IS NOT NULL
    AND primary_status IS NOT NULL AND shadow_status IS NOT NULL
ORDER BY request_time
"""


@dataclass(frozen=True)
class Pair:
    """Both answers to one call."""

    pair_id: str
    request: Any
    primary_status: int
    shadow_status: int
    primary_answer: Any
    shadow_answer: Any

    @property
    def differs(self) -> bool:
        """Would the caller have got something else from the shadow?"""
        primary = (self.primary_status, self.primary_answer)
        return primary != (self.shadow_status, self.shadow_answer)


def complete_pairs(uri: str, pair_ids: list[str]) -> list[Pair]:
    """The pairs of these calls of which all four rows are there."""
    with psycopg.connect(uri) as connection:
        return [Pair(*row) for row in connection.execute(QUERY, [pair_ids])]


def pairs_table(pairs: list[Pair]) -> Table:
    """One line for each pair; on a terminal those that differ stand out."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("pair", min_width=8)
    for title in ("request", "primary", "shadow"):
        table.add_column(title, no_wrap=True)
    for pair in pairs:
        table.add_row(
            pair.pair_id[:8],
            _short(pair.request),
            _answer(pair.primary_status, pair.primary_answer),
            _answer(pair.shadow_status, pair.shadow_answer),
            style="yellow" if pair.differs else None,
        )
    return table


def summary(pairs: list[Pair], calls: int) -> str:
    """How many calls are paired, and how many pairs disagree."""
    differing = sum(pair.differs for pair in pairs)
    return f"{len(pairs)} of {calls} calls paired; in {differing} of them the answers differ."


def _answer(status: int, body: Any) -> str:
    return _short(body) if status == 200 else f"{status} {_short(body)}"


def _short(body: Any, width: int = 20) -> str:
    """A body in few characters: the list that a prediction's call or answer holds, or its text."""
    if isinstance(body, dict) and len(body) == 1:
        body = next(iter(body.values()))
    if isinstance(body, list):
        body = " ".join(f"{item:.7g}" if isinstance(item, float) else str(item) for item in body)
    text = body if isinstance(body, str) else json.dumps(body)
    return text if len(text) <= width else text[: width - 1] + "…"
