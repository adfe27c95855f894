"""Recording never fails an answer, counts what it could not keep, and goes on when it can."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from delivering import ROUTE, SAMPLE, figures, record, request, respond, settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minimal_transformer.exchange import Arrival, Route
from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.recording.rows import decode_row
from minimal_transformer.recording.stream import BUDGET_BYTES, GRANT_BYTES
from minimal_transformer.spool.format import Kind
from minimal_transformer.spool.reader import Reader

CAP = 1024 * 1024


def open_handler(tmp_path: Path, **changes: Any) -> PredictionDBHandler:
    handler = PredictionDBHandler(settings(tmp_path, **changes))
    handler.open()
    return handler


def spooled(folder: Path) -> list[dict[str, object]]:
    """Every row on the spool."""
    reader = Reader(folder)
    found = []
    while batch := reader.next_batch(1000, 1 << 20):
        found += [decode_row(Kind(record.kind), record.row) for record in batch]
        reader.delivered(batch)
    reader.close()
    return found


def requests_of(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [row for row in found if "sequence" in row]


def test_rows_hold_the_call(tmp_path: Path) -> None:
    """All columns of both rows, as the caller sent and got them."""
    handler = open_handler(tmp_path, model_version="7")
    call = request(
        handler,
        x_shadow_pair_id="pair",
        x_request_id="request",
        content_type="application/json",
        authorization="secret",
    )
    assert call is not None
    respond(handler, call, b"gone", 503, "predictor unreachable")
    handler.close()
    first, second = spooled(tmp_path / "spool")
    assert first["record_id"] == second["record_id"] == str(call.record_id)
    assert call.record_id.version == 7
    assert first["request_time"] == second["request_time"]
    assert (first["sequence"], first["pair_id"], first["pair_source"]) == (
        1,
        "pair",
        "x-shadow-pair-id",
    )
    assert (first["role"], first["inference_service"], first["model_version"]) == (
        "primary",
        "double",
        "7",
    )
    assert (first["model_name"], first["protocol"]) == ("model", "v1")
    assert first["predict_url"] == "http://predictor/v1/models/model:predict"
    assert (
        first["request_headers"] == '{"content-type":"application/json","x-request-id":"request"}'
    )
    assert first["request_data"] == SAMPLE.decode()
    assert second["status_code"] == 503
    assert second["error"] == "predictor unreachable"
    assert second["response_data"] == "gone"  # Postgres finds that it is not JSON
    assert str(second["response_time"]) >= str(second["request_time"])
    assert isinstance(second["duration_ms"], float)


def test_pair_id_sources(tmp_path: Path) -> None:
    """The pair header, else the request id, else one of our own; a long one by its hash."""
    handler = open_handler(tmp_path)
    request(handler, x_shadow_pair_id="", x_request_id="r")
    request(handler)
    request(handler, x_request_id="l" * 100_000)
    request(handler, x_request_id="n\0ul\ud800")
    handler.close()
    rows = requests_of(spooled(tmp_path / "spool"))
    assert [row["pair_source"] for row in rows] == [
        "x-request-id",
        "generated",
        "x-request-id",
        "x-request-id",
    ]
    assert rows[0]["pair_id"] == "r"
    assert str(rows[2]["pair_id"]).startswith("sha256:")
    assert rows[3]["pair_id"] == "n\ufffdul?"


def test_grpc_keeps_wire_bytes_and_json_form(tmp_path: Path) -> None:
    """`data` goes to *_data, the body to *_raw; a call without an answer's body has neither."""
    handler = open_handler(tmp_path)
    route = Route(
        "grpc",
        "predict",
        "/v2/models/model/infer",
        "model",
        "grpc://predictor:9000",
        request_json=lambda _: b'{"inputs":[]}',
        response_json=lambda _: b'{"outputs":[]}',
    )
    headers = {"key-bin": b"\x00\xff"}
    call = handler.record_request(Arrival(route, b"\x0a\x05model", headers))  # type: ignore[arg-type]
    respond(handler, call, b'{"error":"UNAVAILABLE"}', 503, "UNAVAILABLE")
    handler.close()
    first, second = spooled(tmp_path / "spool")
    assert (first["request_raw"], first["request_data"]) == (b"\x0a\x05model", '{"inputs":[]}')
    assert (second["response_raw"], second["response_data"], second["response_size"]) == (
        None,
        None,
        None,
    )


