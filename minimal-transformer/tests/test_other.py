"""A service of another kind behind PASS_PATHS: a plain aiohttp application, as people have them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from serving import Transformer, new_pair, row, stored

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


async def predict(request: web.Request) -> web.Response:
    """JSON, with a status of its own."""
    sent = await request.json()
    if "text" not in sent:
        return web.json_response({"detail": "text is missing"}, status=422)
    return web.json_response({"length": len(sent["text"])}, status=201)


async def draw(request: web.Request) -> web.Response:
    """A picture, for a file that is uploaded as browsers do it."""
    part = await (await request.multipart()).next()
    assert isinstance(part, aiohttp.BodyPartReader)
    assert bytes(await part.read()) == PNG
    return web.Response(body=PNG[::-1], content_type="image/png")


async def forget(request: web.Request) -> web.Response:
    """Nothing to say; the query is the call."""
    return web.Response(status=204, headers={"x-internal": request.query["id"]})


async def health(_: web.Request) -> web.Response:
    """What PREDICTOR_READY_PATH asks."""
    return web.Response(text="ok")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """Its address; it runs in a thread."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    address: list[str] = []

    async def start() -> web.AppRunner:
        application = web.Application()
        application.add_routes([web.post("/predict", predict), web.post("/images/draw", draw)])
        application.add_routes([web.post("/forget", forget), web.get("/health", health)])
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        address.append(f"{host}:{port}")
        ready.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        with suppress(RuntimeError):
            loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(120)
    yield address[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


@pytest.fixture(scope="module")
def front(folder: Path, shared_uri: str, service: str) -> Iterator[Transformer]:
    """The transformer in front of it."""
    settings = {"PASS_PATHS": "/predict,/images,/forget", "PREDICTOR_READY_PATH": "/health"}
    with Transformer(folder, shared_uri, service, **settings) as running:
        yield running


def test_json_is_recorded_as_json(front: Transformer, shared_uri: str) -> None:
    """With the service's own status, of a success and of a refusal."""
    assert front.get("/v2/health/ready").status == 200
    for sent, status, error in (
        (b'{"text": "four"}', 201, None),
        (b"{}", 422, '{"detail": "text is missing"}'),
    ):
        pair = new_pair()
        answered = front.post("/predict", sent, x_shadow_pair_id=pair)
        assert answered.status == status
        found = row(shared_uri, pair)
        assert (found["protocol"], found["status_code"], found["error"]) == ("other", status, error)
        assert (found["request_raw"], found["response_raw"]) == (None, None)
        assert (stored(found, "request"), stored(found, "response")) == (sent, answered.body)
        assert found["predict_url"].endswith("/predict")
        assert json.loads(answered.body)


def test_an_upload_and_a_picture_are_recorded_as_bytes(front: Transformer, shared_uri: str) -> None:
    """A form with a file and the picture that it is answered with, byte for byte."""
    pair = new_pair()

    async def upload() -> tuple[bytes, str]:
        form = aiohttp.FormData()
        form.add_field("file", PNG, filename="a.png", content_type="image/png")
        url = f"http://127.0.0.1:{front.http_port}/images/draw"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=form, headers={"x-shadow-pair-id": pair}) as answer,
        ):
            return await answer.read(), answer.content_type

    assert asyncio.run(upload()) == (PNG[::-1], "image/png")
    found = row(shared_uri, pair)
    assert found["request_headers"]["content-type"].startswith("multipart/form-data; boundary=")
    assert (found["request_data"], found["response_data"]) == (None, None)
    assert PNG in bytes(found["request_raw"])
    assert bytes(found["response_raw"]) == PNG[::-1]


def test_nothing_is_an_answer_too(front: Transformer, shared_uri: str) -> None:
    """204 without a body; the service's own headers stay here."""
    pair = new_pair()
    answered = front.post("/forget?id=7", b"", x_shadow_pair_id=pair)
    assert (answered.status, answered.body) == (204, b"")
    assert "x-internal" not in answered.headers
    found = row(shared_uri, pair)
    assert (found["status_code"], found["response_size"], found["error"]) == (204, 0, None)
