"""Postgres away, hung or refusing: every record waits on the spool and is written when it heals."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psycopg
import pytest
from delivering import (
    Delivery,
    deliver_from,
    figures,
    record,
    request,
    respond,
    rows,
    settings,
    stored,
)
from serving import until

from embedded_postgres import Postgres, apply_schema, as_role
from minimal_transformer.delivery import database
from minimal_transformer.delivery.writer import Writer
from minimal_transformer.metrics import Counters
from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.settings import RecordSettings

CALLS = 300


def recorded(chosen: RecordSettings) -> PredictionDBHandler:
    """A recorder that has CALLS answered calls on its spool."""
    handler = PredictionDBHandler(chosen)
    handler.open()
    assert record(handler, CALLS) == CALLS
    return handler


def test_everything_is_written(tmp_path: Path, postgres_uri: str) -> None:
    """All calls, both rows, no hole, nothing left on the spool; the log says where to."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")
        handler.close()
        assert delivery.drain(90) == 0
    assert not list((tmp_path / "spool").glob("*.seg"))
    with psycopg.connect(postgres_uri) as connection:
        where = f"{connection.info.dbname} of {connection.info.host}:{connection.info.port}"
    to = f"Records go to the database {where}, schema public, as transformer."
    assert delivery.log.count(to) == 1


def test_rows_in_another_schema_are_told(tmp_path: Path, postgres_uri: str) -> None:
    """The role's search_path sends them there; no reader of the usual tables sees one."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA elsewhere")
        for table in ("inference_requests", "inference_responses"):
            connection.execute(f"CREATE TABLE elsewhere.{table} (LIKE {table} INCLUDING ALL)")
        connection.execute("GRANT USAGE ON SCHEMA elsewhere TO transformer")
        connection.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA elsewhere TO transformer")
        database = connection.info.dbname
        connection.execute(
            f"ALTER ROLE transformer IN DATABASE {database} SET search_path = elsewhere, public"
        )
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(
            lambda: (
                rows(postgres_uri, "SELECT count(*) FROM elsewhere.inference_responses")
                == [(CALLS,)]
            ),
            "all rows",
        )
    assert ", schema elsewhere, as transformer." in delivery.log
    assert stored(postgres_uri) == (0, 0, 0)


@pytest.mark.parametrize(("share", "is_told"), [(0.5, True), (1.0, False)])
def test_a_share_that_is_recorded_is_told(tmp_path: Path, share: float, is_told: bool) -> None:
    """Of two sides with different ones the report finds calls without a pair."""
    (tmp_path / "spool").mkdir(mode=0o700)
    with Delivery(settings(tmp_path, record_sample=share), tmp_path / "log") as delivery:
        assert delivery.drain(1) == 0
        assert ("RECORD_SAMPLE is 0.5: " in delivery.log) is is_told


def test_postgres_absent_at_start_is_told_once_and_caught_up(tmp_path: Path) -> None:
    """It starts without a server, says so once, and writes all when the server comes."""
    server = Postgres(tmp_path / "data")
    server.start()
    apply_schema(server.uri)
    uri = as_role(server.uri, "transformer")
    server.stop()
    chosen = settings(tmp_path, uri)
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "does not take the records" in delivery.log, "the complaint")
        time.sleep(2)
        server.start()
        try:
            until(lambda: stored(server.uri) == (CALLS, CALLS, 0), "all rows")
            until(lambda: f"{CALLS} calls caught up" in delivery.log, "the good news")
        finally:
            server.stop()
    assert delivery.log.count("Connection refused") == 1


def test_killed_and_stopped_servers_lose_nothing(tmp_path: Path, own_postgres: Postgres) -> None:
    """kill -9 of Postgres under load, a restart, a clean stop and start: each row is there once."""
    chosen = settings(tmp_path, as_role(own_postgres.uri, "transformer"))
    handler = recorded(chosen)
    with Delivery(chosen, tmp_path / "log"):
        for fault in (own_postgres.kill, own_postgres.stop, own_postgres.kill):
            until(lambda: stored(own_postgres.uri)[0] > 0, "the first rows")
            fault()
            record(handler, CALLS)
            own_postgres.start()
        until(lambda: stored(own_postgres.uri) == (4 * CALLS, 4 * CALLS, 0), "all rows")


def test_tables_created_late(tmp_path: Path, empty_postgres_uri: str) -> None:
    """Without tables the log names the file to apply; once they exist everything is written."""
    chosen = settings(tmp_path, empty_postgres_uri)
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "manifests/database/schema.sql" in delivery.log, "the remedy")
        assert "run `make schema`" in delivery.log
        assert "or POSTGRES_URI names another database" in delivery.log
        apply_schema(empty_postgres_uri)
        until(lambda: stored(empty_postgres_uri) == (CALLS, CALLS, 0), "all rows")
    assert delivery.log.count("schema.sql") == 1


def test_right_to_insert_granted_later(tmp_path: Path, postgres_uri: str) -> None:
    """A role without INSERT is an outage, not a poison: nothing is set aside."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(
            "REVOKE INSERT ON inference_requests, inference_responses FROM transformer"
        )
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "permission denied" in delivery.log, "the complaint")
        assert "the role 'transformer' lacks INSERT on inference_requests and" in delivery.log
        with psycopg.connect(postgres_uri, autocommit=True) as connection:
            connection.execute(
                "GRANT INSERT ON inference_requests, inference_responses TO transformer"
            )
        until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")
    assert not (tmp_path / "spool" / "dead-letter").exists()


