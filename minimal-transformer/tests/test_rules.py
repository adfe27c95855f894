"""The rules of recording, whatever is called, answered, broken and in whichever order.

Between a call's arrival and its number nothing fails without using a number; what is reserved for a
response is released; every wait ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from delivering import ROUTE, figures, record, settings
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_handler import ANY_BODY, ANY_HEADERS, ANY_TEXT, requests_of, spooled

from minimal_transformer.exchange import Answer, Arrival, Route
from minimal_transformer.recording.handler import Call, PredictionDBHandler

CAP = 128 * 1024
DEEP = b'{"secret": 1, "x": ' + b"[" * 300 + b"]" * 300 + b"}"
BODIES = (
    ANY_BODY
    | st.just(DEEP)
    | st.sampled_from([b'{"a": {"secret": "s"}}', b"[" * 2000, b'"\\ud800"', b"1" * 70_000])
    | st.integers(0, 300_000).map(lambda size: b'{"secret": "' + b"x" * size + b'"}')
)
ERRORS = st.sampled_from(
    [ValueError(), OverflowError(), RecursionError(), MemoryError(), KeyError()]
)
PATHS = ["", "$.secret", "$..secret", "$.*", "$..[?@.secret].x", "$..error", "$[0],$.secret"]


def failing(error: Exception) -> Any:
    """Reads no message at all."""

    def convert(_: bytes) -> bytes | None:
        raise error

    return convert


class Recording(RuleBasedStateMachine):
    """A recorder with a small spool whose folder comes and goes; calls that end in any order."""

    redact = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.handler = PredictionDBHandler(
            settings(self.folder, record_redact=self.redact, spool_max_bytes=CAP)
        )
        self.handler.open()
        self.running: list[Call] = []
        self.offered = self.kept = 0
        self.is_broken = False

    @rule(body=BODIES, headers=ANY_HEADERS, error=st.none() | ERRORS, in_thread=st.booleans())
    def call(
        self, body: bytes, headers: dict[str, Any], error: Exception | None, *, in_thread: bool
    ) -> None:
        """Any body, any headers, over a protocol whose messages cannot be read or plainly."""
        names = ("grpc", "predict", "/v2", "model", "grpc://p")
        route = ROUTE if error is None else Route(*names, failing(error), failing(error))  # type: ignore[arg-type]
        arrival = Arrival(route, body, headers)
        self.offered += 1
        if in_thread:
            work = partial(self.handler.record_request, arrival)
            call = asyncio.run(self.handler.in_thread(work))
        else:
            call = self.handler.record_request(arrival)
        if call is not None:
            self.kept += 1
            self.running.append(call)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        body=BODIES,
        status=st.sampled_from([200, 400, 503, 2**40, -1]),
        error=st.none() | ANY_TEXT,
        quotes=st.booleans(),
    )
    def answer(
        self, data: st.DataObject, body: bytes, status: int, error: str | None, *, quotes: bool
    ) -> None:
        """Any of the running calls gets any answer."""
        call = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.handler.record_response(call, Answer(status, body, [], error, quotes))

    @rule()
    def break_folder(self) -> None:
        """The folder is gone, and a file stands in its place; the open segment stays open."""
        if not self.is_broken:
            spool = self.folder / "spool"
            if spool.exists():
                spool.rename(self.folder / "elsewhere")
            spool.touch()
            self.is_broken = True

    @rule()
    def mend_folder(self) -> None:
        """It is back as it was."""
        if self.is_broken:
            (self.folder / "spool").unlink()
            if (self.folder / "elsewhere").exists():
                (self.folder / "elsewhere").rename(self.folder / "spool")
            self.is_broken = False

    @invariant()
    def every_call_is_counted_and_numbered(self) -> None:
        """Offered = recorded + dropped = numbers used; room is kept for the running calls alone."""
        handler = self.handler
        assert handler._sequence == self.offered
        assert handler._spool.reserved_bytes == sum(c.response_bytes for c in self.running)
        counted = handler._counters.totals()
        assert counted[0] == self.kept

    def teardown(self) -> None:
        """Every running call is answered; then rows and drops account for every call."""
        self.mend_folder()
        for call in self.running:
            self.handler.record_response(call, Answer(200, b"{}", []))
        assert self.handler._spool.reserved_bytes == 0
        self.handler.close()
        numbers = [row["sequence"] for row in requests_of(spooled(self.folder / "spool"))]
        assert len(numbers) == len(set(numbers)) == self.kept
        assert set(numbers) <= set(range(1, self.offered + 1))
        shutil.rmtree(self.folder)


@pytest.mark.parametrize("paths", PATHS)
def test_every_call_is_a_row_or_a_counted_drop(
    paths: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the bodies, the headers, the redaction and the order of the failures."""
    caplog.set_level(logging.CRITICAL, "minimal_transformer.recording")
    machine = type("Recording", (Recording,), {"redact": paths})
    run_state_machine_as_test(
        machine, settings=hypothesis_settings(max_examples=25, stateful_step_count=30)
    )


