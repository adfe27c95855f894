"""The transformer as its image starts it, in front of a predictor that answers what it was sent."""

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import features
import pytest

FOLDER = Path(features.__file__).parent


class Echo(http.server.BaseHTTPRequestHandler):
    """A predictor: v1's values are its predictions, v2's inputs its outputs."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"ready": True})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        v2 = {"model_name": "model", "outputs": sent.get("inputs")}
        self._answer(v2 if "inputs" in sent else {"predictions": sent["values"]})

    def _answer(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it answers. Its database is away: it serves, and keeps its records on the spool."""
    folder = tmp_path_factory.mktemp("transformer")
    predictor = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=predictor.serve_forever, daemon=True).start()
    with socket.socket() as held:  # while the server starts, so that no other process gets it
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        where = ["--predictor_host", f"127.0.0.1:{predictor.server_port}"]
        words = ["--http_port", str(port), "--enable_grpc", "false", "--model_name", "model"]
        env = {
            "PATH": os.environ["PATH"],
            "POSTGRES_URI": "postgresql://nobody@127.0.0.1:9/nothing",
            "SHADOW_ROLE": "primary",
            "SPOOL_DIR": str(folder / "spool"),
            "SHUTDOWN_DRAIN_SECONDS": "0",
        }
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "features", *words, *where],
                cwd=FOLDER,
                env=env,
                stdout=log,
                stderr=log,
            )
        try:
            while call(f"http://127.0.0.1:{port}/", None) is None:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)
            predictor.shutdown()
            predictor.server_close()


def call(url: str, sent: Any) -> tuple[int, Any] | None:
    """A call's status and JSON; None where nobody answers."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        body = None if sent is None else json.dumps(sent)
        typed = {"content-type": "application/json"}
        connection.request("GET" if sent is None else "POST", f"/{path}", body, typed)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except OSError:
        return None
    finally:
        connection.close()


def test_the_model_gets_a_customers_figures(url: str) -> None:
    """In v1's form and in v2's."""
    predict, infer = f"{url}/v1/models/model:predict", f"{url}/v2/models/model/infer"
    assert call(predict, {"customer": "ann"}) == (200, {"predictions": [3.3, 62.3, 324.0]})
    tensor = {"name": "customer", "shape": [1], "datatype": "BYTES", "data": ["bob"]}
    status, answer = call(infer, {"inputs": [tensor]}) or (0, {})
    assert (status, answer["outputs"][0]["data"]) == (200, [1.5, 40.1, 80.0])


@pytest.mark.parametrize("sent", [{"customer": "nobody"}, {}])
def test_an_unknown_customer_is_the_callers_mistake(url: str, sent: Any) -> None:
    """A 400 that says so."""
    reason = f"customer {sent.get('customer')!r} is not known"
    assert call(f"{url}/v1/models/model:predict", sent) == (400, {"error": reason})
