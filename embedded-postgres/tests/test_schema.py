"""Promises of manifests/database/schema.sql."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from embedded_postgres import apply_schema, as_role, schema
from embedded_postgres.__main__ import main
from embedded_postgres.schema import schema_path

NOW = datetime.now(UTC)


def insert_call(
    connection: Connection,
    *,
    pair_id: str = "a-pair",
    role: str = "primary",
    recorder_id: uuid.UUID | None = None,
    sequence: int = 1,
    at: datetime = NOW,
    sha256: bytes = b"same",
) -> uuid.UUID:
    """One call's two rows, with the least that the tables take."""
    record_id = uuid.uuid4()
    connection.execute(
        "INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,"
        " pair_source, role, inference_service, model_name, protocol, predict_url,"
        " request_headers, request_data, request_size, request_sha256)"
        " VALUES (%s, %s, %s, %s, %s, 'x-shadow-pair-id', %s, 'service-' || %s, 'model', 'v1',"
        " '/v1/models/model:predict', '{}', '{\"values\": [1]}', 15, %s)",
        (record_id, at, recorder_id or uuid.uuid4(), sequence, pair_id, role, role, sha256),
    )
    connection.execute(
        "INSERT INTO inference_responses (record_id, request_time, pair_id, response_time,"
        " status_code, duration_ms, response_data)"
        " VALUES (%s, %s, %s, %s, 200, 1.5, '{\"predictions\": [2]}')",
        (record_id, at, pair_id, at),
    )
    return record_id


def description(uri: str) -> list[tuple[object, ...]]:
    """Every relation, column, constraint, index, trigger, grant and function of the database."""
    with psycopg.connect(uri) as connection:
        return connection.execute(
            "SELECT 'column', table_name, column_name, data_type FROM information_schema.columns"
            "  WHERE table_schema = 'public'"
            " UNION ALL SELECT 'constraint', conrelid::regclass::text, conname,"
            "  pg_get_constraintdef(oid) FROM pg_constraint"
            "  WHERE connamespace = 'public'::regnamespace"
            " UNION ALL SELECT 'relation', relname, relkind::text, relacl::text FROM pg_class"
            "  WHERE relnamespace = 'public'::regnamespace"
            " UNION ALL SELECT 'view', viewname, definition, NULL FROM pg_views"
            "  WHERE schemaname = 'public'"
            " UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes"
            "  WHERE schemaname = 'public'"
            " UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)"
            "  FROM pg_trigger"
            " UNION ALL SELECT 'function', proname, prosrc, proacl::text FROM pg_proc"
            "  WHERE pronamespace = 'public'::regnamespace ORDER BY 1, 2, 3, 4"
        ).fetchall()


def test_a_second_run_changes_nothing(postgres_uri: str) -> None:
    before = description(postgres_uri)
    with psycopg.connect(postgres_uri) as connection:
        insert_call(connection)
    apply_schema(postgres_uri)
    assert description(postgres_uri) == before
    with psycopg.connect(postgres_uri) as connection:
        assert connection.execute("SELECT count(*) FROM inference_pairs").fetchone() == (1,)


def test_a_server_that_is_too_old_is_refused_whole(
    empty_postgres_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that says which version is needed; no table, no role. Here the script asks for a
    version that no server has yet."""
    script = schema_path().read_text()
    assert script.count("160000") == 1
    newer = tmp_path / "schema.sql"
    newer.write_text(script.replace("160000", "990000"))
    monkeypatch.setattr(schema, "schema_path", lambda: newer)
    monkeypatch.setenv("POSTGRES_URI", empty_postgres_uri)
    before = description(empty_postgres_uri)
    assert main() == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("The schema was not applied to POSTGRES_URI: the server is Postgres ")
    assert line.endswith(", and the schema needs 16 or newer; nothing was changed.")
    assert description(empty_postgres_uri) == before


def test_an_owner_who_may_create_no_roles_applies_it_where_they_are(
    empty_postgres_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where somebody else makes the roles; of one that is missing it says what to do."""
    with psycopg.connect(empty_postgres_uri, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute("CREATE ROLE an_owner LOGIN PASSWORD 'secret'")
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO an_owner").format(sql.Identifier(name))
        )
        host, port = connection.info.host, connection.info.port
    monkeypatch.setenv("POSTGRES_URI", f"postgresql://an_owner:secret@{host}:{port}/{name}")
    lacking = tmp_path / "schema.sql"
    lacking.write_text(schema_path().read_text().replace("'maintenance']", "'a_missing_one']"))
    with monkeypatch.context() as changed:
        changed.setattr(schema, "schema_path", lambda: lacking)
        assert main() == 1
    said = capsys.readouterr().out
    assert "permission denied to create the role a_missing_one; create it, or give an_owner" in said
    assert main() == 0
    with psycopg.connect(empty_postgres_uri, autocommit=True) as connection:
        insert_call(connection)
        connection.execute("DROP OWNED BY an_owner CASCADE")
        connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(name))
        )
        connection.execute("DROP ROLE an_owner")


