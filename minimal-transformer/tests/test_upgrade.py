"""The version before pair_id was in inference_responses: its database, its spool and its writers.

tests/former/ holds what that version (commit c369d1e) wrote and sent: two spool files that its own
recorder made, and its SQL.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import psycopg
import pytest
from delivering import Delivery, record, rows, settings, stored
from serving import until

from embedded_postgres import apply_schema, as_role
from minimal_transformer.delivery import database
from minimal_transformer.delivery.writer import Writer
from minimal_transformer.metrics import Counters
from minimal_transformer.recording import rows as current_rows
from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.recording.rows import split_fields
from minimal_transformer.settings import RecordSettings
from minimal_transformer.spool import format as spool_format
from minimal_transformer.spool.format import Frame, Kind
from minimal_transformer.spool.reader import Reader

FORMER = Path(__file__).parent / "former"
FORMER_SCHEMA = Path(__file__).parents[2] / "embedded-postgres/tests/former_schema.sql"

# By pair id: the status, and the two bodies as they are stored.
CALLS: dict[str, tuple[int, bytes | None, bytes | None]] = {
    "json": (200, b'{"values": [1]}', b'{"predictions": [2]}'),
    "nan": (200, b'{"values": [NaN]}', b'{"predictions": [NaN]}'),
    "binary": (400, b"\xff\x00binary", b"\xff\x00refused"),
    "grpc": (200, b'{"inputs":[]}', b'{"outputs":[]}'),
    "unavailable": (503, b'{"values": [1]}', None),
    "late-ü\U0001f600": (200, b'{"values": [1]}', b'{"predictions": [3]}'),
}
ANSWERS = len(CALLS) + 1  # of one the request was lost with its file


@pytest.fixture
def former_uri(empty_postgres_uri: str) -> str:
    """A superuser's database of the former version."""
    with psycopg.connect(empty_postgres_uri, autocommit=True) as connection:
        connection.execute(FORMER_SCHEMA.read_bytes())
    return empty_postgres_uri


def with_former_spool(folder: Path, uri: str) -> RecordSettings:
    """Settings for a copy of the former version's spool."""
    chosen = settings(folder, as_role(uri, "transformer"))
    shutil.copytree(FORMER / "spool", chosen.spool_folder)
    return chosen


def former_frames() -> list[Frame]:
    """The records of the former version's spool as it left them."""
    reader = Reader(FORMER / "spool")
    found = [
        frame._replace(row=memoryview(bytes(frame.row))) for frame in reader.next_batch(99, 1 << 20)
    ]
    reader.close()
    return found


def check_former_calls(uri: str) -> None:
    """Each call once, with its own answer; an answer without a request has a pair_id of its own."""
    found = rows(
        uri,
        "SELECT pair_id, status_code,"
        " coalesce(convert_to(request_data::text, 'UTF8'), request_raw),"
        " coalesce(convert_to(response_data::text, 'UTF8'), response_raw)"
        " FROM inference_requests JOIN inference_responses USING (record_id, request_time, pair_id)"
        " WHERE model_version = 'former'",
    )
    assert {pair: tuple(call) for pair, *call in found} == CALLS
    assert len(found) == len(CALLS)
    orphans = rows(
        uri,
        "SELECT a.pair_id = a.record_id::text FROM inference_responses a"
        " LEFT JOIN inference_requests r USING (record_id, request_time) WHERE r.record_id IS NULL",
    )
    assert orphans == [(True,)]


def test_the_fixture_is_of_the_former_version() -> None:
    """Ten columns in its responses, none of them the pair_id."""
    counts = {(frame.kind, len(split_fields(frame.row))) for frame in former_frames()}
    assert counts == {(Kind.REQUEST, 18), (Kind.RESPONSE, 10)}


