"""Rows that were set aside come back into their tables by one command, whatever is in them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from delivering import NOWHERE, deliver_from, record, request, respond, rows, settings, stored
from serving import WAIT_SECONDS, environment, until
from test_delivery_poison import BODIES, deliver, open_recorder

from embedded_postgres import as_role
from minimal_transformer.delivery.dead_letters import set_aside
from minimal_transformer.settings import RecordSettings
from minimal_transformer.spool.format import Frame
from minimal_transformer.spool.reader import Reader

COLUMNS = {
    "requests": "record_id, request_time, recorder_id, sequence, pair_id, pair_source, role,"
    " inference_service, model_name, model_version, protocol, predict_url, request_headers::text,"
    " request_data::text, request_raw, request_size, request_sha256, request_truncated",
    "responses": "record_id, request_time, pair_id, response_time, status_code, error, duration_ms,"
    " ttft_ms, generation::text, response_data::text, response_raw, response_size,"
    " response_truncated",
}


class Command:
    """The command in a process of its own, with no more of the environment than it needs."""

    def __init__(self, folder: Path, uri: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minimal_transformer.delivery.dead_letters", *arguments],
            env=environment(POSTGRES_URI=uri, SPOOL_DIR=str(folder / "spool")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and what it wrote on its two outputs."""
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, out, err


def none_left(folder: Path, put_back: str) -> str:
    return f"{put_back} put back; none is left in {folder / 'spool' / 'dead-letter'}.\n"


def put_back(folder: Path, uri: str) -> tuple[int, str, str]:
    return Command(folder, as_role(uri, "transformer")).end()


def execute(uri: str, statement: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(statement.encode())


def refuse(uri: str, *tables: str, name: str = "no_devils") -> None:
    """A rule that is an administrator's own."""
    for table in tables:
        execute(
            uri,
            f"ALTER TABLE inference_{table} ADD CONSTRAINT {name} CHECK (pair_id !~ '^devil')"
            " NOT VALID",
        )


def mend(uri: str, *tables: str, name: str = "no_devils") -> None:
    for table in tables:
        execute(uri, f"ALTER TABLE inference_{table} DROP CONSTRAINT {name}")


def all_rows(uri: str) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: rows(uri, f"SELECT {columns} FROM inference_{table} ORDER BY record_id")
        for table, columns in COLUMNS.items()
    }


def letters(folder: Path) -> list[Path]:
    return sorted((folder / "spool" / "dead-letter").iterdir())


def devils(folder: Path, uri: str, calls: int) -> RecordSettings:
    """So many calls between two others; the requests of all but those are set aside."""
    refuse(uri, "requests")
    chosen = settings(folder, as_role(uri, "transformer"))
    handler = open_recorder(chosen)
    record(handler, 1)
    for number in range(calls):
        respond(handler, request(handler, b"\xff", x_request_id=f"devil-{number}"))
    record(handler, 1)
    deliver(chosen)
    handler.close()
    return chosen


def test_mended_rule(tmp_path: Path, postgres_uri: str) -> None:
    """Each row is, byte for byte, what delivery would have stored; again changes nothing."""
    refuse(postgres_uri, "requests", "responses")
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    record(handler, 1)
    for name, (body, _) in BODIES.items():
        call = request(handler, body, x_request_id=f"devil-{name}", user_agent='ü\t"{}')
        respond(handler, call, body, 500, error="grüße \U0001f600 \\u0000")
    record(handler, 1)
    (segment,) = chosen.spool_folder.glob("*.seg")
    shutil.copy(segment, tmp_path / segment.name)
    deliver(chosen)
    handler.close()
    assert stored(postgres_uri)[:2] == (2, 2)
    (aside,) = letters(tmp_path)
    shutil.copy(aside, tmp_path / aside.name)
    assert put_back(tmp_path, postgres_uri)[0] == 1
    mend(postgres_uri, "requests", "responses")

    count = 2 * len(BODIES)
    assert put_back(tmp_path, postgres_uri) == (0, none_left(tmp_path, f"{count} rows"), "")
    assert letters(tmp_path) == []
    assert stored(postgres_uri) == (len(BODIES) + 2, len(BODIES) + 2, 0)
    found = all_rows(postgres_uri)

    assert put_back(tmp_path, postgres_uri) == (0, none_left(tmp_path, "0 rows"), "")
    shutil.copy(tmp_path / aside.name, aside)
    assert put_back(tmp_path, postgres_uri)[0] == 0
    assert all_rows(postgres_uri) == found

    execute(postgres_uri, "TRUNCATE inference_requests, inference_responses")
    shutil.copy(tmp_path / segment.name, segment)
    deliver(chosen)
    assert all_rows(postgres_uri) == found


