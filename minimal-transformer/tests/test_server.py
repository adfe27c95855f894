"""Starting, configuring, logging and stopping the server as users do."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
from scripted import ANSWER, ScriptedPredictor, body
from serving import (
    MODULE,
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    WAIT_SECONDS,
    Answered,
    Predictor,
    Transformer,
    counts,
    environment,
    new_pair,
    row,
    until,
)

from minimal_transformer.server import Options

SCRIPT = Path(sys.executable).parent / "minimal-transformer"
REQUIRED = {"POSTGRES_URI": "postgresql://nobody@127.0.0.1:1/nothing", "SHADOW_ROLE": "primary"}


class WithoutGrpcPort(Transformer):
    """Started without --grpc_port."""

    names_grpc_port = False


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command, for starts that end by themselves."""
    return forked.run([MODULE, *arguments], env=environment(**variables))


def test_help_shows_kserves_arguments() -> None:
    """--help of the installed command works although importing kserve reads its line too."""
    command = [SCRIPT, "--help"]
    shown = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert shown.returncode == 0
    assert "--predictor_host" in shown.stdout
    assert "POSTGRES_URI" in shown.stdout


def test_bad_settings_stop_the_start_with_a_line_each() -> None:
    """What, where and what to do; exit code 2 and no trace."""
    ended = run(
        *("--predictor_host", "x", "--predictor_use_ssl", "true"),
        POSTGRES_URI="mysql://user:secret@host/db",
        SHADOW_ROLE="blue",
        LOG_FORMAT="xml",
        ACCESS_LOG="loud",
        SHUTDOWN_GRACE_SECONDS="-1",
        REQUESTS_CA_BUNDLE="/nowhere/ca.crt",
    )
    assert ended.returncode == 2
    assert "secret" not in ended.stderr
    expected = [
        "POSTGRES_URI is not a connection URI; ",
        "SHADOW_ROLE is 'blue'; set it to 'primary' or 'shadow'.",
        "ACCESS_LOG is 'loud'; set it to 1 for a log line per call, or to 0.",
        "LOG_FORMAT is 'xml'; set it to 'text' or 'json'.",
        "SHUTDOWN_GRACE_SECONDS is '-1'; set it to a number of seconds from 0 to 3600.",
        "REQUESTS_CA_BUNDLE/CURL_CA_BUNDLE names /nowhere/ca.crt, which does not exist; ",
    ]
    lines = ended.stderr.splitlines()
    assert len(lines) == len(expected), ended.stderr
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_missing_settings_are_all_named_at_once() -> None:
    """One line each."""
    ended = run("--predictor_host", "localhost:1")
    assert ended.returncode == 2
    assert [line.split()[0] for line in ended.stderr.splitlines()] == [
        "POSTGRES_URI",
        "SHADOW_ROLE",
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--predictor_hots", "x"], "unrecognized arguments: --predictor_hots x"),
        (["--predictor_request_retries", "-1"], "--predictor_request_retries is -1; set it to 0"),
        (["--predictor_request_timeout_seconds", "0"], "--predictor_request_timeout_seconds is 0;"),
    ],
)
def test_bad_argument_stops_the_start(arguments: list[str], line: str) -> None:
    """Exit code 2; KServe would ignore what it does not know."""
    ended = run(*arguments, **REQUIRED)
    assert ended.returncode == 2
    assert line in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("which", ["http_port", "grpc_port"])
def test_port_in_use_is_named(tmp_path: Path, which: str) -> None:
    """One line with the argument and the number, exit code 1."""
    any_address = {"family": socket.AF_INET6, "dualstack_ipv6": True}
    with socket.create_server(("", 0), **any_address) as taken:
        port = taken.getsockname()[1]
        other = "grpc_port" if which == "http_port" else "http_port"
        variables = REQUIRED | {"SPOOL_DIR": str(tmp_path), "SHUTDOWN_DRAIN_SECONDS": "0"}
        ended = run(f"--{which}", str(port), f"--{other}", "0", **variables)
    assert ended.returncode == 1
    assert f"--{which} {port} cannot be used (Address already in use); free it" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_default_grpc_port_in_use_costs_grpc_only(
    folder: Path, shared_uri: str, predictor: Predictor
) -> None:
    """Beside a predictor on 8081 the plain command works, and says that gRPC is off."""
    any_address = {"family": socket.AF_INET6, "dualstack_ipv6": True}
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("", 8081), **any_address))
        with WithoutGrpcPort(folder, shared_uri, predictor.address) as server:
            assert server.post(PREDICT, SAMPLE).body == SAMPLE_ANSWER
            assert "gRPC is off: its default port 8081 is in use; set --grpc_port." in server.log


