"""Retention: partitions ahead, old days dropped, at any time and twice at once."""

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from embedded_postgres import as_role
from shadow_report import OneLineError, SettingWrong
from shadow_report.maintain import keep_of, maintain

# What they count are days from today on.
pytestmark = pytest.mark.usefixtures("one_day")

PARTITIONS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'inference_requests'::regclass"


@pytest.fixture
def postgres_uri(postgres_uri: str) -> str:
    """With the partitions of today: the template may be of before midnight."""
    maintain(postgres_uri, None, 7)
    return postgres_uri


def command(uri: str, *options: str) -> subprocess.Popen[str]:
    """`shadow-report maintain` as a process of its own."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("shadow-report"), "maintain", *options],
        env={**os.environ, "POSTGRES_URI": uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def insert_call(uri: str, time: datetime, sequence: int = 1) -> None:
    with psycopg.connect(uri) as connection:
        connection.execute(
            "INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence,"
            " pair_id, pair_source, role, inference_service, model_name, protocol, predict_url,"
            " request_headers, request_size, request_sha256) VALUES (%s, %s, %s, %s, 'p',"
            " 'generated', 'primary', 's', 'model', 'v1', '/', '{}', 0, '')",
            (uuid.uuid4(), time, uuid.UUID(int=7), sequence),
        )


def scalar(uri: str, query: str) -> int:
    with psycopg.connect(uri) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_makes_partitions_ahead_once(postgres_uri: str) -> None:
    """Each run ends with the partitions of the coming days; a second run does nothing."""
    uri = as_role(postgres_uri, "maintenance")
    made = maintain(uri, timedelta(days=30), 9)
    assert {action.action for action in made} == {"created"}
    # The schema makes 7 days ahead; two more days of two tables are new.
    assert len(made) == 4
    assert maintain(uri, timedelta(days=30), 9) == []


def test_drops_only_days_that_ended_before_keep(postgres_uri: str) -> None:
    """A day is dropped when all of it is older than `keep`, and its rows with it; others stay."""
    uri = as_role(postgres_uri, "maintenance")
    now = datetime.now(UTC)
    insert_call(postgres_uri, now - timedelta(days=40), 1)
    insert_call(postgres_uri, now - timedelta(days=2), 2)
    insert_call(postgres_uri, now, 3)
    created = maintain(uri, None, 7)
    assert [a.moved_rows for a in created if a.partition.startswith("inference_requests")] == [1, 1]
    assert scalar(postgres_uri, "SELECT count(*) FROM inference_requests") == 3

    dropped = maintain(uri, timedelta(days=30), 7)
    day = f"{now - timedelta(days=40):%Y%m%d}"
    assert [str(a) for a in dropped] == [f"dropped inference_requests_{day}"]
    assert scalar(postgres_uri, "SELECT count(*) FROM inference_requests") == 2
    # Retention is not loss: the numbering's start moved on.
    assert scalar(postgres_uri, "SELECT count(*) FROM inference_gaps") == 0


def test_two_processes_at_once_do_it_once(postgres_uri: str) -> None:
    """Started together, every partition is made by exactly one of them and none fails."""
    uri = as_role(postgres_uri, "maintenance")
    before = scalar(postgres_uri, PARTITIONS)
    runs = [command(uri, "--keep", "30d", "--ahead", "12") for _ in range(3)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    lines = [line for output in outputs for line in output.splitlines()]
    made = [line for line in lines if line.startswith("created ")]
    assert len(made) == len(set(made)) == 10
    assert lines.count("nothing to do") == 2
    assert scalar(postgres_uri, PARTITIONS) == before + 5


def test_says_what_it_did_line_by_line(postgres_uri: str) -> None:
    """The command prints one line per partition, and says so when there was nothing to do."""
    uri = as_role(postgres_uri, "maintenance")
    first, _ = command(uri, "--keep", "4w", "--ahead", "8").communicate(timeout=60)
    day = f"{datetime.now(UTC) + timedelta(days=8):%Y%m%d}"
    assert first.splitlines() == [
        f"created inference_requests_{day}",
        f"created inference_responses_{day}",
    ]
    second, _ = command(uri, "--keep", "4w", "--ahead", "8").communicate(timeout=60)
    assert second == "nothing to do\n"


@pytest.mark.parametrize("keep", ["12h", "0d", "23h59m", "soon", "", "-3d", "30"])
def test_refuses_a_senseless_keep(keep: str) -> None:
    """Less than a day, or no length of time, is refused with the right form."""
    with pytest.raises(SettingWrong, match=r"--keep is"):
        keep_of(keep)


def test_keeps_weeks_and_days() -> None:
    """Without --keep nothing is ever dropped."""
    assert [keep_of(text) for text in ("4w", "1d", None)] == [
        timedelta(days=28),
        timedelta(days=1),
        None,
    ]


def test_waits_for_readers_and_gives_up_in_one_line(postgres_uri: str) -> None:
    """While a reader holds the tables nothing is changed; afterwards the same call succeeds."""
    uri = as_role(postgres_uri, "maintenance")
    said: list[str] = []
    with psycopg.connect(postgres_uri) as reader:
        reader.execute("SELECT count(*) FROM inference_requests").fetchone()
        with pytest.raises(OneLineError, match="run it again later"):
            maintain(uri, None, 9, attempts=1, say=said.append)
    assert len(maintain(uri, None, 9)) == 4


def test_says_what_is_missing(empty_postgres_uri: str, postgres_uri: str) -> None:
    """No schema, a wrong role, no server, no URI: one line with the remedy and an exit code."""
    cases = {
        empty_postgres_uri: (1, "make schema"),
        as_role(postgres_uri, "transformer"): (1, "connect as the role maintenance, or,"),
        "postgresql://someone:secret@127.0.0.1:1/db": (1, "check the host and the port"),
        "": (2, "POSTGRES_URI is not set"),
    }
    runs = {uri: command(uri, "--keep", "30d") for uri in cases}
    for uri, (code, remedy) in cases.items():
        _, said = runs[uri].communicate(timeout=60)
        assert remedy in said
        assert runs[uri].returncode == code
        assert "secret" not in said
        assert len(said.splitlines()) == 1
