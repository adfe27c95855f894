"""Streams that end in every way, hundreds of them: exact rows, and nothing stays behind."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import psycopg
from processes import resident_bytes
from serving import TLS, Transformer, counts, until
from streaming import CLOSE, CUT, DONE, Step, StreamingPredictor, event

URL = "/openai/v1/chat/completions"
ROUNDS, OF_EACH, AT_ONCE = 8, 10, 20
GROWTH_BYTES = 24 * 2**20
SOME = [event("A"), event(" lamp", finish_reason="stop")]
# How a stream goes, and how its row says that it ended.
ENDS = {
    "whole": "done",
    "reset": "cut",
    "closed": "cut",
    "not JSON": "done",
    "without its end": "no_done",
    "long": "done",
    "left": "left",
}


def scripts(over: Callable[[], object]) -> dict[str, list[Step]]:
    return {
        "whole": [*SOME, DONE],
        "reset": [*SOME, CUT],
        "closed": [*SOME, CLOSE],
        "not JSON": [SOME[0], b"data: {oops\n\n", SOME[1], DONE],
        "without its end": SOME,
        "long": [*[event("x" * 10_000)] * 150, DONE],
        "left": [SOME[0], over],
    }


def call(transformer: Transformer, name: str) -> None:
    """Read a stream of that kind to wherever it ends; leave the one to be left at its first."""
    url = f"http://127.0.0.1:{transformer.http_port}{URL}"
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream("POST", url, json={"do": name}, timeout=120, verify=TLS) as answer,
    ):
        for _ in answer.iter_raw():
            if name == "left":
                return


def recorded_ends(uri: str) -> Counter[str]:
    query = "SELECT generation->>'stream_end', count(*) FROM inference_responses GROUP BY 1"
    with psycopg.connect(uri) as connection:
        return Counter(dict(connection.execute(query).fetchall()))


def test_hundreds_of_broken_streams_leave_nothing_behind(tmp_path: Path, postgres_uri: str) -> None:
    """A row for each with its end; no descriptor and no memory more than after the first ones.

    A stop afterwards is at once: nothing is in flight.
    """
    with (
        StreamingPredictor() as streaming,
        Transformer(tmp_path, postgres_uri, streaming.address) as transformer,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        over = threading.Event()
        streaming.scripts.update(scripts(over.wait))
        server = psutil.Process(transformer.process.pid)
        open_files, memory = [], []
        for number in range(1, ROUNDS + 1):
            list(pool.map(lambda name: call(transformer, name), [*ENDS] * OF_EACH))
            wanted = Counter(ENDS.values())
            expected = Counter({end: n * OF_EACH * number for end, n in wanted.items()})
            until(lambda expected=expected: recorded_ends(postgres_uri) == expected, "all rows")
            if open_files:  # a caller that has left may still have its connection
                until(lambda: server.num_fds() <= open_files[0] + AT_ONCE, "no more descriptors")
            open_files.append(server.num_fds())
            memory.append(resident_bytes(server.pid))
        over.set()
        total = ROUNDS * OF_EACH * len(ENDS)
        assert counts(postgres_uri) == (total, total, 0)
        # The hop keeps its idle connections, of which there are never more than calls at once.
        assert max(open_files) <= open_files[0] + AT_ONCE
        assert memory[-1] - memory[1] < GROWTH_BYTES, memory
        assert transformer.stop() == 0
        assert "Traceback" not in transformer.log
        print(f"{total} streams; descriptors {open_files}; MiB {[m >> 20 for m in memory]}")