@contextlib.contextmanager
def kept_connection(server: Transformer) -> Iterator[http.client.HTTPConnection]:
    """A connection over which a call was answered; it is not opened anew when it is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=WAIT_SECONDS)
    with contextlib.closing(connection):
        assert called(connection) == SAMPLE_ANSWER
        connection.auto_open = False
        yield connection


def called(connection: http.client.HTTPConnection) -> bytes:
    """The answer to the sample over this connection."""
    connection.request("POST", PREDICT, SAMPLE, {"content-type": "application/json"})
    return connection.getresponse().read()


def test_idle_connection_outlives_the_callers_own_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Envoy keeps one for an hour: who closes first must be the caller. The user's word counts."""
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    assert Options.read([]).args.timeout_keep_alive > 60 * 60
    assert Options.read(["--timeout-keep-alive", "7"]).args.timeout_keep_alive == 7


def test_idle_connection_is_kept_and_ends_with_the_server(
    folder: Path, shared_uri: str, predictor: Predictor
) -> None:
    """It is still good where a short limit has closed it; SIGTERM does not wait for it."""
    grace = {"SHUTDOWN_GRACE_SECONDS": "600"}
    with (
        Transformer(folder, shared_uri, predictor.address, **grace) as server,
        Transformer(folder, shared_uri, predictor.address, "--timeout-keep-alive", "1") as short,
        kept_connection(server) as kept,
        kept_connection(short) as closed,
    ):
        assert closed.sock is not None
        assert closed.sock.recv(1) == b"", "the short limit closes it"
        assert called(kept) == SAMPLE_ANSWER
        assert server.stop() == 0, server.log
        assert kept.sock is not None
        assert kept.sock.recv(1) == b"", "closed, although it was idle"


def test_no_line_per_call_by_default(folder: Path, shared_uri: str, predictor: Predictor) -> None:
    """Neither KServe's timing lines nor uvicorn's access lines."""
    with Transformer(folder, shared_uri, predictor.address) as server:
        server.post(PREDICT, SAMPLE)
        until(lambda: "serving model" in server.log, "the one line of a start")
        before = server.log
        for _ in range(5):
            server.post(PREDICT, SAMPLE)
        assert server.log == before


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_access_log_has_a_line_per_call(
    folder: Path, shared_uri: str, predictor: Predictor, log_format: str
) -> None:
    """With pair id, status and milliseconds; as text or as JSON."""
    pair = new_pair()
    variables = {"ACCESS_LOG": "1", "LOG_FORMAT": log_format}
    with Transformer(folder, shared_uri, predictor.address, **variables) as server:
        server.post(PREDICT, SAMPLE, x_shadow_pair_id=pair)
        server.post(PREDICT, SAMPLE)
        lines = [line for line in server.log.splitlines() if "pair=" in line]
        assert len(lines) == 2
        made = re.search(r" pair=(\S+) ", lines[1])
        assert made, lines
        assert row(shared_uri, made[1])["pair_source"] == "generated"
    assert f"v1 {PREDICT} pair={pair} status=200 ms=" in lines[0]
    if log_format == "json":
        line = json.loads(lines[0])
        assert (line["pair_id"], line["status"], line["level"]) == (pair, 200, "INFO")
        assert line["duration_ms"] > 0


def test_sigterm_under_load_loses_nothing(
    folder: Path, postgres_uri: str, predictor: Predictor
) -> None:
    """Twice SIGTERM: every answered call has both rows, the exit code is 0."""
    with Transformer(folder, postgres_uri, predictor.address) as server:
        answered, calling = _load(server, 8)
        until(lambda: len(answered) > 100, "load")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        assert server.stop() == 0, server.log
        calling.set()
    requests, responses, gaps = counts(postgres_uri)
    assert gaps == 0
    assert requests == responses >= len(answered)
    assert {a.status for a in answered} == {200}


