"""TLS to the predictor, with the CA bundle that KServe mounts."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from serving import PREDICT, SAMPLE, SAMPLE_ANSWER, Predictor, Transformer, until

ANSWER = b'{"predictions": [1]}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send()

    def do_GET(self) -> None:
        self._send()

    def _send(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of this test's own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def address(authority: trustme.CA) -> Iterator[str]:
    """A predictor over HTTPS, known as localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate as a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_predictor_with_a_known_certificate_is_called(
    folder: Path, shared_uri: str, address: str, bundle: Path, variable: str
) -> None:
    """--predictor_use_ssl with the bundle in either variable."""
    arguments = ["--predictor_use_ssl", "true"]
    variables = {variable: str(bundle)}
    with Transformer(folder, shared_uri, address, *arguments, **variables) as server:
        answered = server.post(PREDICT, SAMPLE)
        assert (answered.status, answered.body) == (200, ANSWER)
        assert server.get("/v1/models/model").status == 200


def test_predictor_with_an_unknown_certificate_is_not_called(
    folder: Path, shared_uri: str, address: str
) -> None:
    """Without the bundle the call is refused, never sent."""
    with Transformer(folder, shared_uri, address, "--predictor_use_ssl", "true") as server:
        answered = server.post(PREDICT, SAMPLE)
    assert (answered.status, json.loads(answered.body)) == (
        503,
        {"error": "the predictor is unreachable"},
    )


def test_server_with_a_certificate_of_its_own(
    folder: Path, shared_uri: str, predictor: Predictor, authority: trustme.CA, tmp_path: Path
) -> None:
    """KServe's --ssl_certfile and --ssl_keyfile."""
    own = authority.issue_cert("localhost")
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    own.private_key_pem.write_to_path(str(key))
    own.cert_chain_pems[0].write_to_path(str(certificate))
    arguments = ["--ssl_keyfile", str(key), "--ssl_certfile", str(certificate)]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = Transformer(folder, shared_uri, predictor.address, *arguments)
    try:
        until(lambda: _calls(server.http_port, context), "the server over TLS")
    finally:
        server.__exit__()


def _calls(port: int, context: ssl.SSLContext) -> bool:
    request = urllib.request.Request(f"https://localhost:{port}{PREDICT}", SAMPLE)
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, context=context, timeout=60) as response:
            return bool(response.read() == SAMPLE_ANSWER)
    except OSError:
        return False