def test_still_refused(tmp_path: Path, postgres_uri: str) -> None:
    """What Postgres refuses stays as it is with its newest reason; what it takes goes."""
    devils(tmp_path, postgres_uri, 5)
    (aside,) = letters(tmp_path)
    before = [json.loads(line) for line in aside.read_text().splitlines()]
    mend(postgres_uri, "requests")
    execute(
        postgres_uri,
        "ALTER TABLE inference_requests ADD CONSTRAINT odd CHECK (pair_id !~ '^devil-[024]')",
    )
    code, out, err = put_back(tmp_path, postgres_uri)
    assert (code, err) == (1, "")
    assert out.count("\n") == 1
    assert out.startswith("2 rows put back, 3 still refused: new row for relation ")
    assert 'violates check constraint "odd" (3); kept in ' in out
    after = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [letter["row"] for letter in after] == [before[n]["row"] for n in (0, 2, 4)]
    for letter in after:
        assert (letter["sqlstate"], letter["table"]) == ("23514", "inference_requests")
        assert '"odd"' in letter["reason"]
    assert stored(postgres_uri)[:2] == (4, 7)


def test_reasons_are_few(tmp_path: Path, postgres_uri: str) -> None:
    """A trigger that gives each row a reason of its own makes no endless line."""
    devils(tmp_path, postgres_uri, 12)
    mend(postgres_uri, "requests")
    execute(
        postgres_uri,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION E'not\\n%', NEW.pair_id; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON inference_requests"
        " FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    code, out, _ = put_back(tmp_path, postgres_uri)
    assert code == 1
    assert (
        "12 still refused: not devil-0 (1); not devil-1 (1); not devil-2 (1); other reasons (9)"
        in (out)
    )
    assert out.count("\n") == 1


def test_torn_last_line(tmp_path: Path, postgres_uri: str) -> None:
    """It is kept and said, and takes no row along that is set aside behind it."""
    chosen = devils(tmp_path, postgres_uri, 2)
    (aside,) = letters(tmp_path)
    torn = aside.read_bytes()[:200]
    with aside.open("ab") as file:
        file.write(torn)
    handler = open_recorder(chosen)
    record(handler, 1)
    respond(handler, request(handler, x_request_id="devil-2"))
    record(handler, 1)
    deliver(chosen)
    handler.close()
    with aside.open("ab") as file:
        file.write(torn)
    mend(postgres_uri, "requests")
    code, out, err = put_back(tmp_path, postgres_uri)
    assert (code, out) == (1, f"3 rows put back, 2 damaged lines; kept in {aside.parent}.\n")
    assert err.count(f"A line of {aside} is damaged and stays: ") == 2
    assert aside.read_bytes() == 2 * (torn + b"\n")
    assert stored(postgres_uri) == (7, 7, 0)


def test_last_line_without_its_end(tmp_path: Path, postgres_uri: str) -> None:
    """An editor may have taken the last line break: the row is whole all the same."""
    devils(tmp_path, postgres_uri, 2)
    (aside,) = letters(tmp_path)
    aside.write_bytes(aside.read_bytes().rstrip(b"\n"))
    mend(postgres_uri, "requests")
    assert put_back(tmp_path, postgres_uri)[:2] == (0, none_left(tmp_path, "2 rows"))
    assert stored(postgres_uri) == (4, 4, 0)


@pytest.mark.parametrize(
    "damage",
    [
        (b'"pair_id": "devil-0"', b'"pair_id": 5'),
        (b'"pair_id": "devil-0"', b'"pair_id": "\\ud800"'),
        (b'"sequence": ', b'"sequence": 9999999999999999999'),
        (b'"base64": "', b'"base64": "?'),
        (b'"request_time": "', b'"request_time": "yesterday'),
        (b'"record_id": "', b'"record_id": "0'),
        (b'"record_id"', b'"a_column_of_tomorrow"'),
        (b'"table": "inference_requests"', b'"table": "pg_authid"'),
        (b'"row": {', b'"row": {}, "former": {'),
        (b'{"set_aside_at"', b"[" * 100_000),
        (b'{"set_aside_at"', b"\xff"),
    ],
)
def test_damaged_line(tmp_path: Path, postgres_uri: str, damage: tuple[bytes, bytes]) -> None:
    """It stays byte for byte, whatever is wrong with it, and the others go."""
    devils(tmp_path, postgres_uri, 2)
    (aside,) = letters(tmp_path)
    first, second = aside.read_bytes().splitlines(keepends=True)
    damaged = first.replace(*damage, 1)
    assert damaged != first
    aside.write_bytes(damaged + b"\n" + second)
    mend(postgres_uri, "requests")
    code, out, _ = put_back(tmp_path, postgres_uri)
    assert code == 1
    assert out.startswith("1 row put back, 1 ")
    if b'"row": {}' not in damaged:  # that one is sound, but not a row that Postgres takes
        assert aside.read_bytes() == damaged
    assert stored(postgres_uri)[:2] == (3, 4)


def test_no_database(tmp_path: Path, postgres_uri: str) -> None:
    """One line with the remedy; what was set aside is as it was."""
    devils(tmp_path, postgres_uri, 2)
    (aside,) = letters(tmp_path)
    before = aside.read_bytes()
    code, out, err = Command(tmp_path, NOWHERE).end()
    assert (code, out) == (1, "")
    assert err.startswith(f"Postgres does not take the rows, they stay in {aside.parent}: ")
    assert "look at the server and at the host and port in POSTGRES_URI" in err
    assert err.count("\n") == 1
    assert letters(tmp_path) == [aside]
    assert aside.read_bytes() == before


def test_wrong_settings(tmp_path: Path) -> None:
    """A start without its settings names them, one with an argument is none."""
    code, _, err = Command(tmp_path, "").end()
    assert code == 1
    assert err.startswith("POSTGRES_URI is not a connection URI")
    assert Command(tmp_path, NOWHERE, "--all").end()[0] == 2
    code, out, _ = Command(tmp_path, NOWHERE).end()
    assert (code, out) == (0, none_left(tmp_path, "0 rows"))


def frames_of(folder: Path, calls: int) -> Iterator[Frame]:
    """The request rows of so many calls, as delivery reads them."""
    handler = open_recorder(settings(folder))
    for _ in range(calls):
        request(handler)
    handler.close()
    reader = Reader(folder / "spool")
    while batch := reader.next_batch(100, 1 << 20):
        yield from batch


def test_rows_are_set_aside_meanwhile(tmp_path: Path, postgres_uri: str) -> None:
    """Delivery appends to the file that is put back: each row is in its table in the end, and
    after each run in its table or in a file.
    """
    spool = tmp_path / "spool"
    frames = list(frames_of(tmp_path / "source", 400))
    spool.mkdir()
    error = psycopg.errors.CheckViolation("a rule of yesterday's")
    for frame in frames[:50]:
        set_aside(spool, frame, error)

    def append() -> None:
        for frame in frames[50:]:
            set_aside(spool, frame, error)

    delivery = threading.Thread(target=append)
    with psycopg.connect(postgres_uri) as administrator:
        administrator.execute("LOCK TABLE inference_requests IN ACCESS EXCLUSIVE MODE")
        command = Command(tmp_path, as_role(postgres_uri, "transformer"))
        until(
            lambda: rows(
                postgres_uri,
                "SELECT pid FROM pg_stat_activity WHERE usename = 'transformer'"
                " AND datname = current_database() AND wait_event_type = 'Lock'",
            ),
            "the command to be amid a row",
        )
        # Delivery does not wait for a command that Postgres holds up.
        set_aside(spool, frames[0], error)
        delivery.start()
    runs = [command.end()]
    while delivery.is_alive():
        runs.append(put_back(tmp_path, postgres_uri))
    delivery.join()
    runs.append(put_back(tmp_path, postgres_uri))
    assert [(code, err) for code, _, err in runs] == [(0, "")] * len(runs)
    assert sum(int(out.split()[0]) for _, out, _ in runs) == len(frames) + 1
    assert letters(tmp_path) == []
    assert stored(postgres_uri) == (400, 0, 0)


@pytest.mark.parametrize("is_taken_back", [False, True])
def test_line_that_is_being_written(tmp_path: Path, postgres_uri: str, is_taken_back: bool) -> None:
    """The command waits for its end; what a full disk has not taken whole, delivery writes anew."""
    devils(tmp_path, postgres_uri, 3)
    mend(postgres_uri, "requests")
    (aside,) = letters(tmp_path)
    *former, last = aside.read_bytes().splitlines(keepends=True)
    start = len(b"".join(former))
    aside.write_bytes(b"".join(former) + last[:-100])
    with aside.open("ab", buffering=0) as delivery:
        fcntl.flock(delivery, fcntl.LOCK_EX)
        command = Command(tmp_path, as_role(postgres_uri, "transformer"))
        until(lambda: stored(postgres_uri)[:2] == (4, 5), "the rows before it")
        with pytest.raises(subprocess.TimeoutExpired):
            command.process.wait(2)
        if is_taken_back:
            delivery.truncate(start)
            delivery.write(last.replace(b'"reason": "', b'"reason": "again, '))
        else:
            delivery.write(last[-100:])
    assert command.end() == (0, none_left(tmp_path, "3 rows"), "")
    assert stored(postgres_uri) == (5, 5, 0)


@pytest.mark.parametrize("what_stays", [b"", b"another line\n"])
def test_file_that_is_being_replaced(tmp_path: Path, what_stays: bytes) -> None:
    """Delivery, which waits for the end of it, appends to the file that there is then."""
    first, second = frames_of(tmp_path / "source", 2)
    error = psycopg.errors.CheckViolation("a rule")
    set_aside(tmp_path, first, error)
    (path,) = (tmp_path / "dead-letter").iterdir()
    beside = path.with_name("beside")
    beside.write_bytes(what_stays)
    with path.open("r+b") as command:
        fcntl.flock(command, fcntl.LOCK_EX)
        delivery = threading.Thread(target=set_aside, args=(tmp_path, second, error))
        delivery.start()
        until(lambda: descriptors_of(path) == 2, "delivery to open the file")
        if what_stays:
            beside.replace(path)
        else:
            path.unlink()
    delivery.join()
    (line,) = path.read_bytes().removeprefix(what_stays).splitlines()
    assert path.read_bytes().startswith(what_stays)
    assert json.loads(line)["row"]["sequence"] == 2


def descriptors_of(path: Path) -> int:
    """How often this process has the file open."""
    found = 0
    for descriptor in range(256):
        with contextlib.suppress(OSError):
            found += os.path.samestat(os.fstat(descriptor), path.stat())
    return found


def test_delivery_sets_aside_meanwhile(tmp_path: Path, postgres_uri: str) -> None:
    """The two processes at once, with a rule that still refuses some: no row is lost."""
    refuse(postgres_uri, "requests")
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    delivery = deliver_from(handler, chosen)
    try:
        for number in range(40):
            record(handler, 10)
            respond(handler, request(handler, x_request_id=f"devil-{number}"))
            if number % 10 == 9:
                assert put_back(tmp_path, postgres_uri)[2] == ""
        until(lambda: stored(postgres_uri)[:2] == (400, 440), "the other rows")
    finally:
        delivery.stop(90)
        handler.close()
    waiting = [line for path in letters(tmp_path) for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["row"]["pair_id"] for line in waiting) == sorted(
        f"devil-{number}" for number in range(40)
    )
    mend(postgres_uri, "requests")
    assert put_back(tmp_path, postgres_uri) == (0, none_left(tmp_path, "40 rows"), "")
    assert stored(postgres_uri) == (440, 440, 0)


def test_two_runs(tmp_path: Path, postgres_uri: str) -> None:
    """A second run leaves a file to the first; what a killed one left behind is in nobody's way."""
    devils(tmp_path, postgres_uri, 2)
    mend(postgres_uri, "requests")
    (aside,) = letters(tmp_path)
    before = aside.read_bytes()
    beside = aside.with_name(aside.name + ".staying")
    with beside.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b"half a li")
        code, _, err = put_back(tmp_path, postgres_uri)
        assert (code, err) == (
            1,
            f"The rows stay in {aside.parent}: another run is putting back {aside}; let it end.\n",
        )
        assert aside.read_bytes() == before
    assert put_back(tmp_path, postgres_uri)[0] == 0
    assert letters(tmp_path) == []
    assert stored(postgres_uri) == (4, 4, 0)


def test_former_days(tmp_path: Path, postgres_uri: str) -> None:
    """All files of the folder are put back, and damaged segments there stay what they are."""
    devils(tmp_path, postgres_uri, 2)
    mend(postgres_uri, "requests")
    (aside,) = letters(tmp_path)
    assert aside.name <= f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
    first, second = aside.read_bytes().splitlines(keepends=True)
    aside.write_bytes(first)
    (aside.parent / "2026-01-01.jsonl").write_bytes(second)
    segment = aside.parent / "00-00000001.seg.corrupt"
    segment.write_bytes(b"spool")
    assert put_back(tmp_path, postgres_uri)[:2] == (0, none_left(tmp_path, "2 rows"))
    assert letters(tmp_path) == [segment]