def test_call_in_flight_finishes_after_sigterm(
    folder: Path, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """Its caller gets the answer; the row is in the table when the process has ended."""
    pair = new_pair()
    with Transformer(folder, shared_uri, scripted.address) as server:
        answers: list[Answered] = []
        caller = _call_later(server, answers, body("slow 2"), pair)
        until(lambda: any(s.headers.get("x-shadow-pair-id") == pair for s in scripted.seen), "call")
        assert server.stop() == 0, server.log
        caller.join()
    assert [(a.status, a.body) for a in answers] == [(200, ANSWER)]
    assert row(shared_uri, pair)["status_code"] == 200


def test_call_that_outlives_the_grace_period_is_503_and_recorded(
    folder: Path, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """The caller is told, and the row says the same."""
    pair = new_pair()
    grace = {"SHUTDOWN_GRACE_SECONDS": "1"}
    with Transformer(folder, shared_uri, scripted.address, **grace) as server:
        answers: list[Answered] = []
        caller = _call_later(server, answers, body("slow 20"), pair)
        until(lambda: any(s.headers.get("x-shadow-pair-id") == pair for s in scripted.seen), "call")
        assert server.stop() == 0, server.log
        caller.join()
    found = row(shared_uri, pair)
    assert found["error"] == "the server stopped before the predictor answered; try again"
    assert found["status_code"] == 503
    assert [a.status for a in answers] == [503]


def test_answers_do_not_wait_for_a_spool_that_cannot_be_written(
    folder: Path, shared_uri: str, predictor: Predictor, tmp_path: Path
) -> None:
    """A spool folder that is a file: calls are answered, and the log says what to do."""
    spool = tmp_path / "spool"
    spool.write_text("not a folder")
    with Transformer(folder, shared_uri, predictor.address, SPOOL_DIR=str(spool)) as server:
        assert server.post(PREDICT, SAMPLE).body == SAMPLE_ANSWER
        until(lambda: "not recorded" in server.log, "the log to tell")


def test_fsync_option_answers_and_records(
    folder: Path, shared_uri: str, predictor: Predictor
) -> None:
    """SPOOL_FSYNC=1: the record is on the disk before the answer leaves."""
    pair = new_pair()
    with Transformer(folder, shared_uri, predictor.address, SPOOL_FSYNC="1") as server:
        assert server.post(PREDICT, SAMPLE, x_shadow_pair_id=pair).body == SAMPLE_ANSWER
        assert row(shared_uri, pair)["status_code"] == 200


def test_server_without_predictor_says_so(folder: Path, shared_uri: str) -> None:
    """501 as in KServe, recorded."""
    pair = new_pair()
    with Transformer(folder, shared_uri, None) as server:
        answered = server.post(PREDICT, SAMPLE, x_shadow_pair_id=pair)
        assert row(shared_uri, pair)["status_code"] == 501
    assert (answered.status, json.loads(answered.body)) == (
        501,
        {"error": "Could not find predictor_host."},
    )


def _load(server: Transformer, callers: int) -> tuple[list[Answered], threading.Event]:
    """Callers that call until told to stop or until the server is gone."""
    answered: list[Answered] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                answered.append(server.post(PREDICT, SAMPLE))
            except (OSError, http.client.HTTPException):  # the server is gone
                return

    for _ in range(callers):
        threading.Thread(target=call, daemon=True).start()
    return answered, stop


def _call_later(
    server: Transformer, answers: list[Answered], sent: bytes, pair: str
) -> threading.Thread:
    caller = threading.Thread(
        target=lambda: answers.append(server.post(PREDICT, sent, x_shadow_pair_id=pair))
    )
    caller.start()
    return caller


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_while_starting_stops_the_server(
    folder: Path, shared_uri: str, predictor: Predictor, workers: str
) -> None:
    """Whenever it comes, also before uvicorn listens for it: nothing is left and nothing hangs."""
    for delay in (0.5, 2.0):
        server = Transformer(folder, shared_uri, predictor.address, "--workers", workers)
        time.sleep(delay)
        try:
            assert server.stop() in (0, -signal.SIGTERM)
            assert "Traceback" not in server.log
        finally:
            server.__exit__()