def test_clients_at_once_agree(empty_postgres_uri: str, postgres_uri: str) -> None:
    """Eight clients that apply the schema to an empty database at once all succeed."""
    errors: list[BaseException] = []

    def apply() -> None:
        try:
            apply_schema(empty_postgres_uri)
        except BaseException as error:
            errors.append(error)

    clients = [threading.Thread(target=apply) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert errors == []
    assert description(empty_postgres_uri) == description(postgres_uri)


def test_the_first_call_of_each_side_makes_the_pair(postgres_uri: str) -> None:
    """A repeated pair id leaves one row, of the first primary and the first shadow call."""
    with psycopg.connect(postgres_uri) as connection:
        primary = insert_call(connection)
        insert_call(connection, at=NOW + timedelta(seconds=1))
        shadow = insert_call(connection, role="shadow", at=NOW + timedelta(seconds=2))
        insert_call(connection, role="shadow", at=NOW + timedelta(seconds=3))
        rows = connection.execute(
            "SELECT primary_record_id, shadow_record_id, same_request, primary_service,"
            " shadow_service, primary_status, request_data::text FROM inference_pairs"
        ).fetchall()
    expected = (primary, shadow, True, "service-primary", "service-shadow", 200, '{"values": [1]}')
    assert rows == [expected]


def test_an_unpaired_call_is_a_row_with_one_side(postgres_uri: str) -> None:
    with psycopg.connect(postgres_uri) as connection:
        insert_call(connection, pair_id="only-primary")
        insert_call(connection, pair_id="only-shadow", role="shadow")
        insert_call(connection, pair_id="differs")
        insert_call(connection, pair_id="differs", role="shadow", sha256=b"other")
        rows = connection.execute(
            "SELECT pair_id, primary_record_id IS NULL, shadow_record_id IS NULL, same_request,"
            " paired FROM inference_pairs ORDER BY pair_id"
        ).fetchall()
    assert rows == [
        ("differs", False, False, False, True),
        ("only-primary", False, True, None, False),
        ("only-shadow", True, False, None, False),
    ]


MANY_CALLS = """
INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,
    pair_source, role, inference_service, model_name, protocol, predict_url, request_headers,
    request_size, request_sha256)
SELECT gen_random_uuid(), now() - day * interval '1 day', gen_random_uuid(), n, n || '-' || day,
    'generated', role, 'service', 'model', 'v1', '/', '{}', 0, ''
FROM generate_series(1, 2000) AS n, generate_series(0, 2) AS day,
    unnest('{primary,shadow}'::text[]) AS role;
INSERT INTO inference_responses (record_id, request_time, pair_id, response_time, status_code,
    duration_ms)
SELECT record_id, request_time, pair_id, request_time, 200, 1 FROM inference_requests;
SELECT maintain_partitions();
ANALYZE;
"""


def rows_read(plan: dict[str, Any]) -> float:
    """How many rows an executed plan took from tables and indexes, whether it used them or not."""
    here = 0.0
    if "Relation Name" in plan:
        read = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        here = read * plan["Actual Loops"]
    return here + sum(rows_read(below) for below in plan.get("Plans", ()))


def test_one_pair_is_found_by_an_index(postgres_uri: str) -> None:
    """Of 120,000 rows in three days the view reads the pair's requests and their responses."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(MANY_CALLS.replace("2000", "10000"))
        query = "SELECT * FROM inference_pairs WHERE pair_id = '77-1'"
        assert len(connection.execute(query).fetchall()) == 1
        row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").fetchone()
    assert row is not None
    # Both requests are read for either side.
    assert rows_read(row[0][0]["Plan"]) == 6


def test_holes_are_gaps(postgres_uri: str) -> None:
    """Every hole is one row, also one before the first number; none, no row."""
    whole, holed = uuid.uuid4(), uuid.uuid4()
    with psycopg.connect(postgres_uri) as connection:
        for sequence in (1, 2, 3):
            insert_call(connection, recorder_id=whole, sequence=sequence)
        for sequence in (3, 4, 8, 10):
            insert_call(connection, recorder_id=holed, sequence=sequence)
        gaps = connection.execute(
            "SELECT recorder_id, first_missing, last_missing FROM inference_gaps ORDER BY 2"
        ).fetchall()
    assert gaps == [(holed, 1, 2), (holed, 5, 7), (holed, 9, 9)]


def test_retention_is_not_loss(postgres_uri: str) -> None:
    """Days past `keep` go, in both tables, and the numbers that went with them are not a gap."""
    recorder = uuid.uuid4()
    with psycopg.connect(postgres_uri) as connection:
        for sequence, days in enumerate((40, 40, 31, 2, 0), start=1):
            at = NOW - timedelta(days=days)
            insert_call(connection, recorder_id=recorder, sequence=sequence, at=at)
        connection.execute("SELECT maintain_partitions(keep => NULL)")
        default = connection.execute("SELECT count(*) FROM inference_requests_default").fetchone()
        assert default == (0,), "rows of past days were to move into partitions of their own"
        dropped = connection.execute(
            "SELECT count(*) FROM maintain_partitions(keep => '30 days') WHERE action = 'dropped'"
        ).fetchone()
        assert dropped == (4,)
        for table in ("inference_requests", "inference_responses"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)
        assert connection.execute("SELECT * FROM inference_gaps").fetchall() == []
        again = connection.execute("SELECT * FROM maintain_partitions(keep => '30 days')")
        assert again.fetchall() == []


@pytest.mark.usefixtures("one_day")
def test_partitions_stand_ready(postgres_uri: str) -> None:
    """A new schema has today's partition, so that rows do not pile up in the default one."""
    with psycopg.connect(postgres_uri) as connection:
        insert_call(connection, at=datetime.now(UTC))
        for table in ("inference_requests", "inference_responses"):
            found = connection.execute(f"SELECT count(*) FROM {table}_default").fetchone()
            assert found == (0,)


@contextmanager
def writers(uri: str) -> Iterator[list[uuid.UUID]]:
    """Four of them add calls of today without a pause; the ids of what they added."""
    stopping = threading.Event()
    added: list[uuid.UUID] = []
    errors: list[BaseException] = []

    def write() -> None:
        try:
            while not stopping.is_set():
                with psycopg.connect(uri) as connection:
                    record_id = insert_call(connection)
                added.append(record_id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield added
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        assert errors == []


def test_partitions_are_made_while_calls_arrive(postgres_uri: str) -> None:
    """After days without maintenance all rows wait in the default partitions, and more come."""
    day = f"{NOW:%Y%m%d}"
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        for table in ("inference_requests", "inference_responses"):
            connection.execute(f"DROP TABLE {table}_{day}")
        connection.execute(MANY_CALLS.partition("SELECT maintain")[0])
        with writers(postgres_uri) as added:
            while len(added) < 50:
                time.sleep(0.01)
            made = connection.execute(
                "SELECT moved_rows FROM maintain_partitions() WHERE partition = %s",
                [f"inference_requests_{day}"],
            ).fetchone()
            after = len(added)
            while len(added) < after + 50:
                time.sleep(0.01)
        assert made is not None
        assert made[0] >= 4050
        for table in ("inference_requests", "inference_responses"):
            total = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert total == (12_000 + len(added),)
            left = connection.execute(f"SELECT count(*) FROM {table}_default").fetchone()
            assert left == (0,)


def test_days_are_dropped_and_made_while_calls_arrive(postgres_uri: str) -> None:
    """Dropping locks the table and making the default partition: in an order that ends."""
    day = f"{NOW:%Y%m%d}"
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(MANY_CALLS)
        for table in ("inference_requests", "inference_responses"):
            connection.execute(f"DROP TABLE {table}_{day}")
        with writers(postgres_uri) as added:
            while len(added) < 50:
                time.sleep(0.01)
            done = connection.execute(
                "SELECT action FROM maintain_partitions(keep => '1 day')"
            ).fetchall()
        assert ("dropped",) in done
        assert ("created",) in done
        total = connection.execute("SELECT count(*) FROM inference_requests").fetchone()
        assert total == (4000 + len(added),)


def test_a_keep_below_a_day_is_refused(postgres_uri: str) -> None:
    """A slip such as `30 minutes` must not drop the evidence of today."""
    with (
        psycopg.connect(postgres_uri) as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="at least 1 day"),
    ):
        connection.execute("SELECT maintain_partitions(keep => '30 minutes')")


ATTEMPTS = {
    "select": "SELECT 1 FROM inference_requests",
    "select pairs": "SELECT 1 FROM inference_pairs",
    "select gaps": "SELECT 1 FROM inference_gaps",
    "insert": "INSERT INTO inference_responses (record_id, request_time, response_time,"
    " status_code, duration_ms) VALUES (gen_random_uuid(), now(), now(), 200, 1)",
    "insert twice": "INSERT INTO inference_responses (record_id, request_time, response_time,"
    " status_code, duration_ms) VALUES (gen_random_uuid(), now(), now(), 200, 1)"
    " ON CONFLICT DO NOTHING",
    "update": "UPDATE inference_responses SET status_code = 1",
    "delete": "DELETE FROM inference_requests",
    "truncate": "TRUNCATE inference_requests",
    "create": "CREATE TABLE public.mine (n integer)",
    "drop": "DROP TABLE inference_requests",
    "alter": "ALTER TABLE inference_requests ADD COLUMN n integer",
    "maintain": "SELECT maintain_partitions()",
    "partition": "SELECT 1 FROM inference_requests_default",
    "retention": "SELECT 1 FROM inference_retention",
}
ALLOWED = {
    "transformer": {"insert", "insert twice"},
    "report": {"select", "select pairs", "select gaps", "retention"},
    "maintenance": {"maintain"},
}


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_do_its_work_and_nothing_else(postgres_uri: str, role: str) -> None:
    done = set()
    with psycopg.connect(as_role(postgres_uri, role), autocommit=True) as connection:
        for name, statement in ATTEMPTS.items():
            try:
                connection.execute(statement)
                done.add(name)
            except psycopg.errors.InsufficientPrivilege:
                pass
    assert done == ALLOWED[role]
