"""The delivery process: one per folder, outlives no transformer, drains for a bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import psycopg
import pytest
from delivering import (
    NOWHERE,
    WAIT_SECONDS,
    Delivery,
    deliver_from,
    figures,
    record,
    rows,
    segments,
    settings,
    stored,
)
from serving import until

from embedded_postgres import as_role
from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.recording.rows import COLUMNS
from minimal_transformer.spool.format import Kind


def test_second_process_waits_and_takes_over(tmp_path: Path, postgres_uri: str) -> None:
    """Of two on a folder one works; when it is killed the other goes on where it was."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = PredictionDBHandler(chosen)
    record(handler, 100)
    with Delivery(chosen, tmp_path / "first") as first:
        until(lambda: stored(postgres_uri) == (100, 100, 0), "the first hundred")
        with Delivery(chosen, tmp_path / "second") as second:
            time.sleep(1)
            backends = rows(
                postgres_uri,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'minimal-transformer'",
            )
            assert backends == [(1,)]
            first.process.kill()
            record(handler, 100)
            until(lambda: stored(postgres_uri) == (200, 200, 0), "the second hundred")
            handler.close()
            assert second.drain(90) == 0


def test_first_rows_are_delivered_by_an_order_to_drain(tmp_path: Path, postgres_uri: str) -> None:
    """The spool's folder was made after the last look for it, and the server stops at once."""
    chosen = settings(tmp_path, postgres_uri)
    with Delivery(chosen, tmp_path / "log") as delivery:
        time.sleep(2)  # by now it waits for a folder to lock; where it does not, all is well too
        handler = PredictionDBHandler(chosen)
        handler.open()
        assert record(handler, 5) == 5
        handler.close()
        assert delivery.drain(90) == 0
    assert stored(postgres_uri) == (5, 5, 0)


def test_kill_9_of_delivery_under_load(tmp_path: Path, postgres_uri: str) -> None:
    """Killed again and again at any moment, it is started again; no row is lost or doubled."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = PredictionDBHandler(chosen)
    handler.open()
    delivery = deliver_from(handler, chosen)
    try:
        killed = 0
        recorded = 0
        while killed < 4:
            recorded += record(handler, 500)
            if pid := delivery.pid:
                until(lambda: stored(postgres_uri)[0] > recorded - 500, "some of them")  # noqa: B023
                os.kill(pid, signal.SIGKILL)
                killed += 1
                until(lambda: delivery.pid not in (None, pid), "a new process")
        until(lambda: stored(postgres_uri) == (recorded, recorded, 0), "all rows")
        until(lambda: figures(handler)["prediction_db_spool_bytes"] == 0, "an empty spool")
    finally:
        delivery.stop(90)
    assert delivery.pid is None


def test_drain_is_bounded_and_leaves_the_rest(tmp_path: Path, postgres_uri: str) -> None:
    """Without Postgres the end comes in time; the next start delivers what was left."""
    away = settings(tmp_path, NOWHERE)
    handler = PredictionDBHandler(away)
    handler.open()
    delivery = deliver_from(handler, away)
    assert record(handler, 50) == 50
    handler.close()
    delivery.stop(1)
    assert list(segments(tmp_path))
    back = settings(tmp_path, as_role(postgres_uri, "transformer"))
    again = deliver_from(PredictionDBHandler(back), back)
    until(lambda: stored(postgres_uri) == (50, 50, 0), "what was left")
    again.stop(90)
    assert not list(segments(tmp_path))


TRANSFORMER = """
import os, sys, time
from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.settings import RecordSettings
sys.path.insert(0, sys.argv[1])
from delivering import deliver_from, record
chosen = RecordSettings.from_environment()
handler = PredictionDBHandler(chosen)
handler.open()
delivery = deliver_from(handler, chosen)
while delivery.pid is None:
    time.sleep(0.01)
print(delivery.pid, flush=True)
record(handler, int(sys.argv[2]))
print("recorded", flush=True)
time.sleep(600)
"""


def test_death_of_the_transformer_ends_delivery(tmp_path: Path, postgres_uri: str) -> None:
    """kill -9 of the main process: all is delivered, and no process stays behind."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", TRANSFORMER, here, "2000"],
        stdout=subprocess.PIPE,
        env=os.environ | chosen.as_environment() | {"TMPDIR": str(tmp_path)},
    ) as main:
        assert main.stdout is not None
        delivery_pid = int(main.stdout.readline())
        assert main.stdout.readline() == b"recorded\n"
        main.kill()
    until(lambda: not is_running(delivery_pid), "the end of the delivery process")
    assert stored(postgres_uri) == (2000, 2000, 0)
    assert not list(segments(tmp_path))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path: Path, postgres_uri: str, number: signal.Signals) -> None:
    """Ctrl-C is the transformer's to answer; SIGTERM drains and ends."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = PredictionDBHandler(chosen)
    record(handler, 10)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: stored(postgres_uri) == (10, 10, 0), "the first rows")
        record(handler, 10)
        delivery.process.send_signal(number)
        until(lambda: stored(postgres_uri) == (20, 20, 0), "the other rows")
        handler.close()
        if number == signal.SIGTERM:
            assert delivery.process.wait(WAIT_SECONDS) == 0
        else:
            assert delivery.process.poll() is None


def test_bad_settings_end_it_with_the_remedy(tmp_path: Path) -> None:
    """A wrong variable is named, with what to set it to."""
    environment = os.environ | {"SHADOW_ROLE": "blue", "POSTGRES_URI": "x:secret@y"}
    answer = subprocess.run(
        [sys.executable, "-m", "minimal_transformer.delivery"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert answer.returncode == 2
    assert b"SHADOW_ROLE is 'blue'; set it to 'primary' or 'shadow'." in answer.stderr
    assert b"secret" not in answer.stderr


def test_folder_that_comes_late(tmp_path: Path, postgres_uri: str) -> None:
    """It waits for a spool folder that is not there yet."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    with Delivery(chosen, tmp_path / "log"):
        time.sleep(0.5)
        record(PredictionDBHandler(chosen), 5)
        until(lambda: stored(postgres_uri) == (5, 5, 0), "the rows")


