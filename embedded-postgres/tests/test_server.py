"""Promises of the embedded server that every other project's tests stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from embedded_postgres import Postgres, PostgresFailed, apply_schema, as_role, binaries


def test_data_survive_a_kill(own_postgres: Postgres) -> None:
    """What was committed is there after SIGKILL and a start on the same port."""
    with psycopg.connect(own_postgres.uri) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    port = own_postgres.port
    own_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_postgres.uri, connect_timeout=2)
    own_postgres.start()
    assert own_postgres.port == port
    with psycopg.connect(own_postgres.uri) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_a_server_that_is_not_durable_keeps_what_is_committed_all_the_same(tmp_path: Path) -> None:
    """It alone does not wait for the disk, and a kill of it costs nothing either."""
    server = Postgres(tmp_path / "data", durable=False)
    server.start()
    try:
        with psycopg.connect(server.uri) as connection:
            connection.execute("CREATE TABLE kept AS SELECT current_setting('fsync') AS waits")
        server.kill()
        server.start()
        with psycopg.connect(server.uri) as connection:
            assert connection.execute("SELECT waits FROM kept").fetchone() == ("off",)
    finally:
        server.stop()


@pytest.fixture
def programs() -> Iterator[Path]:
    """The binaries in a folder where nothing was kept yet, and which initdb may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        link = Path(folder) / "bin"
        link.symlink_to(binaries())
        yield link


def identifier(folder: Path, programs: Path) -> int:
    """What initdb drew for the server whose data are in `folder`."""
    server = Postgres(folder)
    server.bin = programs
    server.start()
    try:
        with psycopg.connect(server.uri) as connection:
            found = connection.execute("SELECT system_identifier FROM pg_control_system()")
            return int(found.fetchall()[0][0])
    finally:
        server.stop()


def test_initdb_runs_once(tmp_path: Path, programs: Path) -> None:
    """Later servers begin with a copy of what it made: it would take a second each time."""
    first = identifier(tmp_path / "first", programs)
    assert identifier(tmp_path / "second", programs) == first
    assert {path.name for path in programs.parent.iterdir()} == {"bin", "initialised"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"first", "second"}


@pytest.mark.parametrize("kept", ["a file", "half a folder"])
def test_without_a_first_that_can_be_copied_initdb_runs(
    tmp_path: Path, programs: Path, kept: str
) -> None:
    """Nobody's half of a folder becomes a server's."""
    first, copying = programs.with_name("initialised"), tmp_path / "data-new"
    if kept == "a file":
        first.touch()
    else:
        copying.mkdir()
        (copying / "PG_VERSION").write_text("18")
    assert identifier(tmp_path / "data", programs)
    assert not copying.exists()


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/else").touch()
    with pytest.raises(PostgresFailed, match=r"data is not a folder of Postgres: .*not empty"):
        Postgres(tmp_path / "data").start()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_works_below_a_folder_that_only_its_owner_may_enter(tmp_path: Path) -> None:
    """A clone under /root or a private temporary folder runs as it is; no mode is changed."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = Postgres(private / "data")
    server.start()
    try:
        with psycopg.connect(server.uri) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert private.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_ends_with_a_killed_parent(tmp_path: Path) -> None:
    """No server is left behind when the process that started it is killed."""
    program = (
        "import sys, time; from pathlib import Path; from embedded_postgres import Postgres\n"
        "server = Postgres(Path(sys.argv[1])); server.start()\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(1200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("Postgres outlived the process that started it")


def test_each_test_has_a_database_of_its_own(postgres_uri: str, empty_postgres_uri: str) -> None:
    """Databases differ; one has the schema and the other nothing."""
    assert postgres_uri != empty_postgres_uri
    tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'inference_requests'"
    with psycopg.connect(postgres_uri) as connection:
        assert connection.execute(tables).fetchone() == (1,)
    with psycopg.connect(empty_postgres_uri) as connection:
        assert connection.execute(tables).fetchone() == (0,)


def test_a_role_logs_in_with_its_own_rights(empty_postgres_uri: str) -> None:
    apply_schema(empty_postgres_uri)
    with psycopg.connect(as_role(empty_postgres_uri, "report")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("report",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM inference_requests")


def test_a_frozen_server_is_frozen_whole(own_postgres: Postgres) -> None:
    """SIGSTOP stops a session that is open already; SIGCONT lets it go on."""
    with psycopg.connect(own_postgres.uri) as connection:
        query = threading.Thread(target=connection.execute, args=("SELECT 1",))
        own_postgres.send_signal(signal.SIGSTOP)
        query.start()
        query.join(1)
        was_waiting = query.is_alive()
        own_postgres.send_signal(signal.SIGCONT)
        query.join()
    assert was_waiting


def test_a_standby_follows_and_is_read_only(tmp_path: Path) -> None:
    """What the primary commits can be read there, and nothing can be written."""
    primary = Postgres(tmp_path / "primary")
    primary.start()
    standby = primary.standby(tmp_path / "standby")
    standby.start()
    try:
        with psycopg.connect(primary.uri, autocommit=True) as connection:
            connection.execute("CREATE TABLE followed (n integer)")
            row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        replayed = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        with psycopg.connect(standby.uri, autocommit=True) as connection:
            while connection.execute(replayed, row).fetchone() != (True,):
                time.sleep(0.05)
            assert connection.execute("SELECT count(*) FROM followed").fetchone() == (0,)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("INSERT INTO followed VALUES (1)")
    finally:
        standby.stop()
        primary.stop()
