"""Where the fixtures get their server from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from embedded_postgres import Postgres, as_role


class NoImages(BaseHTTPRequestHandler):
    """A Docker engine that has no image and reaches no registry."""

    def do_GET(self) -> None:
        if self.path.endswith("/version"):
            self.answer(200, {"ApiVersion": "1.41"})
        else:
            self.answer(404, {"message": f"No such image: {self.path}"})

    def do_POST(self) -> None:
        self.answer(500, {"message": "the registry does not answer"})

    def answer(self, status: int, document: dict[str, str]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads what pytest prints."""


@pytest.fixture
def engine_without_images() -> Iterator[str]:
    """Its DOCKER_HOST."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NoImages) as server:
        Thread(target=server.serve_forever).start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()


def run_one_test(**variables: str) -> str:
    """What pytest prints for a test that uses the session's server; the test has to pass."""
    environment = {name: value for name, value in os.environ.items() if name != "POSTGRES_URI"}
    ours = Path(__file__).with_name("test_server.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"{ours}::test_a_role_logs_in_with_its_own_rights"],
        cwd=ours.parents[1],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_engine_that_gives_no_image_is_named_in_one_line(engine_without_images: str) -> None:
    """The tests run on the embedded server, and the engine's reason is printed."""
    printed = run_one_test(DOCKER_HOST=engine_without_images)
    assert printed.count("the registry does not answer") == 1
    assert "The Docker engine gave no postgres:18 (" in printed
    assert "); the tests used the embedded Postgres." in printed


def test_without_an_engine_nothing_is_said(tmp_path: Path) -> None:
    """No engine is the ordinary case."""
    printed = run_one_test(DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")
    assert "Docker" not in printed


def test_a_role_gets_the_password_of_the_servers_uri(own_postgres: Postgres) -> None:
    """Where the server asks for passwords, as a container's does, a role's URI has one."""
    password = "p@ss/w:rd"
    with psycopg.connect(own_postgres.uri, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE postgres PASSWORD '{password}'")
        access = own_postgres.folder / "pg_hba.conf"
        access.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        connection.execute("SELECT pg_reload_conf()")
    while _trusts(own_postgres.uri):
        pass
    uri = as_role(make_conninfo(own_postgres.uri, password=password), "report")
    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("report",)
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(own_postgres.uri.replace("postgres@", "report@"))


def _trusts(uri: str) -> bool:
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        return False
    return True