def commits(uri: str) -> int:
    """How many transactions the database has seen, the test's own too."""
    query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    return int(rows(uri, query)[0][0])


def test_spool_that_turns_read_only_is_delivered(tmp_path: Path, postgres_uri: str) -> None:
    """A folder that nothing can be deleted from is read once, and not sent again and again."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = PredictionDBHandler(chosen)
    record(handler, 100)
    handler.close()
    (path,) = segments(tmp_path)
    # Root ignores modes; an immutable file is what root cannot delete either.
    immutable = subprocess.run(["chattr", "+i", path], check=False, capture_output=True)
    try:
        with Delivery(chosen, tmp_path / "log") as delivery:
            until(lambda: stored(postgres_uri) == (100, 100, 0), "the rows")
            before = commits(postgres_uri)
            time.sleep(2)  # a server counts a session's commits once a second
            assert commits(postgres_uri) - before < 20
            assert delivery.drain(90) == 0
    finally:
        subprocess.run(["chattr", "-i", path], check=False, capture_output=True)
    if immutable.returncode == 0:
        assert delivery.log.count(str(path)) == 1


def test_rows_of_a_recorder_arrive_in_order(tmp_path: Path, postgres_uri: str) -> None:
    """What is in the tables of a recorder is at any time the beginning of what it recorded."""
    chosen = settings(
        tmp_path, as_role(postgres_uri, "transformer"), spool_max_bytes=4 * 1024 * 1024
    )
    handler = PredictionDBHandler(chosen)
    with Delivery(chosen, tmp_path / "log"):
        for number in range(20):
            assert record(handler, 200, b"x" * 500) == 200
            assert stored(postgres_uri)[2] == 0
            # The spool has room for some of these rounds, not for all.
            behind = 200 * (number - 4)
            until(lambda behind=behind: stored(postgres_uri)[0] >= behind, "room on the spool")
        until(lambda: stored(postgres_uri) == (4000, 4000, 0), "all rows")


def test_encoded_columns_are_the_tables(postgres_uri: str, tmp_path: Path) -> None:
    """Every column of the schema but created_at is recorded, and the stage has the same ones."""
    tables = {Kind.REQUEST: "inference_requests", Kind.RESPONSE: "inference_responses"}
    with psycopg.connect(postgres_uri) as connection:
        for kind, table in tables.items():
            found = connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table]
            ).fetchall()
            assert {name for (name,) in found} - {"created_at"} == {n for n, _ in COLUMNS[kind]}
    sql = resources.files("minimal_transformer.delivery") / "sql"
    stage = (sql / "make_stage.sql").read_text()
    for kind, table in tables.items():
        columns = [name for name, _ in COLUMNS[kind]]
        copied = (sql / f"copy_{table.removeprefix('inference_')}.sql").read_text()
        names = copied.split("(")[1].split(")")[0].split(",")
        assert [name.strip() for name in names] == columns
        made = stage.split(f"stage_{table.removeprefix('inference_')} (")[1].split(") ON COMMIT")[0]
        lines = [line.split() for line in made.splitlines() if line.strip()[:2] not in ("", "--")]
        assert [words[0] for words in lines] == columns


def test_memory_stays_small_through_an_outage(tmp_path: Path) -> None:
    """With 100 MB waiting and no Postgres, the process holds one batch."""
    chosen = settings(tmp_path, NOWHERE)
    handler = PredictionDBHandler(chosen)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(
            lambda: (tmp_path / "spool" / "delivery.lock").exists() or record(handler, 1), "start"
        )
        record(handler, 10_000, b"x" * 10_000)
        until(lambda: "does not take" in delivery.log, "the complaint")
        time.sleep(2)
        status = Path(f"/proc/{delivery.process.pid}/status").read_text()
        resident_kb = int(status.split("VmRSS:")[1].split()[0])
        assert resident_kb < 120_000