def test_offered_calls_are_stored_or_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At the cap: offered = stored + dropped, the holes are the dropped, two log lines in all."""
    handler = open_handler(tmp_path, spool_max_bytes=CAP)
    offered = 3000
    answered = [request(handler, b'"' + 1000 * b"x" + b'"') for _ in range(offered)]
    for call in answered:
        respond(handler, call, b'"' + 1000 * b"y" + b'"')
    kept = sum(call is not None for call in answered)
    assert 0 < kept < offered
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) <= CAP
    assert figures(handler)["spooled"] == kept
    assert figures(handler)["dropped"] == offered - kept
    reader = Reader(tmp_path / "spool")
    found = []
    while batch := reader.next_batch(1000, 1 << 20):
        found += [decode_row(Kind(item.kind), item.row) for item in batch]
        reader.delivered(batch)
    time.sleep(1.1)  # the episode is over a second after the last drop
    assert record(handler, 10) == 10
    handler.close()
    found += [decode_row(Kind(item.kind), item.row) for item in reader.next_batch(1000, 1 << 20)]
    reader.close()
    numbers = [row["sequence"] for row in requests_of(found)]
    expected = [n for n, call in enumerate(answered, 1) if call] + list(
        range(offered + 1, offered + 11)
    )
    assert numbers == expected
    responses = {row["record_id"] for row in found if "status_code" in row}
    assert responses == {row["record_id"] for row in requests_of(found)}
    messages = [item.getMessage() for item in caplog.records]
    assert len(messages) == 2
    assert "SPOOL_MAX_BYTES" in messages[0]
    assert f"{offered - kept} were dropped" in messages[1]


def mount(kind: str, target: Path, flags: int, options: str) -> None:
    """mount(2), for which the tests' container may lack the right."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(target), kind.encode(), flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


MS_RDONLY, MS_REMOUNT = 1, 32


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB where the tests may mount one; else a folder whose name a file has taken."""
    target = tmp_path / "disk"
    target.mkdir()
    try:
        mount("tmpfs", target, 0, "size=2m")
    except OSError:
        target.rmdir()
        yield target
        return
    yield target
    ctypes.CDLL(None).umount2(bytes(target), 2)


def break_disk(disk: Path) -> None:
    """Make the disk read-only, or put a file where the folder should be."""
    if disk.is_mount():
        mount("tmpfs", disk, MS_REMOUNT | MS_RDONLY, "")
    else:
        disk.write_text("in the way")


def repair_disk(disk: Path) -> None:
    if disk.is_mount():
        mount("tmpfs", disk, MS_REMOUNT, "")
    else:
        disk.unlink()


def test_read_only_folder_at_start(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It serves without recording, counts, says once why, and records when the folder heals."""
    break_disk(small_disk)
    handler = open_handler(small_disk, spool_max_bytes=CAP)
    assert record(handler, 100) == 0
    assert figures(handler)["dropped"] == 100
    assert len(caplog.records) == 1
    assert str(small_disk / "spool") in caplog.records[0].getMessage()
    repair_disk(small_disk)
    time.sleep(0.1)
    assert record(handler, 10) == 10
    handler.close()
    rows = requests_of(spooled(small_disk / "spool"))
    assert [row["sequence"] for row in rows] == list(range(101, 111))