@pytest.fixture
def no_descriptor() -> Iterator[Any]:
    """Takes every descriptor of this process while it is entered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Taken:
        def __enter__(self) -> None:
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
            self.held = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
            try:
                while True:
                    self.held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass

        def __exit__(self, *_: object) -> None:
            for descriptor in self.held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    yield Taken()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_is_left_for_a_sync(tmp_path: Path, no_descriptor: Any) -> None:
    """SPOOL_FSYNC=1: whoever waits is answered, and so are all after them."""
    handler = PredictionDBHandler(settings(tmp_path, spool_fsync=True))
    handler.open()

    async def calls() -> None:
        assert record(handler, 1) == 1
        await handler.durable()
        with no_descriptor:
            assert record(handler, 5) == 5
            async with asyncio.timeout(30):
                await asyncio.gather(*(handler.durable() for _ in range(5)))
        async with asyncio.timeout(30):
            await handler.durable()

    asyncio.run(calls())
    handler.close()
    assert len(spooled(tmp_path / "spool")) == 12


def test_no_descriptor_is_left_for_a_segment(tmp_path: Path, no_descriptor: Any) -> None:
    """One is kept in reserve: recording goes on while callers hold all others."""
    handler = PredictionDBHandler(settings(tmp_path, spool_max_bytes=16 * 1024 * 1024))
    handler.open()
    assert record(handler, 1) == 1
    with no_descriptor:
        # More than two segments of 1 MiB.
        assert record(handler, 300, b"x" * 10_000) == 300
    handler.close()
    assert figures(handler)["dropped"] == 0
    assert len(requests_of(spooled(tmp_path / "spool"))) == 301


def test_cancelled_while_a_body_is_recorded(tmp_path: Path) -> None:
    """The rows are written nevertheless: who is cancelled learns of it when they are."""
    handler = PredictionDBHandler(settings(tmp_path))
    handler.open()

    async def call() -> Call | None:
        arrival = Arrival(ROUTE, b"x" * 1024 * 1024, {})
        kept = await handler.in_thread(partial(handler.record_request, arrival))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling()
        return kept

    async def cancelled() -> Call | None:
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    kept = asyncio.run(cancelled())
    assert kept is not None
    handler.record_response(kept, Answer(503, b"", []))
    assert handler._spool.reserved_bytes == 0
    handler.close()
    assert len(spooled(tmp_path / "spool")) == 2


def test_bodies_that_wait_for_redaction_wait_no_longer_than_a_second(tmp_path: Path) -> None:
    """Sixty large bodies at once: each has its rows, those whose turn came too late no body."""
    handler = PredictionDBHandler(settings(tmp_path, record_redact="$..secret"))
    handler.open()
    body = b'{"secret": "s", "x": [%b]}' % b",".join([b"[]"] * 300_000)

    async def calls() -> list[float]:
        arrival = Arrival(ROUTE, body, {})
        waits = []

        async def call() -> None:
            kept = await handler.in_thread(partial(handler.record_request, arrival))
            handler.record_response(kept, Answer(200, b"{}", []))

        async def look() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0)
                waits.append(time.perf_counter() - before)

        looking = asyncio.create_task(look())
        await asyncio.gather(*(call() for _ in range(60)))
        looking.cancel()
        return waits

    asyncio.run(calls())
    handler.close()
    rows = requests_of(spooled(tmp_path / "spool"))
    assert len(rows) == 60
    assert {row["request_size"] for row in rows} == {len(body)}
    assert any(row["request_truncated"] for row in rows)
    assert all(b'"s"' not in str(row["request_data"]).encode() for row in rows)
