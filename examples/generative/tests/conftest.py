"""The model behind KServe's own server, as a process."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

FOLDER = Path(__file__).parents[1]
Start = Callable[..., str]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a server with some environment; the URL that it serves at."""
    servers = []

    def started(**env: str) -> str:
        log = tmp_path_factory.mktemp("server") / "log"
        with log.open("w") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", "model", "--http_port", "0", "--enable_grpc", "false"],
                cwd=FOLDER,
                env={"PATH": os.environ["PATH"], **env},
                stdout=output,
                stderr=output,
            )
        servers.append(server)
        while not (found := re.search(r"running on http://\S+:(\d+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)
        return f"http://127.0.0.1:{found[1]}"

    yield started
    for server in servers:
        server.terminate()
    for server in servers:
        server.wait()


@pytest.fixture(scope="session")
def url(start: Start) -> str:
    """The base model, as it is without any setting."""
    return start()


@pytest.fixture(scope="session")
def tuned_url(start: Start) -> str:
    return start(MODEL_VARIANT="tuned")


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{url}/openai/v1", timeout=60) as client:
        yield client