def test_read_only_server(tmp_path: Path, postgres_uri: str) -> None:
    """A read-only database, as in a failover, is waited out; a new setting counts at once."""
    uri = as_role(postgres_uri, "transformer")
    name = rows(postgres_uri, "SELECT current_database()")[0][0]
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(
            f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode()
        )
        chosen = settings(tmp_path, uri)
        recorded(chosen)
        with Delivery(chosen, tmp_path / "log") as delivery:
            until(lambda: "read-only" in delivery.log, "the complaint")
            connection.execute(f'ALTER DATABASE "{name}" RESET ALL'.encode())
            until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")


def test_secret_mounted_later(tmp_path: Path, own_postgres: Postgres) -> None:
    """A pod that started before the operator made the Secret needs no restart, nor on rotation."""
    as_role(own_postgres.uri, "transformer")
    secret = tmp_path / "secret"
    uri = "postgresql://transformer:$(POSTGRES_PASSWORD)@$(POSTGRES_HOST):$(POSTGRES_PORT)/postgres"
    chosen = settings(tmp_path, uri, postgres_secret_dir=str(secret))
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "does not take the records" in delivery.log, "the complaint")
        secret.mkdir()
        for name, value in (
            ("password", "any"),
            ("port", own_postgres.port),
            ("host", "127.0.0.1"),
        ):
            (secret / name).write_text(f"{value}\n")
        until(lambda: stored(own_postgres.uri) == (CALLS, CALLS, 0), "all rows")


def test_secret_that_cannot_be_read_is_an_outage(tmp_path: Path, own_postgres: Postgres) -> None:
    """One line names the file; the same process delivers once it can be read."""
    secret = tmp_path / "secret"
    secret.mkdir()
    password = secret / "password"
    password.symlink_to("/proc/self/mem")  # not even root reads its beginning
    chosen = settings(
        tmp_path,
        as_role(own_postgres.uri, "transformer"),
        postgres_secret_dir=str(secret),
    )
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "does not take the records" in delivery.log, "the complaint")
        assert f"{password} in POSTGRES_SECRET_DIR cannot be read (Input/output" in delivery.log
        password.unlink()
        password.write_text("any")
        until(lambda: stored(own_postgres.uri) == (CALLS, CALLS, 0), "all rows")
        assert delivery.process.poll() is None
    assert delivery.log.count("cannot be read") == 1
    assert "Traceback" not in delivery.log


def test_wrong_uri_is_told_without_its_password(tmp_path: Path) -> None:
    """What libpq cannot parse is one line that says how a URI looks."""
    chosen = settings(tmp_path, "postgresql://transformer:s3cret%zz@host/postgres")
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(
            lambda: "POSTGRES_URI is not a connection URI: set it to" in delivery.log, "the remedy"
        )
        assert delivery.process.poll() is None
    assert delivery.log.count("\n") == 1
    assert "s3cret" not in delivery.log


