"""A hot standby serves the comparison: what is behind on it is in flight, not lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from traffic import Call, pair, pairs, record

from embedded_postgres import Postgres, as_role
from shadow_report import OneLineError
from shadow_report.compare import compare
from shadow_report.maintain import maintain
from shadow_report.settings import Comparison


@pytest.fixture
def standby(own_postgres: Postgres, tmp_path: Path) -> Iterator[Postgres]:
    """A hot standby of `own_postgres`."""
    standby = own_postgres.standby(tmp_path / "standby")
    standby.start()
    yield standby
    standby.stop()


def scalar(server: Postgres, query: str) -> object:
    with psycopg.connect(server.uri, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def wait_until(server: Postgres, condition: str) -> None:
    """Returns when the server says so."""
    deadline = time.monotonic() + 120
    while scalar(server, f"SELECT {condition}") is not True:
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def catch_up(standby: Postgres, primary: Postgres, how_far: str = "replay") -> None:
    """Returns when the standby has all that the primary has committed."""
    lsn = scalar(primary, "SELECT pg_current_wal_lsn()::text")
    wait_until(standby, f"pg_last_wal_{how_far}_lsn() >= '{lsn}'")


def test_a_standby_that_lags_counts_nothing_as_missing(
    own_postgres: Postgres, standby: Postgres
) -> None:
    """Replay stands still between a call's two sides for longer than calls take to settle."""
    record(own_postgres.uri, pairs(50))
    late = [call for i in range(5) for call in pair(100 + i, time=datetime.now(UTC))]
    record(own_postgres.uri, [call for call in late if call.role == "primary"])
    catch_up(standby, own_postgres)
    with psycopg.connect(standby.uri, autocommit=True) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
    wait_until(standby, "pg_get_wal_replay_pause_state() = 'paused'")
    record(own_postgres.uri, [replace(c, sequence=60) for c in late if c.role == "shadow"])
    settings = Comparison(settle=timedelta(seconds=1))
    wait_until(own_postgres, f"now() > '{late[0].time}'::timestamptz + interval '2 s'")

    report = compare(as_role_on(standby, own_postgres), settings)
    assert (report.pairs, report.primary.unpaired, report.window.in_flight) == (50, 0, 5)
    # The primary has the whole truth.
    assert compare(as_role(own_postgres.uri, "report"), settings).pairs == 55


def as_role_on(standby: Postgres, primary: Postgres) -> str:
    """The standby's URI for the role report, which can log in where its primary says so."""
    uri = as_role(primary.uri, "report")
    return uri.replace(str(primary.port), str(standby.port))


def test_a_standby_that_gives_up_the_query_says_what_to_do(
    own_postgres: Postgres, standby: Postgres
) -> None:
    """`maintain` on the primary drops a day that is being compared: one line with the remedy."""
    with psycopg.connect(standby.uri, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        connection.execute("SELECT pg_reload_conf()")
    body = '"' + 10_000 * "x" + '"'
    days_ago = datetime.now(UTC) - timedelta(days=3)
    record(own_postgres.uri, pairs_of(days_ago, 2000, body))
    maintain(own_postgres.uri, None, 7)
    uri = as_role_on(standby, own_postgres)
    catch_up(standby, own_postgres)

    def drop(done: int, of: int) -> None:
        maintain(own_postgres.uri, timedelta(days=1), 7)
        catch_up(standby, own_postgres, "receive")

    with pytest.raises(OneLineError, match="max_standby_streaming_delay") as caught:
        compare(uri, Comparison(), drop)
    assert "conflict with recovery" in str(caught.value)


def pairs_of(time: datetime, count: int, body: str) -> list[Call]:
    """Pairs of one moment with large answers."""
    return [call for i in range(count) for call in pair(i, time=time, answer=body)]
