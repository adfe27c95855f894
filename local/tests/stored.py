"""What calls have left in a running stack's Postgres."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row
from waiting import until

from shadow_local.stack import Stack

COMPLETE = """
SELECT count(*) FROM inference_pairs WHERE pair_id = ANY(%s)
AND primary_status IS NOT NULL AND shadow_status IS NOT NULL
"""


def rows(stack: Stack, query: str, pair_ids: list[str]) -> list[dict[str, Any]]:
    """The rows of a query with the pair ids as its only parameter."""
    with psycopg.connect(stack.database.uri, row_factory=dict_row) as connection:
        return connection.execute(query, [pair_ids]).fetchall()


def wait_for_pairs(stack: Stack, pair_ids: list[str]) -> None:
    """Return once each of these calls has both its answers in the tables."""
    expected = len(set(pair_ids))

    def found() -> int:
        return int(rows(stack, COMPLETE, pair_ids)[0]["count"])

    until(lambda: found() == expected, or_say=lambda: f"{found()} of {expected} pairs are stored")