def test_wrong_password_corrected_later(tmp_path: Path, own_postgres: Postgres) -> None:
    """A refused login says which variable to correct, never shows the password, and heals."""
    with psycopg.connect(own_postgres.uri, autocommit=True) as connection:
        connection.execute("ALTER ROLE transformer LOGIN PASSWORD 'right'")
    hba = Path(rows(own_postgres.uri, "SHOW hba_file")[0][0])
    rules = hba.read_text()
    hba.write_text("host all transformer all scram-sha-256\n" + rules)
    own_postgres.restart()
    chosen = settings(
        tmp_path, f"postgresql://transformer:wr0ng-secret@127.0.0.1:{own_postgres.port}/postgres"
    )
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "POSTGRES_URI" in delivery.log, "the remedy")
        with psycopg.connect(own_postgres.uri, autocommit=True) as connection:
            connection.execute("ALTER ROLE transformer PASSWORD 'wr0ng-secret'")
        until(lambda: stored(own_postgres.uri) == (CALLS, CALLS, 0), "all rows")
    assert "password authentication failed" in delivery.log
    assert "wr0ng-secret" not in delivery.log


def test_role_without_a_login_is_given_one_later(tmp_path: Path, own_postgres: Postgres) -> None:
    """The schema makes the role and no login, so that running it again would not mend this."""
    chosen = settings(tmp_path, f"postgresql://transformer@127.0.0.1:{own_postgres.port}/postgres")
    recorded(chosen)
    with psycopg.connect(own_postgres.uri, autocommit=True) as connection:
        connection.execute("ALTER ROLE transformer NOLOGIN")
        with Delivery(chosen, tmp_path / "log") as delivery:
            until(lambda: "give the role a login by ALTER ROLE" in delivery.log, "the remedy")
            connection.execute("ALTER ROLE transformer LOGIN")
            until(lambda: stored(own_postgres.uri) == (CALLS, CALLS, 0), "all rows")


def test_missing_partition(tmp_path: Path, postgres_uri: str) -> None:
    """A missing partition is an outage, although Postgres calls it a violated CHECK."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        for (name,) in rows(
            postgres_uri,
            "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhrelid"
            " WHERE relkind = 'r' AND relname LIKE 'inference_re%'",
        ):
            connection.execute(f"DROP TABLE {name}".encode())
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "shadow-report maintain" in delivery.log, "the remedy")
        apply_schema(postgres_uri)
        until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")
    assert not (tmp_path / "spool" / "dead-letter").exists()


CHANGED_RULES = {
    "a new column without a default": (
        "ALTER TABLE inference_requests ADD COLUMN tenant text NOT NULL",
        "ALTER TABLE inference_requests ALTER COLUMN tenant SET DEFAULT 'a'",
        'inference_requests refuses every row: null value in column "tenant"',
    ),
    "a CHECK on responses": (
        "ALTER TABLE inference_responses ADD CONSTRAINT slow CHECK (duration_ms > 3600000)",
        "ALTER TABLE inference_responses DROP CONSTRAINT slow",
        "inference_responses refuses every row: ",
    ),
}


@pytest.mark.parametrize("rule", CHANGED_RULES)
def test_rule_that_refuses_every_row_is_an_outage(
    tmp_path: Path, postgres_uri: str, rule: str
) -> None:
    """Nothing is set aside, it is logged once, and all is written once the rule is changed.

    Also of the calls that come one by one meanwhile, and when rows have passed before.
    """
    make, mend, complaint = CHANGED_RULES[rule]
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "the first rows")
        rows(postgres_uri, "SELECT maintain_partitions()")
        with psycopg.connect(postgres_uri, autocommit=True) as connection:
            connection.execute("TRUNCATE inference_requests, inference_responses")
            connection.execute(make.encode())
            for _ in range(5):
                record(handler, 1)
                time.sleep(0.3)
            until(lambda: complaint in delivery.log, "the complaint")
            record(handler, CALLS)
            connection.execute(mend.encode())
        until(lambda: stored(postgres_uri)[:2] == (CALLS + 5, CALLS + 5), "all rows")
    assert delivery.log.count(complaint) == 1
    assert not (tmp_path / "spool" / "dead-letter").exists()


def test_first_row_of_all_waits_for_others(tmp_path: Path, postgres_uri: str) -> None:
    """A refused row that nothing can be compared with is set aside once another one passes."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("ALTER TABLE inference_requests ADD CHECK (pair_id <> 'devil')")
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = PredictionDBHandler(chosen)
    handler.open()
    respond(handler, request(handler, x_request_id="devil"))
    aside = tmp_path / "spool" / "dead-letter"

    def kept() -> int:
        return sum(len(file.read_text().splitlines()) for file in aside.glob("*.jsonl"))

    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "refuses every row" in delivery.log, "the complaint")
        assert not aside.exists()
        record(handler, 1)
        until(lambda: stored(postgres_uri) == (1, 2, 1), "the other call")
        until(lambda: "Postgres refuses a row: " in delivery.log, "the dead letter's line")
        assert kept() == 1
        respond(handler, request(handler, x_request_id="devil"))
        until(lambda: kept() == 2, "the next one, at once")
    assert delivery.log.count("refuses every row") == 1


