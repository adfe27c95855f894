"""The spool gives back what it acknowledged, once and in order, and keeps to its cap."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from delivering import ROUTE
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from minimal_transformer.recording import rows
from minimal_transformer.spool import format as spool_format
from minimal_transformer.spool.folder import taken_bytes, waiting
from minimal_transformer.spool.format import Kind
from minimal_transformer.spool.owner import RESPONSE_RESERVE, Segment, Spool, SpoolFull
from minimal_transformer.spool.reader import Reader

CAP = 1024 * 1024


class Owner:
    """A process that writes to the folder, as far as the folder can tell."""

    def __init__(self, folder: Path, cap: int = CAP) -> None:
        self.recorder_id = uuid.uuid4().bytes
        self.seed = spool_format.seed_of(self.recorder_id)
        self.spool = Spool(folder, cap, self.recorder_id)

    def frame(self, body: bytes, kind: Kind = Kind.REQUEST) -> spool_format.Pieces:
        return spool_format.encode_frame(kind, 1, (b"head", b"", body, b""), self.seed)

    def request(self, body: bytes) -> None:
        self.spool.append_request(self.frame(body), RESPONSE_RESERVE)

    def response(self, body: bytes) -> None:
        self.spool.append_response(
            self.frame(body, Kind.RESPONSE),
            RESPONSE_RESERVE,
            lambda: self.frame(b"cut", Kind.RESPONSE),
        )

    def die(self) -> None:
        """What the kernel does for a killed process: close its files."""
        if self.spool.segment is not None:
            os.close(self.spool.segment.descriptor)
            self.spool.segment = None


def drain(reader: Reader, rows: int = 100, size: int = 1 << 20) -> list[bytes]:
    """Everything that the reader gives out, acknowledged batch by batch."""
    found = []
    while batch := reader.next_batch(rows, size):
        found += [bytes(record.row)[4:] for record in batch]
        reader.delivered(batch)
    return found


class SpoolMachine(RuleBasedStateMachine):
    """Writers append, roll, close and die torn; readers read in parts, forget, and die."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.owners: list[Owner] = [Owner(self.folder)]
        self.acknowledged: dict[bytes, list[bytes]] = {}
        self.given: dict[bytes, list[bytes]] = {}
        self.reader = Reader(self.folder)
        self.number = 0
        self.fullest = 0

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        for owner in self.owners:
            owner.spool.close()
        self.read_all()
        self.reader.close()
        assert self.given == self.acknowledged
        assert not list(self.folder.glob("*.seg")), "delivered segments stay behind"
        shutil.rmtree(self.folder)

    @rule(which=st.integers(0, 3), size=st.sampled_from([0, 1, 500, 4000, 70_000]))
    def append(self, which: int, size: int) -> None:
        owner = self.owners[which % len(self.owners)]
        self.number += 1
        body = owner.recorder_id + b"%010d" % self.number + b"R\xf5" * (size // 2)
        try:
            owner.request(body)
        except SpoolFull:  # now, or not long ago
            self.fullest = max(self.fullest, taken_bytes(self.folder))
            assert self.fullest > CAP // 2
            return
        owner.spool.reserved_bytes = 0
        self.acknowledged.setdefault(owner.recorder_id, []).append(body)

    @precondition(lambda self: len(self.owners) < 4)
    @rule()
    def start_owner(self) -> None:
        self.owners.append(Owner(self.folder))

    @rule(which=st.integers(0, 3))
    def close(self, which: int) -> None:
        self.owners[which % len(self.owners)].spool.close()

    @rule(which=st.integers(0, 3), share=st.floats(0, 0.999), size=st.sampled_from([10, 5000]))
    def die_while_writing(self, which: int, share: float, size: int) -> None:
        """The process dies inside a write: any part of the frame may be there."""
        owner = self.owners.pop(which % len(self.owners))
        current = owner.spool.segment
        if current is not None:
            torn = b"".join(owner.frame(b"torn" * size)[0])
            os.pwrite(current.descriptor, torn[: int(len(torn) * share)], current.end)
        owner.die()
        self.owners = self.owners or [Owner(self.folder)]

    @rule(rows=st.integers(1, 5), size=st.sampled_from([100, 5000, 1 << 20]), kept=st.booleans())
    def read(self, rows: int, size: int, kept: bool) -> None:
        """A batch is read; unless it is kept, delivery dies before Postgres has it."""
        batch = self.reader.next_batch(rows, size)
        if not kept:
            self.reader.close()
            self.reader = Reader(self.folder)
            return
        self.take(batch)

    def take(self, batch: list[spool_format.Frame]) -> None:
        for record in batch:
            body = bytes(record.row)[4:]
            self.given.setdefault(body[:16], []).append(body)
        self.reader.delivered(batch)

    def read_all(self) -> None:
        while batch := self.reader.next_batch(7, 100_000):
            self.take(batch)

    @rule()
    def restart_reader(self) -> None:
        self.reader.close()
        self.reader = Reader(self.folder)

    @rule()
    def figures_are_true(self) -> None:
        """Bytes wait exactly while records wait (torn ones may be counted with them)."""
        left = sum(map(len, self.acknowledged.values())) - sum(map(len, self.given.values()))
        if left:
            assert waiting(self.folder).spool_bytes > 0
        assert taken_bytes(self.folder) <= CAP


SpoolMachine.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=40)
TestSpoolMachine = SpoolMachine.TestCase


