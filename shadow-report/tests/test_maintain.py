"""Retention: partitions ahead, old days dropped, at any time and twice at once."""

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import typer
from embedded_postgres import as_role
from typer.testing import CliRunner

from shadow_report.durations import parse_duration
from shadow_report.errors import OneLineError
from shadow_report.maintain import maintain, maintain_command

app = typer.Typer()
app.command()(maintain_command)

PARTITIONS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'inference_requests'::regclass"


def insert_call(uri: str, time: datetime, sequence: int = 1) -> None:
    with psycopg.connect(uri) as connection:
        connection.execute(
            "INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,"
            " pair_source, role, inference_service, model_name, protocol, predict_url,"
            " request_headers, request_size, request_sha256)"
            " VALUES (%s, %s, %s, %s, 'p', 'generated', 'primary', 's', 'model', 'v1', '/', '{}', 0, '')",
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
    program = "import typer; from shadow_report.maintain import maintain_command as c; typer.run(c)"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, "--keep", "30d", "--ahead", "12"],
            env={**os.environ, "POSTGRES_URI": uri},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    lines = [line for output in outputs for line in output.splitlines()]
    made = [line for line in lines if line.startswith("created ")]
    assert len(made) == len(set(made)) == 10
    assert lines.count("nothing to do") == 2
    assert scalar(postgres_uri, PARTITIONS) == 14


def test_says_what_it_did_line_by_line(postgres_uri: str) -> None:
    """The command prints one line per partition, and says so when there was nothing to do."""
    environment = {"POSTGRES_URI": as_role(postgres_uri, "maintenance")}
    first = CliRunner().invoke(app, ["--keep", "4w", "--ahead", "8"], env=environment)
    assert first.exit_code == 0
    day = f"{datetime.now(UTC) + timedelta(days=8):%Y%m%d}"
    assert first.stdout.splitlines() == [
        f"created inference_requests_{day}",
        f"created inference_responses_{day}",
    ]
    second = CliRunner().invoke(app, ["--keep", "4w", "--ahead", "8"], env=environment)
    assert second.stdout == "nothing to do\n"


@pytest.mark.parametrize("keep", ["12h", "0d", "23h59m", "soon", "", "-3d", "30"])
def test_refuses_a_senseless_keep(keep: str) -> None:
    """Less than a day, or no length of time, is a usage error and touches nothing."""
    result = CliRunner().invoke(app, ["--keep", keep], env={"POSTGRES_URI": "postgresql://nowhere"})
    assert result.exit_code == 2
    assert "--keep" in result.stderr


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
    """No schema, a wrong role, no server, no URI: one line with the remedy, exit code 1."""
    cases = {
        empty_postgres_uri: "make schema",
        as_role(postgres_uri, "transformer"): "connect as the role maintenance",
        "postgresql://someone:secret@127.0.0.1:1/db": "check POSTGRES_URI",
        "": "POSTGRES_URI is not set",
    }
    for uri, remedy in cases.items():
        result = CliRunner().invoke(app, ["--keep", "30d"], env={"POSTGRES_URI": uri})
        assert result.exit_code == 1
        assert remedy in result.stderr
        assert "secret" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30d", 30), ("4w", 28), ("36h", 1.5), ("1d12h", 1.5), (" 2D ", 2), ("1440m", 1)],
)
def test_durations(text: str, expected: float) -> None:
    """Weeks, days, hours, minutes and seconds, alone or together."""
    assert parse_duration(text) == timedelta(days=expected)


def test_durations_refuse_what_no_clock_holds() -> None:
    """A length past Python's own limit is refused like any other nonsense."""
    with pytest.raises(ValueError, match="no length of time"):
        parse_duration("9999999999999w")