def test_json_columns_changed_to_jsonb(tmp_path: Path, postgres_uri: str) -> None:
    """Only a direct COPY knows the difference; the rows go in staged."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("DROP VIEW inference_pairs")
        for table, column in (("requests", "request_data"), ("responses", "response_data")):
            connection.execute(
                f"ALTER TABLE inference_{table} ALTER {column} TYPE jsonb USING {column}::jsonb"
            )
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")
    assert "Records go to the database" in delivery.log
    assert delivery.log.count("\n") == 1  # no complaint
    assert rows(
        postgres_uri, "SELECT DISTINCT request_data -> 'values' -> 0 FROM inference_requests"
    ) == [("3.3",)]


def test_column_of_a_type_that_takes_no_row(tmp_path: Path, postgres_uri: str) -> None:
    """The log names the column and the schema; nothing is set aside."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("DROP VIEW inference_pairs")
        connection.execute(
            "ALTER TABLE inference_responses ALTER response_data TYPE integer USING NULL"
        )
        chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
        recorded(chosen)
        with Delivery(chosen, tmp_path / "log") as delivery:
            until(lambda: 'column "response_data" is of type integer' in delivery.log, "its name")
            assert "another type than in manifests/database/schema.sql" in delivery.log
            connection.execute(
                "ALTER TABLE inference_responses ALTER response_data TYPE json USING NULL"
            )
            until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")
    assert not (tmp_path / "spool" / "dead-letter").exists()


# As Citus does with what a worker refuses: inside COPY a row that is there already is XX000, and a
# violated CHECK is 23514 without the name of a table or a constraint.
LIKE_CITUS = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.pair_id = 'devil' THEN
        RAISE EXCEPTION 'violates a check on a worker' USING ERRCODE = '23514';
    END IF;
    IF current_query() ~ '^COPY' AND EXISTS (
        SELECT FROM inference_requests WHERE record_id = NEW.record_id
    ) THEN
        RAISE EXCEPTION 'failure on connection' USING ERRCODE = 'XX000';
    END IF;
    RETURN NEW;
END $$;
ALTER FUNCTION refuse() SECURITY DEFINER;
CREATE TRIGGER refuse BEFORE INSERT ON inference_requests FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def test_redelivery_to_a_server_that_hides_what_it_refuses(
    tmp_path: Path, postgres_uri: str
) -> None:
    """After a kill -9 before the mark the rows go in staged, and a bad one is set aside."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(LIKE_CITUS)
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = recorded(chosen)
    handler.close()
    (path,) = chosen.spool_folder.glob("*.seg")
    before = path.read_bytes()
    with Delivery(chosen, tmp_path / "log"):
        until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")
        until(lambda: not path.exists(), "an empty spool")
    path.write_bytes(before)
    respond(handler, request(handler, x_request_id="devil"))
    record(handler, 1)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "violates a check on a worker" in delivery.log, "the refused row")
        until(lambda: stored(postgres_uri) == (CALLS + 1, CALLS + 2, 1), "all rows")
        until(lambda: not path.exists(), "an empty spool")
    assert "does not take" not in delivery.log


def test_connection_killed_by_the_server(tmp_path: Path, postgres_uri: str) -> None:
    """pg_terminate_backend of the writer, again and again, loses and doubles nothing."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = recorded(chosen)
    with Delivery(chosen, tmp_path / "log"):
        for _ in range(10):
            record(handler, 50)
            time.sleep(0.1)
            rows(
                postgres_uri,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'minimal-transformer' AND datname = current_database()",
            )
        until(lambda: stored(postgres_uri) == (CALLS + 500, CALLS + 500, 0), "all rows")


