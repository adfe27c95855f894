"""The spool takes no records: no answer is touched, and every dropped call is counted and shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from deployment import Start
from evidence import check_every_answer_is_stored_once, gaps, records, stored, tell
from load import Caller, Load
from processes import fill, mount
from serving import PREDICT, SAMPLE, Transformer, new_pair, until

from embedded_postgres import Postgres

LARGE = b'{"values": [%s]}' % b", ".join([b"1"] * 1000)
COMPLAINT = "Calls are answered but not recorded"


def until_dropped(server: Transformer, calls: int) -> None:
    """Returns once so many calls were dropped."""
    until(lambda: records(server, "dropped") >= calls, f"{calls} dropped calls")


def until_recorded(server: Transformer, more: int = 50) -> None:
    """Returns once so many more calls are on the spool."""
    before = records(server, "spooled")
    until(lambda: records(server, "spooled") >= before + more, f"{more} recorded calls")


def recorded_last(server: Transformer) -> set[str]:
    """The pair ids of calls of which the last is recorded: every gap before it has an end."""
    called, before = set(), records(server, "spooled")
    while records(server, "spooled") == before:
        pair = new_pair()
        assert server.post(PREDICT, SAMPLE, x_shadow_pair_id=pair).status == 200
        called.add(pair)
    return called


def check_drops_are_exact(uri: str, server: Transformer, load: Load) -> None:
    """Every call was answered; those without rows are as many as are counted, and are the gaps."""
    assert not load.failed
    until(
        lambda: records(server, "written") == records(server, "spooled"), "the spool to be written"
    )
    answered = load.answered | recorded_last(server)
    until(lambda: stored(uri).responses == records(server, "spooled"), "the last responses")
    found = stored(uri)
    dropped = records(server, "dropped")
    missing = answered - found.statuses.keys()
    assert len(missing) == dropped > 0
    assert gaps(uri) == dropped
    assert found.requests == found.responses == len(answered) - dropped
    assert set(found.statuses.values()) == {200}
    tell(answered=len(answered), requests=found.requests, dropped=dropped, gaps=gaps(uri))


def test_spool_at_its_cap_drops_and_counts(
    postgres: Postgres, transformer_uri: str, start: Start, spool: Path
) -> None:
    """SPOOL_MAX_BYTES is reached in an outage: the newest are dropped, told, and shown as gaps."""
    cap = 128 * 1024
    server = start(transformer_uri, SPOOL_MAX_BYTES=str(cap))
    with Load(server) as load:
        load.until_answered(50)
        postgres.stop()
        until_dropped(server, 200)
        held = sum(file.stat().st_size for file in spool.rglob("*") if file.is_file())
        assert held <= cap
        postgres.start()
        until_recorded(server)
        until(lambda: "Calls are recorded again" in server.log, "the good news")
    check_drops_are_exact(postgres.uri, server, load)

    def every_complaint_is_over() -> bool:
        server.post(PREDICT, SAMPLE)
        return server.log.count(COMPLAINT) == server.log.count("Calls are recorded again")

    until(every_complaint_is_over, "good news for each complaint")


def test_spool_on_a_full_disk_drops_and_counts(
    small_disk: Callable[[str], Path], postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """The spool's disk is smaller than the outage: what it holds is kept, the rest is counted."""
    disk = small_disk("size=1m")
    server = start(transformer_uri, SPOOL_DIR=str(disk / "spool"))
    with Load(server, caller=Caller(body=LARGE, answer=None)) as load:
        load.until_answered(50)
        until(lambda: stored(postgres.uri).requests, "rows while nothing is wrong")
        postgres.stop()
        until_dropped(server, 100)
        postgres.start()
        until_recorded(server)
    check_drops_are_exact(postgres.uri, server, load)


def test_disk_filled_by_others_drops_and_counts(
    small_disk: Callable[[str], Path], postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Somebody else fills the spool's disk: with room again, recording goes on by itself."""
    disk = small_disk("size=8m")
    spool = disk / "spool"
    server = start(transformer_uri, SPOOL_DIR=str(spool), SPOOL_MAX_BYTES=str(1024 * 1024))
    filler = disk / "filler"
    with Load(server) as load:
        load.until_answered(50)
        fill(filler)
        postgres.stop()
        until_dropped(server, 100)
        assert "No space left on device" in server.log
        assert f". Free space in {spool}, raise SPOOL_MAX_BYTES" in server.log
        filler.unlink()
        until_recorded(server)
        postgres.start()
        until_recorded(server)
    check_drops_are_exact(postgres.uri, server, load)


def test_read_only_spool_serves_and_counts(
    small_disk: Callable[[str], Path], postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """The spool's file system is read-only at the start, and writable later."""
    disk = small_disk("size=64m,ro")
    server = start(transformer_uri, SPOOL_DIR=str(disk))
    with Load(server) as load:
        load.until_answered(100)
        mount("-o", "remount,rw", str(disk))
        until_recorded(server)
    check_drops_are_exact(postgres.uri, server, load)


def test_spool_that_cannot_be_made_serves_and_counts(
    postgres: Postgres, transformer_uri: str, start: Start, tmp_path: Path
) -> None:
    """A file stands where the spool's folder should be; once it is gone, the folder is made."""
    obstacle = tmp_path / "obstacle"
    obstacle.write_text("in the way")
    server = start(transformer_uri, SPOOL_DIR=str(obstacle / "spool"))
    with Load(server) as load:
        load.until_answered(100)
        obstacle.unlink()
        until_recorded(server)
    check_drops_are_exact(postgres.uri, server, load)


def test_deleted_spool_is_made_again(
    postgres: Postgres, transformer_uri: str, start: Start, spool: Path
) -> None:
    """Somebody deletes the folder in an outage: its owner still has the file, and loses nothing."""
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(50)
        until(lambda: records(server, "written") >= 50, "the first rows")
        postgres.stop()
        load.until_answered(100)
        shutil.rmtree(spool)
        load.until_answered(100)
        postgres.start()
        load.until_answered(100)
    check_every_answer_is_stored_once(postgres.uri, load)


def test_two_transformers_share_a_spool(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Two transformers on one spool folder: one delivers for both, and its death costs nothing."""
    first, second = start(transformer_uri), start(transformer_uri)
    with Load(first, rate=125) as one, Load(second, rate=125) as two:
        one.until_answered(100)
        assert first.stop() == 0, first.log
        two.until_answered(200)
    assert not two.failed
    check_every_answer_is_stored_once(postgres.uri, one, two)