def test_folder_turned_read_only(small_disk: Path) -> None:
    """Records stop and go on with the folder; each call is stored or counted."""
    handler = open_handler(small_disk, spool_max_bytes=CAP)
    assert record(handler, 10) == 10
    if small_disk.is_mount():
        # An open file keeps a mount writable; a new segment is what fails.
        handler.close()
    else:
        handler.close()
        (small_disk / "spool").rename(small_disk.parent / "elsewhere")
        small_disk.rmdir()
    break_disk(small_disk)
    assert record(handler, 10) == 0
    repair_disk(small_disk)
    time.sleep(0.1)
    assert record(handler, 10) == 10
    handler.close()
    assert (figures(handler)["spooled"], figures(handler)["dropped"]) == (20, 10)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_full_disk(small_disk: Path) -> None:
    """Somebody else fills the disk: admitted calls get their response rows, others are counted."""
    handler = open_handler(small_disk, spool_max_bytes=16 * CAP)
    admitted = [request(handler, b"x" * 1000) for _ in range(100)]
    if small_disk.is_mount():
        fill(small_disk / "ballast")
    for call in admitted:
        respond(handler, call, b"y" * 1000)
    more = [request(handler, b"x" * 1000) for _ in range(5000)]
    for call in more:
        respond(handler, call, b"y" * 1000)
    kept = sum(call is not None for call in admitted + more)
    if small_disk.is_mount():
        assert kept < 5100
    assert figures(handler)["spooled"] == kept
    assert figures(handler)["dropped"] == 5100 - kept
    handler.close()
    found = spooled(small_disk / "spool")
    assert len(requests_of(found)) == kept
    assert len(found) == 2 * kept


def test_records_after_close_are_taken(tmp_path: Path) -> None:
    """A call that finishes after the server's end has its response row."""
    handler = open_handler(tmp_path)
    call = request(handler)
    handler.close()
    respond(handler, call)
    assert record(handler, 1) == 1
    handler.close()
    handler.close()
    assert len(spooled(tmp_path / "spool")) == 4


def test_sampling_keeps_the_same_pairs_on_both_sides(tmp_path: Path) -> None:
    """Half of the pairs, the same for primary and shadow, numbered without a hole."""
    sides = []
    for role in ("primary", "shadow"):
        handler = open_handler(tmp_path / role, shadow_role=role, record_sample=0.5)
        for number in range(1000):
            request(handler, x_shadow_pair_id=f"pair-{number}")
        handler.close()
        rows = requests_of(spooled(tmp_path / role / "spool"))
        assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
        sides.append([row["pair_id"] for row in rows])
        assert figures(handler)["dropped"] == 0
    assert sides[0] == sides[1]
    assert 400 < len(sides[0]) < 600


def test_nothing_is_sampled_at_zero(tmp_path: Path) -> None:
    """RECORD_SAMPLE=0 serves without recording, and drops nothing."""
    handler = open_handler(tmp_path, record_sample=0)
    assert record(handler, 10) == 0
    assert figures(handler)["dropped"] == 0
    assert not (tmp_path / "spool").exists()


def test_redaction_leaves_nothing_on_the_spool(tmp_path: Path) -> None:
    """Named values, and bodies that cannot be searched, are in no byte of the folder."""
    handler = open_handler(tmp_path, record_redact="$..ssn,error")
    for body in (
        b'{"instances": [{"ssn": "SECRET", "age": 3}, {"ssn": ["SECRET"]}]}',
        b'{"ssn": "SECRET", "ssn": 1, "big": 123456789012345678901234567890}',
        b'{"\\u0073sn": "SECRET"}',
        b"SECRET is not JSON",
        b'{"ssn": "SECRET"',
        b'{"ssn": "SECRET", "nan": NaN}',
    ):
        call = request(handler, body)
        respond(handler, call, body, 400, "bad value SECRET")
    handler.close()
    for path in (tmp_path / "spool").iterdir():
        assert b"SECRET" not in path.read_bytes()
    rows = spooled(tmp_path / "spool")
    assert rows[0]["request_data"] == (
        '{"instances":[{"ssn":"[redacted]","age":3},{"ssn":"[redacted]"}]}'
    )
    assert (rows[0]["request_size"], rows[0]["request_truncated"]) == (65, False)
    assert rows[1]["error"] == "[redacted]"
    for row in requests_of(rows)[3:]:
        assert (row["request_data"], row["request_raw"]) == (None, None)
        assert row["request_truncated"] is True


