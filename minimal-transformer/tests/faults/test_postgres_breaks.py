"""Postgres dies, hangs, is away or full: no caller notices, and it has every call once it heals."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from deployment import Start, as_transformer
from evidence import (
    WRITERS,
    check_every_answer_is_stored_once,
    metric,
    query,
    read_only,
    records,
    stored,
    told,
    writable,
)
from load import Caller, Load
from processes import descendants, fill, send
from serving import until

from embedded_postgres import Postgres, apply_schema


def test_terminated_connection_of_the_writer_costs_nothing(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """pg_terminate_backend of the writer's connection, ten times under load."""
    server = start(transformer_uri)
    ended = 0
    with Load(server) as load:
        while ended < 10:
            load.until_answered(20)
            ended += len(query(postgres.uri, f"SELECT pg_terminate_backend(pid) {WRITERS}"))
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


def test_frozen_postgres_costs_nothing(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Every process of Postgres is stopped (SIGSTOP) under load, and goes on later."""
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(100)
        # The postmaster first: it forks no further process while the others are stopped.
        send(signal.SIGSTOP, [postgres.pid])
        frozen = [postgres.pid, *descendants(postgres.pid)]
        send(signal.SIGSTOP, frozen)
        try:
            load.until_answered(300)
            until(lambda: metric(server, "oldest_unwritten_seconds") > 2, "records that wait")
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


def takes_queries(postgres: Postgres) -> bool:
    """Whether it does; one that has ended is started, as its operator would."""
    if not postgres.running:
        postgres.start()
    try:
        return bool(query(postgres.uri, "SELECT 1"))
    except psycopg.OperationalError:
        return False


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
            told(server, "the server's disk is full; free space, or shadow-report maintain")
            load.until_answered(100)
            filler.unlink()
            until(lambda: takes_queries(postgres), "Postgres, which may have ended of it")
            load.until_answered(50)
        assert not load.failed
        check_every_answer_is_stored_once(postgres.uri, load)
    finally:
        postgres.kill()
