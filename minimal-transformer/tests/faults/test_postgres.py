"""Postgres fails in every way it can: no caller notices, and every call is in it once it heals."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from conftest import Start, as_transformer
from evidence import check_every_answer_is_stored_once, metric, query, records, stored, tell
from load import Caller, Load
from processes import delivery_pid, descendants, resident_bytes, send
from serving import Transformer, until

from embedded_postgres import Postgres, apply_schema

OUTAGE_SECONDS = 60
GROWTH_BYTES = 20 * 1024 * 1024

_WRITERS = "FROM pg_stat_activity WHERE application_name = 'minimal-transformer'"


def told(server: Transformer, what: str) -> None:
    """Returns once the log says what is wrong; it says so once."""
    until(lambda: what in server.log, f"the log to say {what!r}")


def refused(server: Transformer) -> None:
    """Returns once an attempt to write failed."""
    before = metric(server, "write_errors_total")
    until(lambda: metric(server, "write_errors_total") > before, "an attempt that fails")


def test_terminated_connection_of_the_writer_costs_nothing(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """pg_terminate_backend of the writer's connection, ten times under load."""
    server = start(transformer_uri)
    ended = 0
    with Load(server) as load:
        while ended < 10:
            load.until_answered(20)
            ended += len(query(postgres.uri, f"SELECT pg_terminate_backend(pid) {_WRITERS}"))
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