ANY_TEXT = st.text(st.characters(codec=None), max_size=50) | st.sampled_from(["\0", "\ud800", ""])
ANY_BODY = st.binary(max_size=100) | ANY_TEXT.map(lambda s: s.encode("utf-8", "surrogatepass"))
ANY_HEADERS = st.dictionaries(
    st.sampled_from(["x-shadow-pair-id", "x-request-id", "content-type", "traceparent"]) | ANY_TEXT,
    ANY_TEXT | st.binary(max_size=20),
    max_size=5,
)


@hypothesis_settings(max_examples=300)
@given(
    call_in=st.tuples(ANY_BODY, ANY_HEADERS),
    names=st.tuples(ANY_TEXT, ANY_TEXT),
    answer=st.tuples(ANY_BODY, st.integers() | st.just(200), st.none() | ANY_TEXT),
    data=st.none() | st.binary(max_size=20),
    redact=st.sampled_from(["", "$..a", "error"]),
)
def test_no_input_raises(
    tmp_path: Path,
    *,
    call_in: tuple[bytes, dict[str, Any]],
    names: tuple[str, str],
    answer: tuple[bytes, int, str | None],
    data: bytes | None,
    redact: str,
) -> None:
    """Any bytes and any strings: recorded or counted, and never an exception."""
    handler = open_handler(tmp_path, record_redact=redact)
    json_form = None if data is None else lambda _: data
    route = Route("v1", "predict", "/", *names, json_form, json_form)
    call = handler.record_request(Arrival(route, *call_in))
    assert call is not None
    respond(handler, call, *answer)
    handler.close()
    found = spooled(tmp_path / "spool")
    assert len(found) == (2 if -(2**31) <= answer[1] < 2**31 else 1)
    for row in found:
        assert "\0" not in str(row["pair_id"] if "pair_id" in row else row["error"])


def test_10000_headers(tmp_path: Path) -> None:
    """Only the listed ones are looked at."""
    handler = open_handler(tmp_path)
    headers = {f"h-{number}": "x" * 100 for number in range(10_000)} | {"user-agent": "a" * 100_000}
    call = handler.record_request(Arrival(ROUTE, SAMPLE, headers))
    assert call is not None
    handler.close()
    (row,) = spooled(tmp_path / "spool")
    assert row["request_headers"] == '{"user-agent":"' + "a" * 8192 + '"}'


def test_handler_is_pickled_before_open(tmp_path: Path) -> None:
    """A copy records with numbers of its own; metrics count both processes' records together."""
    handler = PredictionDBHandler(settings(tmp_path))
    copy = pickle.loads(pickle.dumps(handler))
    handler.open()
    copy.open()
    assert record(handler, 3) + record(copy, 4) == 7
    assert figures(handler)["spooled"] == figures(copy)["spooled"] == 7
    handler.close()
    copy.close()
    rows = requests_of(spooled(tmp_path / "spool"))
    assert len({row["recorder_id"] for row in rows}) == 2


@pytest.mark.parametrize("processes", [1, 4])
def test_workers_share_what_is_kept_of_streams(tmp_path: Path, processes: int) -> None:
    """A pod has one limit: with four workers each keeps a quarter, also after it was pickled."""
    chosen = settings(tmp_path, record_max_body_bytes=CAP)
    made = PredictionDBHandler(chosen, processes=processes)
    handler = pickle.loads(pickle.dumps(made))
    handler.open()
    call = handler.record_request(Arrival(ROUTE._replace(protocol="openai"), SAMPLE, {}))
    piece = orjson.dumps({"choices": [{"index": 0, "delta": {"content": "x" * (CAP - 10_000)}}]})
    kept = []
    under_way = [handler.assembly(call, []) for _ in range(110)]
    for assembly in under_way:
        assembly.feed(b"data: " + piece + b"\n\n")
    for assembly in under_way:
        streamed = assembly.finish("done")
        kept.append(max(0, len(streamed.data or streamed.raw or b"") - GRANT_BYTES))
    assert 0.9 * BUDGET_BYTES / processes < sum(kept) <= BUDGET_BYTES / processes
    handler.close()