@pytest.mark.parametrize("direct", [True, False])
def test_former_spool_is_delivered(
    tmp_path: Path, postgres_uri: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By direct and by staged COPY; sent twice, it is there once."""
    if not direct:
        monkeypatch.setattr(database, "MAX_PARSED_BYTES", 0)  # only Postgres can judge
    chosen = with_former_spool(tmp_path, postgres_uri)
    for _ in range(2):
        shutil.copytree(FORMER / "spool", chosen.spool_folder, dirs_exist_ok=True)
        writer = Writer(
            chosen.spool_folder,
            database.Database(chosen.postgres_uri.get_secret_value()),
            Counters(None),
        )
        while (pause := writer.advance()) is not None:
            assert pause == 0
        writer.close()
        assert not list(chosen.spool_folder.glob("*.seg"))
        check_former_calls(postgres_uri)
    assert stored(postgres_uri)[:2] == (len(CALLS), ANSWERS)


def send_as_former(uri: str, frames: list[Frame], direct: bool) -> None:
    """One batch, as the former version's delivery sends it."""
    text = {path.name: path.read_text() for path in FORMER.glob("*.sql")}
    names = ("copy_requests.sql", "copy_responses.sql")
    if not direct:
        names = ("stage_requests.sql", "stage_responses.sql")
    with psycopg.connect(as_role(uri, "transformer"), autocommit=True) as connection:
        connection.execute(text["begin.sql"].encode())
        if not direct:
            connection.execute(text["make_stage.sql"].encode())
        for kind, name in zip(Kind, names, strict=True):
            found = [frame.row for frame in frames if frame.kind == kind]
            with connection.cursor().copy(text[name].encode()) as copy:
                copy.write(b"".join((database._COPY_START, *found, database._COPY_END)))
        if not direct:
            connection.execute(text["store_stage.sql"].encode())
        connection.execute("COMMIT")


def castable(frames: list[Frame]) -> list[Frame]:
    """Those whose body a json column takes."""
    return [f for f in frames if b"NaN" not in bytes(f.row)]


def test_former_delivery_still_writes(postgres_uri: str) -> None:
    """Its COPY and its INSERT name their columns; its rows are completed, and sent twice, once."""
    frames = former_frames()
    send_as_former(postgres_uri, castable(frames), direct=True)
    send_as_former(postgres_uri, frames, direct=False)
    check_former_calls(postgres_uri)
    send_as_former(postgres_uri, frames, direct=False)
    check_former_calls(postgres_uri)
    assert stored(postgres_uri)[:2] == (len(CALLS), ANSWERS)


def test_new_version_waits_for_the_upgrade(tmp_path: Path, former_uri: str) -> None:
    """Before `make schema` the log says so and the records wait; then all are written, once."""
    send_as_former(former_uri, castable(former_frames()), direct=True)
    chosen = with_former_spool(tmp_path, former_uri)
    handler = PredictionDBHandler(chosen)
    record(handler, 50)
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "the tables are missing or of another version" in delivery.log, "the remedy")
        apply_schema(former_uri)
        until(lambda: stored(former_uri)[:2] == (50 + len(CALLS), 50 + ANSWERS), "all rows")
    check_former_calls(former_uri)
    assert not (chosen.spool_folder / "dead-letter").exists()


def test_upgrade_under_load(tmp_path: Path, former_uri: str) -> None:
    """Upgraded by two at once while calls are recorded and delivered: each row is there once."""
    send_as_former(former_uri, castable(former_frames()), direct=True)
    chosen = with_former_spool(tmp_path, former_uri)
    handler = PredictionDBHandler(chosen)
    recorded = 0
    with Delivery(chosen, tmp_path / "log"):
        for number in range(60):
            recorded += record(handler, 20)
            if number in (10, 40):
                clients = [threading.Thread(target=apply_schema, args=[former_uri]) for _ in "ab"]
                for client in clients:
                    client.start()
        for client in clients:
            client.join()
        wanted = (recorded + len(CALLS), recorded + ANSWERS)
        until(lambda: stored(former_uri)[:2] == wanted, "all rows")
    check_former_calls(former_uri)
    assert rows(
        former_uri,
        "SELECT count(*) FROM inference_requests"
        " JOIN inference_responses USING (record_id, request_time, pair_id)",
    ) == [(recorded + len(CALLS),)]


def test_frames_tell_the_versions_apart() -> None:
    """A transformer that is set back takes today's frames for damage and keeps them in a file."""
    pieces = current_rows.encode_response(
        record_id=bytes(16),
        request_time_us=1,
        pair_id=b"pair",
        response_time_us=2,
        status_code=200,
        duration_ms=1.0,
        error=None,
        body=current_rows.NO_BODY,
    )
    frame = b"".join(spool_format.encode_frame(Kind.RESPONSE, 1, pieces, 0)[0])
    former = next((FORMER / "spool").glob("*.seg")).read_bytes()[spool_format.HEADER_BYTES :]
    version_at = 6  # after the magic and the checksum
    assert (former[version_at], frame[version_at]) == (1, 2)