def test_killed_postgres_costs_nothing(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """kill -9 of all of Postgres' processes and a restart with crash recovery, twice under load."""
    server = start(transformer_uri)
    with Load(server) as load:
        for _ in range(2):
            load.until_answered(100)
            until(lambda: stored(postgres.uri).requests, "the first rows")
            send(signal.SIGKILL, [postgres.pid, *descendants(postgres.pid)])
            postgres.kill()
            load.until_answered(100)
            postgres.start()
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


def test_restarted_postgres_costs_nothing(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Clean restarts under load."""
    server = start(transformer_uri)
    with Load(server) as load:
        for _ in range(3):
            load.until_answered(100)
            postgres.restart()
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


@pytest.mark.timeout(300)
def test_outage_of_a_minute_loses_nothing_and_grows_no_memory(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Postgres away for 60 s at 200 calls/s: memory grows by less than 20 MB, all is caught up."""
    server = start(transformer_uri)
    writer = delivery_pid(server)

    def resident() -> int:
        return resident_bytes(server.process.pid) + resident_bytes(writer)

    with Load(server, rate=200) as load:
        load.until_answered(1000)  # caches and pools are warm
        until(lambda: stored(postgres.uri).requests, "the first rows")
        before = resident()
        postgres.stop()
        begun = len(load.answered)
        highest = before
        ends = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < ends:
            highest = max(highest, resident())
            time.sleep(0.5)
        during = len(load.answered) - begun
    assert not load.failed
    waiting, oldest = metric(server, "spool_bytes"), metric(server, "oldest_unwritten_seconds")
    written = records(server, "written")
    behind = len(load.answered) - written
    postgres.start()
    until(lambda: records(server, "written") > written, "the first rows of the backlog")
    resumed = time.monotonic()
    until(lambda: records(server, "written") == len(load.answered), "the backlog's end")
    took = time.monotonic() - resumed
    after = resident()
    check_every_answer_is_stored_once(postgres.uri, load)
    tell(
        answered_during_outage=during,
        spool_bytes=int(waiting),
        oldest_seconds=round(oldest, 1),
        caught_up=behind,
        calls_per_second=int(behind / max(took, 0.05)),
        growth_during_mb=round((highest - before) / 1e6, 1),
        growth_after_catch_up_mb=round((after - before) / 1e6, 1),
    )
    assert during >= OUTAGE_SECONDS * 100
    assert highest - before < GROWTH_BYTES
    assert after - before < GROWTH_BYTES
    assert delivery_pid(server) == writer


def test_frozen_postgres_costs_nothing(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Every process of Postgres is stopped (SIGSTOP) under load, and goes on later."""
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(100)
        frozen = [postgres.pid, *descendants(postgres.pid)]
        send(signal.SIGSTOP, frozen)
        try:
            load.until_answered(600)
            assert metric(server, "oldest_unwritten_seconds") > 1
        finally:
            send(signal.SIGCONT, frozen)
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


def test_postgres_absent_at_start(stopped_postgres: Postgres, start: Start) -> None:
    """The server is ready and serves without Postgres; its rows arrive when Postgres does."""
    server = start(as_transformer(stopped_postgres))
    assert server.get("/v1/models/model").status == 200
    with Load(server) as load:
        load.until_answered(200)
        told(server, "does not take the records")
        stopped_postgres.start()
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(stopped_postgres.uri, load)
    assert server.log.count("does not take the records") == 1


def test_tables_created_ten_seconds_late(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Without tables the log names the file to apply; once they exist everything is written."""
    query(postgres.uri, "DROP TABLE inference_requests, inference_responses CASCADE")
    server = start(transformer_uri)
    with Load(server) as load:
        told(server, "manifests/database/schema.sql")
        time.sleep(10)
        apply_schema(postgres.uri)
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


RIGHTS = "INSERT ON inference_requests, inference_responses"


def revoke(uri: str) -> None:
    """Take the role's right to write."""
    query(uri, f"REVOKE {RIGHTS} FROM transformer")


def grant(uri: str) -> None:
    """Give it back."""
    query(uri, f"GRANT {RIGHTS} TO transformer")


def test_role_without_insert_is_granted_it_later(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """A role that may not write is told of in the log; all is written after the grant."""
    revoke(postgres.uri)
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(100)
        told(server, "permission denied")
        grant(postgres.uri)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


def read_only(uri: str) -> None:
    """Every new session of the database is read-only, and the writer gets a new one."""
    query(uri, "ALTER DATABASE postgres SET default_transaction_read_only = on")
    query(uri, f"SELECT pg_terminate_backend(pid) {_WRITERS}")


def writable(uri: str) -> None:
    """Undo it."""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")


def rename(uri: str) -> None:
    """The responses' table is gone, in the middle of everything."""
    query(uri, "ALTER TABLE inference_responses RENAME TO elsewhere")


def rename_back(uri: str) -> None:
    """It is back."""
    query(uri, "ALTER TABLE elsewhere RENAME TO inference_responses")


def no_connections(uri: str) -> None:
    """The role may hold no connection."""
    query(uri, "ALTER ROLE transformer CONNECTION LIMIT 0")
    query(uri, f"SELECT pg_terminate_backend(pid) {_WRITERS}")


def connections(uri: str) -> None:
    """The role may connect again."""
    query(uri, "ALTER ROLE transformer CONNECTION LIMIT -1")


@pytest.mark.parametrize(
    ("fault", "heal", "complaint"),
    [
        (revoke, grant, "permission denied"),
        (read_only, writable, "read-only transaction"),
        (rename, rename_back, "does not exist"),
        (no_connections, connections, "too many connections"),
    ],
)
def test_refusal_in_the_middle_of_the_load(
    *,
    fault: Callable[[str], None],
    heal: Callable[[str], None],
    complaint: str,
    postgres: Postgres,
    transformer_uri: str,
    start: Start,
) -> None:
    """Rights revoked, read-only, a table gone, no connection: told once, all written afterwards."""
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(100)
        fault(postgres.uri)
        told(server, complaint)
        load.until_answered(100)
        heal(postgres.uri)
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)
    assert server.log.count(complaint) == 1
    told(server, "takes the records again")


def test_wrong_password_is_mended(postgres: Postgres, start: Start) -> None:
    """A refused password is an outage like another: told, and over when the password is right."""
    hba = postgres.folder / "pg_hba.conf"
    trusting = hba.read_text()
    hba.write_text(f"host all transformer 127.0.0.1/32 scram-sha-256\n{trusting}")
    query(postgres.uri, "ALTER ROLE transformer PASSWORD 'wrong'")
    query(postgres.uri, "SELECT pg_reload_conf()")
    uri = as_transformer(postgres).replace("transformer@", "transformer:right@")
    server = start(uri)
    with Load(server) as load:
        load.until_answered(100)
        told(server, "password authentication failed")
        query(postgres.uri, "ALTER ROLE transformer PASSWORD 'right'")
    assert not load.failed
    assert "right" not in server.log.replace("copyright", "")
    check_every_answer_is_stored_once(postgres.uri, load)


def test_failover_to_another_host(
    stopped_postgres: Postgres, postgres_data: Path, tmp_path: Path, start: Start
) -> None:
    """A URI of two hosts with target_session_attrs: the one that takes writes is found."""
    first, second = stopped_postgres, Postgres(tmp_path / "second")
    first.start()
    second.start()
    try:
        apply_schema(second.uri)
        query(second.uri, "ALTER ROLE transformer LOGIN")
        read_only(second.uri)
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        uri = f"postgresql://transformer@{hosts}/postgres?target_session_attrs=read-write"
        server = start(uri)
        with Load(server) as load:
            load.until_answered(100)
            until(lambda: stored(first.uri).requests, "the first rows")
            time.sleep(1)
            first.stop()
            load.until_answered(100)
            writable(second.uri)
            load.until_answered(100)
        assert not load.failed
        until(lambda: records(server, "written") == len(load.answered), "all rows")
        # No replication here: each row is on the server that took it.
        on_second = stored(second.uri)
        first.start()
        on_first = stored(first.uri)
        pairs = on_first.statuses.keys() | on_second.statuses.keys()
        assert pairs == load.answered
        assert on_first.requests
        assert on_second.requests
    finally:
        second.kill()


def test_full_disk_of_postgres_costs_nothing(
    small_disk: Callable[[str], Path], postgres_data: Path, start: Start
) -> None:
    """Postgres finds its disk full (ENOSPC) under load; with room again all is written."""
    disk = small_disk("size=256m,mode=0777")
    subprocess.run(["cp", "-a", str(postgres_data), str(disk / "data")], check=True)
    postgres = Postgres(disk / "data")
    postgres.start()
    filler = disk / "filler"
    try:
        server = start(as_transformer(postgres))
        with Load(
            server, caller=Caller(body=b'{"values": [%s]}' % b", ".join([b"1"] * 4000), answer=None)
        ) as load:
            load.until_answered(50)
            fill(filler)
            told(server, "No space left")
            load.until_answered(100)
            filler.unlink()
            if not postgres.running:
                postgres.start()
            load.until_answered(50)
        assert not load.failed
        check_every_answer_is_stored_once(postgres.uri, load)
    finally:
        postgres.kill()


def fill(file: Path) -> None:
    """Take all the room of the file's disk."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(64 * 1024))
