"""How Postgres goes about the one pass over all pairs."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.resources import files

import psycopg
import pytest
from traffic import PRIMARY, SHADOW, START, Compare, pairs, record

from shadow_report.counting.trials import TrialTally
from shadow_report.evidence.database import Scope


@pytest.fixture
def tables(postgres_uri: str) -> str:
    """A database of the test's own: no statistics of others' rows decide on a plan."""
    return postgres_uri


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize("resent", [False, True])
def test_further_calls_are_left_out_by_a_sort(
    compared: Compare, tables: str, analysed: bool, resent: bool
) -> None:
    """However many there are and however little memory, with and without statistics.

    Nothing looks each call up in a list.
    """
    again = [replace(call, time=call.time + timedelta(minutes=5)) for call in pairs(3000)]
    record(tables, pairs(6000) + again)
    if analysed:
        with psycopg.connect(tables, autocommit=True) as connection:
            connection.execute("ANALYZE")
    plan = plan_of_pairs(tables, deduplicate=True, resent=resent)
    assert plan.count("WindowAgg") == 2, plan
    assert "SubPlan" not in plan
    assert "Anti Join" not in plan
    assert compared().pairs == 6000


@pytest.mark.parametrize("until", [None, START + timedelta(hours=1)])
@pytest.mark.parametrize("known", ["nothing", "others", "all"])
def test_each_further_call_finds_its_pair_by_a_merge(
    tables: str, known: str, until: datetime | None
) -> None:
    """Also where statistics promise next to none of either side: nothing goes through all of them
    for each.
    """
    others = [replace(call, service="another", pair_id="another") for call in pairs(100)]
    again = [replace(call, time=call.time + timedelta(minutes=5)) for call in pairs(3000)]
    with psycopg.connect(tables, autocommit=True) as connection:
        if known == "others":
            record(tables, others)
            connection.execute("ANALYZE")
        record(tables, pairs(3000) + again)
        if known == "all":
            connection.execute("ANALYZE")
    plan = plan_of_pairs(tables, deduplicate=True, resent=False, further=True, until=until)
    assert re.search(r"(Merge|Hash) Full Join", plan), plan
    looked_up = re.findall(r"Nested Loop.*?\n(?=\s*->)", plan)
    assert all("Left Join" in join for join in looked_up), plan


def test_without_further_calls_nothing_is_numbered(compared: Compare, tables: str) -> None:
    """The usual case pays for no sort."""
    record(tables, pairs(100))
    plan = plan_of_pairs(tables, deduplicate=False, resent=False)
    assert "WindowAgg" not in plan
    assert plan.count(" on inference_responses_default ") == 2, plan
    assert compared().pairs == 100


def test_a_mistake_while_rows_are_read_ends_the_comparison(
    compared: Compare, tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, with its trace: nobody reads the rest of the rows, which a rollback waited for."""
    record(tables, pairs(20_000))

    def mistaken(*_: object) -> None:
        raise ArithmeticError("of a counter")

    monkeypatch.setattr(TrialTally, "add", mistaken)
    with pytest.raises(ArithmeticError, match="of a counter"):
        compared()


@pytest.mark.parametrize("earliest", [10, None])
def test_the_first_pair_is_looked_up(tables: str, earliest: int | None) -> None:
    """Without statistics, too, each shadow call asks an index for its primary."""
    record(tables, pairs(1000))
    plan = plan_of(tables, "first_pair", earliest=earliest)
    _, _, looked_up = plan.partition("Nested Loop")[2].rpartition("->  Append")
    assert "Index Cond: (pair_id = inference_requests.pair_id)" in looked_up
    assert "Seq Scan" not in looked_up
    assert "Join Filter" not in plan


def plan_of_pairs(
    uri: str,
    *,
    deduplicate: bool,
    resent: bool,
    further: bool = False,
    until: datetime | None = None,
) -> str:
    """How its query would be run."""
    asked = {"deduplicate": deduplicate, "with_requests": False, "resent": resent}
    return plan_of(uri, "pairs", until, further=further, followed=False, **asked)


def plan_of(uri: str, name: str, until: datetime | None = None, **asked: object) -> str:
    """How the query of that name would be run, with little memory."""
    scope = Scope(primary=PRIMARY, shadow=SHADOW, since=None, until=until)
    query = files("shadow_report.evidence").joinpath(f"sql/{name}.sql").read_bytes()
    with (
        psycopg.connect(uri, cursor_factory=psycopg.ClientCursor) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET work_mem = '64kB'")
        explained = cursor.execute(b"EXPLAIN " + query, scope.parameters | asked)
        return "\n".join(row[0] for row in explained)
