"""Ctrl-C at any moment: one line, exit 130, and no session left behind in Postgres."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from traffic import pairs, record

from embedded_postgres import Postgres, as_role

SHADOW_REPORT = str(Path(sys.executable).with_name("shadow-report"))
# What a shell script starts in the background ignores SIGINT, and so do its children.
AS_BACKGROUND_JOB = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
WAITING = "wait_event_type = 'Lock'"
LINES = ["shadow-report: Interrupted."]


@contextmanager
def waiting_compare(server: Postgres, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A comparison that waits for a lock in the middle of its queries."""
    record(server.uri, pairs(10))
    with psycopg.connect(server.uri) as blocker:
        blocker.execute("LOCK TABLE inference_responses IN ACCESS EXCLUSIVE MODE")
        with subprocess.Popen(
            [*prefix, SHADOW_REPORT, "compare"],
            env=os.environ | {"POSTGRES_URI": as_role(server.uri, "report")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                while not sessions(server, WAITING):
                    assert process.poll() is None
                    time.sleep(0.05)
                yield process
            finally:
                process.kill()


def sessions(server: Postgres, condition: str = "true") -> int:
    """The report's sessions in Postgres."""
    with psycopg.connect(server.uri, autocommit=True) as watcher:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            f" WHERE application_name = 'shadow-report' AND {condition}"
        )
        return int(watcher.execute(query).fetchall()[0][0])  # type: ignore[arg-type]


def until_no_session(server: Postgres) -> None:
    while sessions(server):
        time.sleep(0.05)


@pytest.mark.parametrize("prefix", [(), AS_BACKGROUND_JOB], ids=["foreground", "background"])
def test_ctrl_c_ends_a_waiting_query(own_postgres: Postgres, prefix: tuple[str, ...]) -> None:
    """SIGINT ends the query too, also where a shell had the signal ignored."""
    with waiting_compare(own_postgres, *prefix) as process:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 130
        assert error.splitlines() == LINES
        until_no_session(own_postgres)


def test_a_killed_comparison_leaves_no_session(own_postgres: Postgres) -> None:
    """After kill -9 Postgres notices, while the query still waits for its lock."""
    with waiting_compare(own_postgres) as process:
        process.kill()
        process.wait()
        until_no_session(own_postgres)


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "scipy":
            {interrupt}

sys.meta_path.insert(0, Interrupting())
from shadow_report.__main__ import main
main()
"""
ONCE = "os.kill(os.getpid(), signal.SIGINT)"
SWALLOWED = """
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("interrupt", [ONCE, SWALLOWED], ids=["once", "twice"])
def test_ctrl_c_during_the_imports_is_one_line(interrupt: str) -> None:
    """Nothing is read yet; a second Ctrl-C ends what swallowed the first."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT.format(interrupt=interrupt), "compare"],
        env=os.environ | {"POSTGRES_URI": "postgresql://127.0.0.1:9/x"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr.splitlines() == LINES
