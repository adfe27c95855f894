"""Rows that Postgres refuses: they are set aside with the reason, and the rest goes through."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deployment import Start
from evidence import gaps, query, records, stored, tell
from serving import (
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    until,
)

POISONS = {
    "check": "ALTER TABLE inference_requests ADD CONSTRAINT no_poison"
    " CHECK (pair_id NOT LIKE 'poison%')",
    "trigger": """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.pair_id LIKE 'poison%' THEN RAISE EXCEPTION 'no_poison'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON inference_requests
            FOR EACH ROW EXECUTE FUNCTION refuse()
    """,
}


@pytest.mark.parametrize("poison", POISONS)
def test_five_of_a_thousand_are_unstorable(
    poison: str, postgres_uri: str, database: str, start: Start, spool: Path
) -> None:
    """995 are stored; five are set aside with the reason, counted and shown as gaps."""
    query(postgres_uri, POISONS[poison])
    server = start(database)
    pairs = [f"poison-{n}" if n % 200 == 100 else f"good-{n}" for n in range(1000)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda pair: server.post(PREDICT, SAMPLE, x_shadow_pair_id=pair), pairs)
        )
    assert {(a.status, a.body) for a in answers} == {(200, SAMPLE_ANSWER)}
    until(lambda: records(server, "written") == 995, "995 rows")
    until(lambda: records(server, "dead_letter") == 5, "five dead letters")
    until(lambda: stored(postgres_uri).responses == 1000, "all responses")
    found = stored(postgres_uri)
    assert found.statuses == {pair: 200 for pair in pairs if pair.startswith("good")}
    letters = [
        json.loads(line)
        for file in (spool / "dead-letter").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert {letter["row"]["pair_id"] for letter in letters} == {
        pair for pair in pairs if pair.startswith("poison")
    }
    assert len(letters) == 5
    assert all("no_poison" in letter["reason"] for letter in letters)
    assert gaps(postgres_uri) == 5
    tell(answered=1000, requests=found.requests, dead_letters=len(letters))
