"""schema.sql upgrades a database of any version before it in place, with its rows."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from test_schema import description

from embedded_postgres import apply_schema, as_role

# As released before pair_id was in inference_responses.
FORMER_SCHEMA = Path(__file__).with_name("former_schema.sql")
# As of each release since: `make release` puts it there. The first is of a commit that it names.
RELEASED = sorted(Path(__file__).parent.glob("schemas/*.sql"))
NOW = datetime.now(UTC)
DAYS = (40, 2, 0)  # ago; of the first no partition is there

REQUEST = (
    "INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,"
    " pair_source, role, inference_service, model_name, protocol, predict_url, request_headers,"
    " request_size, request_sha256) VALUES (%s, %s, gen_random_uuid(), 1, %s, 'x-shadow-pair-id',"
    " %s, 'service', 'model', 'v1', '/', '{}', 0, '')"
)
# As the former version writes it.
RESPONSE = (
    "INSERT INTO inference_responses (record_id, request_time, response_time, status_code,"
    " duration_ms, response_data) VALUES (%s, %s, now(), 200, 1.5, '{\"predictions\": [2]}')"
)
PAIRS = "SELECT pair_id, primary_status, shadow_status FROM inference_pairs ORDER BY 1"
JOINED = (
    "SELECT a.pair_id, count(r.pair_id) FROM inference_responses a"
    " LEFT JOIN inference_requests r USING (record_id, request_time, pair_id) GROUP BY 1 ORDER BY 1"
)


@pytest.fixture(params=[FORMER_SCHEMA, *RELEASED], ids=lambda path: path.stem)
def former_uri(empty_postgres_uri: str, request: pytest.FixtureRequest) -> str:
    """A database of a version before, with rows of three days."""
    with psycopg.connect(empty_postgres_uri, autocommit=True) as connection:
        connection.execute(request.param.read_bytes())
        for days in DAYS:
            insert_pair(connection, f"pair-{days}", NOW - timedelta(days=days))
    return empty_postgres_uri


def insert_pair(connection: Connection, pair_id: str, at: datetime = NOW) -> None:
    """Both sides' rows, as the former version writes them."""
    for role in ("primary", "shadow"):
        record_id = uuid.uuid4()
        connection.execute(REQUEST, (record_id, at, pair_id, role))
        connection.execute(RESPONSE, (record_id, at))


def rows(uri: str, table: str) -> dict[object, dict[str, object]]:
    """All columns of each row but its pair_id, which an upgrade may complete, by its record_id."""
    found = fetch(uri, f"SELECT record_id, to_jsonb(t) - 'pair_id' FROM {table} t")
    return {record_id: row for record_id, row in found if isinstance(row, dict)}


def fetch(uri: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(uri) as connection:
        return connection.execute(query.encode()).fetchall()


def apply_by(clients: int, uri: str) -> None:
    """The schema, by several clients at once."""
    errors: list[BaseException] = []

    def apply() -> None:
        try:
            apply_schema(uri)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=apply) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("clients", [1, 2])
def test_an_upgraded_database_is_like_a_new_one(
    former_uri: str, postgres_uri: str, clients: int
) -> None:
    """Tables, keys, indexes, triggers, views and grants, whoever upgrades, once or twice."""
    apply_by(clients, former_uri)
    # Only the fresh one's days differ: it has none of 40 days ago.
    days = [f"_{NOW - timedelta(days=days):%Y%m%d}" for days in DAYS[:2]]

    def without_old_days(uri: str) -> list[tuple[object, ...]]:
        return [
            row
            for row in description(uri)
            if not any(day in str(name) for day in days for name in row)
        ]

    assert without_old_days(former_uri) == without_old_days(postgres_uri), (
        "manifests/database/schema.sql: its upgrade leaves out what its tables have"
    )
    before = description(former_uri)
    apply_schema(former_uri)
    assert description(former_uri) == before


@pytest.mark.parametrize("table", ["inference_requests", "inference_responses"])
def test_rows_are_as_they_were(former_uri: str, table: str) -> None:
    """In each column that was there."""
    before = rows(former_uri, table)
    apply_schema(former_uri)
    after = rows(former_uri, table)
    assert len(before) == 2 * len(DAYS)
    assert after.keys() == before.keys()
    assert all(row.items() <= after[key].items() for key, row in before.items())


def test_old_rows_keep_their_pairs(former_uri: str) -> None:
    """Every response is joined by its pair_id, in old partitions and in the default one."""
    expected = [(f"pair-{days}", 200, 200) for days in sorted(DAYS)]
    with psycopg.connect(former_uri, autocommit=True) as connection:
        connection.execute("SELECT maintain_partitions()")  # a partition of each past day
        insert_pair(connection, "pair-waiting", NOW - timedelta(days=9))  # and one in the default
    apply_schema(former_uri)
    assert sorted(fetch(former_uri, PAIRS)) == sorted([*expected, ("pair-waiting", 200, 200)])
    assert {count for _, count in fetch(former_uri, JOINED)} == {2}


def test_an_answer_without_its_request_is_kept(former_uri: str) -> None:
    """Its pair_id is its record_id, which no pair has."""
    record_id = uuid.uuid4()
    with psycopg.connect(former_uri, autocommit=True) as connection:
        connection.execute(RESPONSE, (record_id, NOW))
    apply_schema(former_uri)
    assert (str(record_id), 0) in fetch(former_uri, JOINED)


def test_the_former_version_can_still_write(former_uri: str) -> None:
    """Its rows are completed in its own statement, also when it delivers them twice."""
    apply_schema(former_uri)
    record_id, orphan = uuid.uuid4(), uuid.uuid4()
    with psycopg.connect(as_role(former_uri, "transformer"), autocommit=True) as connection:
        connection.execute(REQUEST, (record_id, NOW, "late", "primary"))
        for _ in range(2):
            connection.execute(RESPONSE + " ON CONFLICT DO NOTHING", (record_id, NOW))
        connection.execute(RESPONSE, (orphan, NOW))
    found = fetch(former_uri, JOINED)
    assert ("late", 1) in found
    assert (str(orphan), 0) in found
    assert ("", 0) not in found


class Writer(threading.Thread):
    """Writes pairs as the former version does, retrying what fails, until it is told to stop."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri = uri
        self.stopping = threading.Event()
        self.written = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self.uri) as connection:
                    insert_pair(connection, f"load-{self.written}")
            except psycopg.errors.DeadlockDetected:
                continue
            self.written += 1

    def write(self, pairs: int) -> None:
        """Returns when so many more are written."""
        wanted = self.written + pairs
        while self.written < wanted:
            assert self.is_alive()
            self.stopping.wait(0.01)


@pytest.fixture
def load(former_uri: str) -> Iterator[Writer]:
    writer = Writer(as_role(former_uri, "transformer"))
    writer.start()
    yield writer
    writer.stopping.set()
    writer.join()


def test_upgrade_under_load(former_uri: str, load: Writer) -> None:
    """A writer and readers go on before, during and after two upgrades; every row is there."""
    load.write(20)
    apply_by(2, former_uri)
    load.write(20)
    apply_schema(former_uri)
    load.write(20)
    load.stopping.set()
    load.join()
    pairs = fetch(former_uri, PAIRS)
    assert len(pairs) == load.written + len(DAYS)
    assert {(primary, shadow) for _, primary, shadow in pairs} == {(200, 200)}
    assert {count for _, count in fetch(former_uri, JOINED)} == {2}