def test_counters_of_a_killed_process_are_removed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 leaves a folder in the temporary one until somebody claims another; a clean end none.

    Those of the living stay.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    chosen = settings(tmp_path).as_environment()
    command = [sys.executable, "-c", RECORDING]

    def started() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=os.environ | chosen, stdin=pipe, stdout=pipe, text=True
        )

    with started() as killed, started() as living:
        assert killed.stdout is not None
        assert living.stdout is not None
        folders = [Path(stream.readline().strip()) for stream in (killed.stdout, living.stdout)]
        killed.kill()
        killed.wait()
        assert [folder.is_dir() for folder in folders] == [True, True]
        with started() as other:
            other.communicate("")
        assert [folder.is_dir() for folder in folders] == [False, True]
        living.communicate("")
    assert not list(tmp_path.glob("minimal-transformer-*"))


RECORDING = """
import sys
from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.settings import RecordSettings
handler = PredictionDBHandler(RecordSettings.from_environment())
handler.open()
print(handler.counters_folder, flush=True)
sys.stdin.read()
"""


def test_metrics_without_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written, a process still counts for itself."""
    (tmp_path / "file").touch()
    handler = PredictionDBHandler(
        settings(tmp_path / "file"), counters_folder=tmp_path / "file" / "counters"
    )
    handler.open()
    assert record(handler, 5) == 0
    assert figures(handler)["dropped"] == 5


def test_age_and_bytes_of_what_waits(tmp_path: Path) -> None:
    """The gauges follow the spool: nothing, then records that grow older."""
    handler = open_handler(tmp_path)
    assert figures(handler)["prediction_db_spool_bytes"] == 0
    assert figures(handler)["prediction_db_oldest_unwritten_seconds"] == 0
    record(handler, 1)
    time.sleep(0.2)
    record(handler, 1)
    assert figures(handler)["prediction_db_spool_bytes"] > 2 * len(SAMPLE)
    assert figures(handler)["prediction_db_oldest_unwritten_seconds"] >= 0.2
    handler.close()
    spooled(tmp_path / "spool")
    assert figures(handler)["prediction_db_spool_bytes"] == 0
    assert figures(handler)["prediction_db_oldest_unwritten_seconds"] == 0


def test_fsync_covers_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SPOOL_FSYNC=1 an answer waits for a sync that began after its records, in a thread."""
    import threading

    synced: list[tuple[int, str]] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        real(descriptor)
        synced.append((size, threading.current_thread().name))

    monkeypatch.setattr(os, "fsync", spy)
    handler = open_handler(tmp_path, spool_fsync=True)

    async def call() -> None:
        record(handler, 1)
        (path,) = (tmp_path / "spool").glob("*.seg")
        size = path.stat().st_size
        await handler.durable()
        assert max(item[0] for item in synced) >= size

    async def calls() -> None:
        await asyncio.gather(*(call() for _ in range(100)))

    asyncio.run(calls())
    assert len(synced) < 50, "many calls share a sync"
    assert {name for _, name in synced} == {"spool-fsync_0"}
    handler.close()


def test_durable_is_free_without_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default nothing is synced and nothing waited for."""

    def never(_: int) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", never)
    handler = open_handler(tmp_path)
    record(handler, 1)
    asyncio.run(handler.durable())
    handler.close()


def test_fsync_follows_a_roll(tmp_path: Path) -> None:
    """Files that were left since the last sync are synced too, and no descriptor leaks."""
    handler = open_handler(tmp_path, spool_fsync=True, spool_max_bytes=CAP)
    before = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0

    async def calls() -> None:
        for _ in range(20):
            record(handler, 20, b"x" * 1000)
            await handler.durable()

    asyncio.run(calls())
    handler.close()
    asyncio.run(handler.durable())
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3
    assert len(spooled(tmp_path / "spool")) == 800


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "minimal_transformer")
