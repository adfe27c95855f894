"""Processes die: what was answered is recorded all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import Start
from evidence import check_every_answer_is_stored_once, stored
from load import Load
from processes import delivery_pid, kill_pod, send
from serving import Transformer, until
from test_workers import serving_pids

from embedded_postgres import Postgres

# What a caller of a dead server may see; never a wrong answer.
GONE = {
    *("ClientConnectorError", "ServerDisconnectedError", "ClientOSError"),
    # Its end came while the call was written, or between the answer's head and its body.
    *("ClientConnectionResetError", "ClientPayloadError"),
}


def kill_server(server: Transformer) -> None:
    """SIGKILL the transformer alone; its delivery process finds itself an orphan."""
    send(signal.SIGKILL, [server.process.pid])
    server.process.wait()


@pytest.mark.parametrize("kill", [kill_server, kill_pod])
def test_kill_loses_no_answered_call(
    kill: Callable[[Transformer], None], postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """kill -9 of the transformer, alone or with all its processes: a restart delivers the rest."""
    server = start(transformer_uri)
    with Load(server) as before:
        before.until_answered(300)
        kill(server)
    assert before.failed.keys() <= GONE
    server = start(transformer_uri)
    with Load(server) as after:
        after.until_answered(100)
    assert not after.failed
    check_every_answer_is_stored_once(postgres.uri, before, after)


def test_kill_during_an_outage_loses_no_answered_call(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Postgres is away and the transformer is killed, twice over: all wait on the spool."""
    postgres.stop()
    loads = []
    for _ in range(2):
        server = start(transformer_uri)
        with Load(server) as load:
            load.until_answered(200)
            kill_pod(server)
        assert load.failed.keys() <= GONE
        loads.append(load)
    postgres.start()
    server = start(transformer_uri)
    check_every_answer_is_stored_once(postgres.uri, *loads)


def test_killed_worker_loses_no_answered_call(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """kill -9 of one of four workers: its records arrive, and a new one serves."""
    server = start(transformer_uri, "--workers", "4")
    until(lambda: len(serving_pids(server)) == 4, "four workers")
    with Load(server) as load:
        load.until_answered(200)
        victim = min(serving_pids(server))
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(serving_pids(server) - {victim}) == 4, "a new worker")
        load.until_answered(200)
    assert load.failed.keys() <= GONE
    check_every_answer_is_stored_once(postgres.uri, load)


def test_killed_delivery_process_costs_nothing(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """kill -9 of the delivery process, three times: no caller notices, none is missing or twice."""
    server = start(transformer_uri)
    with Load(server) as load:
        for _ in range(3):
            load.until_answered(100)
            os.kill(delivery_pid(server), signal.SIGKILL)
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


def test_sigterm_under_load_twice(postgres: Postgres, transformer_uri: str, start: Start) -> None:
    """SIGTERM finishes and records what it took, exits 0, and leaves nothing on the spool."""
    loads = []
    for _ in range(2):
        server = start(transformer_uri)
        with Load(server) as load:
            load.until_answered(300)
            assert server.stop() == 0, server.log
        # No 5xx: a call is answered 200 or finds nobody listening.
        assert load.failed.keys() <= GONE
        loads.append(load)
        assert load.answered <= stored(postgres.uri).statuses.keys()
    check_every_answer_is_stored_once(postgres.uri, *loads)
    assert not list(server.spool.glob("*.seg"))


def test_sigterm_of_four_workers_under_load(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """--workers 4: each finishes and records its calls; the exit code is 0."""
    server = start(transformer_uri, "--workers", "4")
    until(lambda: len(serving_pids(server)) == 4, "four workers")
    with Load(server) as load:
        load.until_answered(400)
        assert server.stop() == 0, server.log
    assert load.failed.keys() <= GONE
    check_every_answer_is_stored_once(postgres.uri, load)


def test_sigterm_while_postgres_is_away_leaves_the_rest_on_the_spool(
    postgres: Postgres, transformer_uri: str, start: Start, spool: Path
) -> None:
    """The drain ends after its time and tells what it left; the next start delivers it."""
    server = start(transformer_uri, SHUTDOWN_DRAIN_SECONDS="1")
    postgres.kill()
    with Load(server) as load:
        load.until_answered(200)
    assert not load.failed
    assert server.stop() == 0, server.log
    calls = len(load.answered)
    assert f"{calls} calls wait in {spool}; they are delivered at the next start." in server.log
    postgres.start()
    start(transformer_uri)
    check_every_answer_is_stored_once(postgres.uri, load)
