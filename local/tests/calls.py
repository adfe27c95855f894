"""Calls as a client makes them, with exactly the headers that a test wants."""

from __future__ import annotations

import asyncio
import http.client
import urllib.parse
import uuid
from collections.abc import Iterable

import aiohttp

BODY = b'{"values": ["3.3", "62.3", "324"]}'
# What callers send as x-request-id: nothing, one, several, whatever they like.
CLIENT_IDS = {
    "none": [],
    "uuid4": [str(uuid.uuid4())],
    "uuid7": ["019a8f10-7c3e-7d2a-9b61-3f6d5c2e8a40"],
    "text": ["order 42 / from the caller"],
    "repeated header": ["one", "two"],
    "empty": [""],
}
Answered = tuple[int, dict[str, str], bytes]


def post(url: str, body: bytes = BODY, headers: Iterable[tuple[str, str]] = ()) -> Answered:
    """POST; the status, the headers by lower-case name, and the body."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=180)
    headers = list(headers)
    names = {name.lower() for name, _ in headers}
    connection.putrequest("POST", parts.path, skip_host="host" in names)
    for name, value in [("content-length", str(len(body))), *headers]:
        connection.putheader(name, value)
    connection.endheaders(body)
    return _answer(connection)


def get(url: str, headers: Iterable[tuple[str, str]] = ()) -> Answered:
    """GET; the status, the headers by lower-case name, and the body."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=180)
    path = parts._replace(scheme="", netloc="").geturl()
    connection.request("GET", path, headers=dict(headers))
    return _answer(connection)


def post_chunked(
    url: str, chunks: Iterable[bytes], headers: Iterable[tuple[str, str]] = ()
) -> Answered:
    """POST a body whose length is not announced."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=180)
    sent = dict(headers)
    connection.request("POST", parts.path, iter(chunks), sent, encode_chunked=True)
    return _answer(connection)


def post_at_once(url: str, count: int, body: bytes = BODY) -> list[Answered]:
    """`count` calls that are all open at the same time, each on a connection of its own."""

    async def call(session: aiohttp.ClientSession) -> Answered:
        async with session.post(url, data=body) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return response.status, headers, await response.read()

    async def calls() -> list[Answered]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(call(session) for _ in range(count)))

    return asyncio.run(calls())


def _answer(connection: http.client.HTTPConnection) -> Answered:
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body