@hypothesis_settings(max_examples=50)
@given(data=st.data(), bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_tail_torn_at_any_byte(tmp_path: Path, data: st.DataObject, bodies: list[bytes]) -> None:
    """Cut anywhere, a dead process' file gives back the records that are whole, and only those."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    owner = Owner(folder)
    ends = []
    for body in bodies:
        owner.request(body)
        assert owner.spool.segment is not None
        ends.append(owner.spool.segment.end)
    path = owner.spool.segment.path
    owner.die()
    cut = data.draw(st.integers(spool_format.HEADER_BYTES, ends[-1]))
    os.truncate(path, cut)
    reader = Reader(folder)
    assert drain(reader) == [body for body, end in zip(bodies, ends, strict=True) if end <= cut]
    reader.close()
    assert not list(folder.iterdir())


@hypothesis_settings(max_examples=50)
@given(data=st.data())
def test_damage_anywhere_costs_only_the_records_it_hits(
    tmp_path: Path, data: st.DataObject
) -> None:
    """Bytes overwritten in a closed file: all other records come through, and the file is kept."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    owner = Owner(folder)
    spans, start = [], spool_format.HEADER_BYTES
    for number in range(10):
        owner.request(b"%05d" % number + b"-" * 100)
        assert owner.spool.segment is not None
        spans.append((start, owner.spool.segment.end))
        start = owner.spool.segment.end
    path = owner.spool.segment.path
    owner.spool.close()
    at = data.draw(st.integers(spool_format.HEADER_BYTES, start - 8))
    damage = data.draw(st.binary(min_size=1, max_size=8))
    text = bytearray(path.read_bytes())
    was = bytes(text[at : at + len(damage)])
    text[at : at + len(damage)] = damage
    path.write_bytes(text)
    hit = {
        number
        for number, (first, end) in enumerate(spans)
        for offset, (old, new) in enumerate(zip(was, damage, strict=True))
        if old != new and first <= at + offset < end
    }
    reader = Reader(folder)
    assert [int(body[:5]) for body in drain(reader)] == [n for n in range(10) if n not in hit]
    reader.close()
    kept = list((folder / "dead-letter").glob("*.corrupt")) if hit else []
    # A damaged last record looks like one that was never completed when its length grew.
    assert len(kept) == 1 or hit <= {9}


def test_damaged_header_costs_nothing(tmp_path: Path) -> None:
    """A header of zeros: the records are found all the same."""
    owner = Owner(tmp_path)
    for number in range(5):
        owner.request(b"%d" % number)
    assert owner.spool.segment is not None
    path = owner.spool.segment.path
    owner.spool.close()
    with path.open("r+b") as file:
        file.write(bytes(spool_format.HEADER_BYTES))
    reader = Reader(tmp_path)
    assert drain(reader) == [b"%d" % number for number in range(5)]
    reader.close()


def test_foreign_and_unreadable_files_do_not_stop_the_rest(tmp_path: Path) -> None:
    """A folder, a foreign file and an empty file with a segment's suffix beside a sound segment."""
    (tmp_path / "folder.seg").mkdir()
    (tmp_path / "foreign.seg").write_bytes(os.urandom(5000))
    (tmp_path / "empty.seg").touch()
    (tmp_path / "nowhere.seg").symlink_to(tmp_path / "nowhere")
    owner = Owner(tmp_path)
    owner.request(b"sound")
    owner.spool.close()
    reader = Reader(tmp_path)
    assert drain(reader) == [b"sound"]
    reader.close()
    assert [path.name for path in (tmp_path / "dead-letter").iterdir()] == ["foreign.seg.corrupt"]


def test_body_that_contains_a_frame_forges_no_record(tmp_path: Path) -> None:
    """A caller who posts a spool file puts no record of his own into a torn segment."""
    other = Owner(tmp_path / "other")
    forged = b"".join(other.frame(b"forged")[0])
    owner = Owner(tmp_path)
    owner.request(b"honest")
    current = owner.spool.segment
    assert current is not None
    torn = b"".join(owner.frame(forged * 10)[0])
    os.pwrite(current.descriptor, torn[:-5], current.end)
    owner.die()
    reader = Reader(tmp_path)
    assert drain(reader) == [b"honest"]
    reader.close()


def test_live_writer_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    """What a living process is just writing is left to it, and read when it is whole."""
    owner = Owner(tmp_path)
    owner.request(b"first")
    current = owner.spool.segment
    assert current is not None
    frame = b"".join(owner.frame(b"second")[0])
    os.pwrite(current.descriptor, frame[:20], current.end)
    reader = Reader(tmp_path)
    assert drain(reader) == [b"first"]
    assert drain(reader) == []
    os.pwrite(current.descriptor, frame[20:], current.end + 20)
    assert drain(reader) == [b"second"]
    reader.close()
    owner.die()


WRITER = """
import sys, uuid
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_spool import Owner
owner = Owner(Path(sys.argv[1]), 1 << 30)
number = 0
while True:
    owner.request(b"%d" % number + b"x" * (number % 3000))
    owner.spool.reserved_bytes = 0
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("run", range(3))
def test_kill_9_of_a_writer_loses_no_acknowledged_record(tmp_path: Path, run: int) -> None:
    """What was acknowledged before kill -9 is read; at most the one in the making comes besides."""
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), here], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        acknowledged = -1
        for line in writer.stdout:
            acknowledged = int(line)
            if acknowledged == 3000 + run * 777:
                writer.send_signal(signal.SIGKILL)
                break
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    reader = Reader(tmp_path)
    numbers = [int(body.rstrip(b"x")) for body in drain(reader)]
    reader.close()
    assert numbers == list(range(len(numbers)))
    assert len(numbers) - 1 - acknowledged in (0, 1)


def test_cap_bounds_the_folder_over_all_its_processes(tmp_path: Path) -> None:
    """Several writers together stay below the cap, and go on when room is freed."""
    owners = [Owner(tmp_path) for _ in range(4)]
    refused = accepted = 0
    for number in range(4000):
        try:
            owners[number % 4].request(b"x" * 1000)
        except OSError:
            refused += 1
        else:
            owners[number % 4].spool.reserved_bytes = 0
            accepted += 1
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= CAP
    assert refused > 0
    assert accepted * 1000 > CAP * 0.6, "most of the cap is of use"
    reader = Reader(tmp_path)
    assert len(drain(reader)) == accepted
    for owner in owners:
        owner.spool._retry_at = 0.0
        owner.request(b"again")
        owner.spool.close()
    assert drain(reader) == [b"again"] * 4
    reader.close()


def test_response_has_room_when_the_folder_is_full(tmp_path: Path) -> None:
    """Every admitted call gets its response row: whole where it fits, else without its body."""
    owner = Owner(tmp_path, 256 * 1024)
    admitted = 0
    with contextlib.suppress(SpoolFull):
        while True:
            owner.request(b"x" * 100)
            admitted += 1
    for _ in range(admitted):
        owner.response(b"y" * 5000)
    owner.spool.close()
    reader = Reader(tmp_path)
    found = drain(reader)
    reader.close()
    assert sum(body.startswith(b"x") for body in found) == admitted
    assert sum(body == b"cut" or body.startswith(b"y") for body in found) == admitted


def test_frame_with_a_short_error_fits_in_the_reserve() -> None:
    """The smallest response row, with the longest short error, is no larger than the room kept."""
    from minimal_transformer.recording.handler import SHORT_ERROR_CHARACTERS, Call
    from minimal_transformer.recording.ids import MAX_CHARACTERS
    from minimal_transformer.recording.rows import StoredBody, encode_response

    call = Call(bytes(16), 1, 1, "\U0001f600" * MAX_CHARACTERS, ROUTE)
    row = encode_response(
        record_id=bytes(16),
        request_time_us=1,
        pair_id=call.pair_id.encode(),
        response_time_us=2,
        status_code=500,
        duration_ms=1.0,
        error="\U0001f600" * SHORT_ERROR_CHARACTERS,
        body=StoredBody(None, None, 2**31 - 1, truncated=True, hashed=None),
    )
    assert spool_format.encode_frame(Kind.RESPONSE, 1, row, 0)[1] <= call.response_bytes


def test_leftover_of_a_death_while_making_a_segment_is_removed(tmp_path: Path) -> None:
    """A file that never became a segment takes no room for ever."""
    unfinished = tmp_path / (spool_format.file_name(bytes(16), 1) + spool_format.UNFINISHED_SUFFIX)
    unfinished.write_bytes(spool_format.encode_header(CAP, bytes(16), 1))
    os.utime(unfinished, (1, 1))
    reader = Reader(tmp_path)
    assert reader.next_batch(1, 1) == []
    assert not unfinished.exists()


def test_room_that_a_dead_owner_reserved_is_given_back(tmp_path: Path) -> None:
    """Delivery seals the files of the dead at once, so that restarts do not fill the cap."""
    for _ in range(10):
        owner = Owner(tmp_path, 10 * CAP)
        owner.request(b"x")
        owner.die()
    assert taken_bytes(tmp_path) > CAP
    reader = Reader(tmp_path)
    assert len(reader.next_batch(1, CAP)) == 1
    assert taken_bytes(tmp_path) < 10 * 1000
    reader.close()


def test_segment_that_somebody_deleted_is_replaced(tmp_path: Path) -> None:
    """What was in the file goes to a new one, also when the next call comes late or never."""
    owner = Owner(tmp_path / "spool")
    owner.request(b"before")
    shutil.rmtree(tmp_path / "spool")
    owner.request(b"after")
    shutil.rmtree(tmp_path / "spool")
    owner.spool.close()
    reader = Reader(tmp_path / "spool")
    assert drain(reader) == [b"before", b"after"]
    reader.close()


def test_only_what_was_not_delivered_of_a_deleted_segment_is_kept(tmp_path: Path) -> None:
    """What delivery has marked is in the tables already."""
    owner = Owner(tmp_path / "spool")
    owner.request(b"delivered")
    reader = Reader(tmp_path / "spool")
    assert drain(reader) == [b"delivered"]
    reader.close()
    owner.request(b"not yet")
    shutil.rmtree(tmp_path / "spool")
    owner.spool.close()
    reader = Reader(tmp_path / "spool")
    assert drain(reader) == [b"not yet"]
    reader.close()


def test_short_write_leaves_no_trace(tmp_path: Path) -> None:
    """Half a record is taken back, and the next one follows the last whole one."""
    owner = Owner(tmp_path)
    owner.request(b"first")
    assert isinstance(owner.spool.segment, Segment)
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (owner.spool.segment.end + 50, before[1]))
    try:
        with pytest.raises(OSError, match=r"bytes could be written|too large"):
            owner.request(b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    owner.request(b"second")
    owner.spool.close()
    reader = Reader(tmp_path)
    assert drain(reader) == [b"first", b"second"]
    reader.close()


def test_salvage_is_linear_in_what_looks_like_frames() -> None:
    """A damaged file full of frames that claim megabytes: the next real record is found.

    Counted are the bytes that are checksummed, not seconds.
    """
    recorder = bytes(range(16))
    seed = spool_format.seed_of(recorder)
    size = 4 * 1024 * 1024
    fakes = {kind: spool_format.encode_frame(kind, 1, [bytes(10)], 0)[0][0][:24] for kind in (1, 2)}
    checked = 0
    real = spool_format.crc32

    def counting(data: bytes, value: int = 0) -> int:
        nonlocal checked
        checked += len(data)
        return real(data, value)

    row = rows.encode_request(
        record_id=bytes(16),
        request_time_us=0,
        recorder_id=recorder,
        sequence=1,
        pair=rows.text_fields("pair", "generated"),
        process=rows.text_fields("primary", "double", None),
        route=rows.text_fields("model", "v1", "http://p"),
        headers=b"{}",
        body=rows.NO_BODY,
    )
    frame = b"".join(spool_format.encode_frame(Kind.REQUEST, 1, row, seed)[0])
    for fake in fakes.values():
        magic, crc, version, kind, _, body_at, time_us = struct.unpack("<2sIBBIIq", fake)
        claims = struct.pack("<2sIBBIIq", magic, crc, version, kind, size // 2, body_at, time_us)
        data = b"?" + claims * (size // len(claims)) + frame
        spool_format.crc32 = counting  # type: ignore[attr-defined]
        try:
            found = spool_format.find_frame(data, seed, recorder)
        finally:
            spool_format.crc32 = real  # type: ignore[attr-defined]
        assert found == len(data) - len(frame)
    assert checked < 20 * size