RAISE = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the server is in trouble' USING ERRCODE = '{}'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON inference_responses FOR EACH ROW EXECUTE FUNCTION fail();
"""


@pytest.mark.parametrize("state", ["53100", "53200", "53300", "40001", "55P03", "57P01", "XX000"])
def test_states_of_the_server_are_waited_out(tmp_path: Path, postgres_uri: str, state: str) -> None:
    """Disk full, out of memory, locks, a failing server: no row is set aside, all are written."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(RAISE.format(state).encode())
        chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
        handler = recorded(chosen)
        delivery = deliver_from(handler, chosen)
        try:
            until(
                lambda: figures(handler)["prediction_db_write_errors_total"] > 2, "failing attempts"
            )
            assert stored(postgres_uri)[0] == 0, "both rows of a batch are one transaction"
            connection.execute("DROP FUNCTION fail CASCADE")
            until(lambda: stored(postgres_uri) == (CALLS, CALLS, 0), "all rows")
        finally:
            delivery.stop(90)
    assert not (tmp_path / "spool" / "dead-letter").exists()


def test_slow_server_gets_smaller_batches(
    tmp_path: Path, postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that never ends in time is not tried for ever."""
    begin = database._SQL["begin.sql"]
    monkeypatch.setitem(database._SQL, "begin.sql", begin.replace("'30s'", "'300ms'"))
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER doze BEFORE INSERT ON inference_requests"
            " FOR EACH ROW EXECUTE FUNCTION doze()"
        )
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    recorded(chosen)
    writer = Writer(
        chosen.spool_folder,
        database.Database(chosen.postgres_uri.get_secret_value()),
        Counters(None),
    )
    until(lambda: writer.advance() is None, "all rows")
    writer.close()
    assert stored(postgres_uri) == (CALLS, CALLS, 0)


def server_processes(pid: int) -> list[int]:
    """The server and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


@pytest.mark.parametrize("calls", [10, 3000])
def test_hung_server_is_an_outage(
    tmp_path: Path,
    own_postgres: Postgres,
    calls: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that is stopped in its tracks is logged, then given up at the deadline, and tried
    again; it is back after all the time since it took nothing.
    """
    chosen = settings(tmp_path, as_role(own_postgres.uri, "transformer"))
    handler = PredictionDBHandler(chosen)
    record(handler, 5)
    writer = Writer(
        chosen.spool_folder,
        database.Database(chosen.postgres_uri.get_secret_value()),
        Counters(None),
    )
    assert writer.advance() is None  # connected, five calls written
    record(handler, calls, b'"' + 10_000 * b"x" + b'"')
    stopped = server_processes(own_postgres.pid)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        # Only now: a busy machine may take longer for what the running server does.
        with monkeypatch.context() as short:
            short.setattr(database, "TRANSACTION_SECONDS", 1.5)
            short.setattr(database, "SLOW_SECONDS", 0.5)
            # First the cut connection, then none to be had.
            began = time.monotonic()
            waits = [writer.advance() for _ in range(2)]
            hung = time.monotonic() - began
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
    assert all(wait is not None and wait > 0 for wait in waits)
    slow, given_up = (record.getMessage() for record in caplog.records[:2])
    assert "has not taken a batch for 0.5 s" in slow
    assert "does not take the records" in given_up
    while writer.advance() is not None:
        pass
    writer.close()
    assert stored(own_postgres.uri) == (5 + calls, 5 + calls, 0)
    again = re.fullmatch(
        rf"Postgres takes the records again after ([\d.]+) s; {calls} calls caught up\.",
        caplog.records[-1].getMessage(),
    )
    assert again is not None
    assert float(again[1]) > hung - 0.1  # rounded


@pytest.mark.parametrize("password", ["pa@55word", "@55word", "a@b@c55word", "pa/5@5word"])
def test_unescaped_password_is_never_told(tmp_path: Path, password: str) -> None:
    """libpq takes what follows its @ for the host, and quotes it; our line does not."""
    uri = f"postgresql://transformer:{password}@127.0.0.1:1/nothing"
    chosen = settings(tmp_path, uri)
    recorded(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "Postgres does not take the records" in delivery.log, "the line")
        assert delivery.process.poll() is None
    assert "5word" not in delivery.log
