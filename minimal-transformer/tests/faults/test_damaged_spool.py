"""Files of the spool are damaged: the sound records of all files arrive."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployment import Start
from evidence import check_every_answer_is_stored_once, gaps, records, stored, tell
from load import Load
from processes import kill_pod
from serving import until

from embedded_postgres import Postgres

# Segments are a sixteenth of it, so that there are many.
CAP = str(4 * 1024 * 1024)


@pytest.fixture
def left(postgres: Postgres, transformer_uri: str, start: Start, spool: Path) -> Load:
    """Calls answered in an outage before the pod was killed; the spool has their records."""
    postgres.stop()
    server = start(transformer_uri, SPOOL_MAX_BYTES=CAP)
    with Load(server, rate=300) as load:
        load.until_answered(1000)
    assert not load.failed
    kill_pod(server)
    assert len(list(spool.glob("*.seg"))) > 1
    postgres.start()
    return load


def test_damage_costs_the_record_that_it_hits(
    left: Load, postgres: Postgres, transformer_uri: str, start: Start, spool: Path
) -> None:
    """A byte of one file is wrong: one row is lost and told of, and the file is kept.

    Several bytes may be of two records.
    """
    victim = min(spool.glob("*.seg"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(content)
    server = start(transformer_uri)
    until(lambda: not list(spool.glob("*.seg")), "an empty spool")
    found = stored(postgres.uri)
    lost = len(left.answered - found.statuses.keys())
    assert lost <= 1
    assert 2 * len(left.answered) - found.requests - found.responses == 1
    assert gaps(postgres.uri) == lost
    assert [file.name for file in (spool / "dead-letter").iterdir()] == [f"{victim.name}.corrupt"]
    assert "is damaged from byte" in server.log
    tell(answered=len(left.answered), requests=found.requests, responses=found.responses)


def test_rubbish_in_the_spool_costs_nothing(
    left: Load, postgres: Postgres, transformer_uri: str, start: Start, spool: Path
) -> None:
    """A torn tail, an empty file, a file of noise, a folder: all good records arrive."""
    files = sorted(spool.glob("*.seg"))
    with files[-1].open("r+b") as torn:
        head = torn.read(200)
        torn.seek(0, 2)
        torn.write(head[64:150])  # the beginning of a record, as a crash leaves it
    (spool / "00.seg").write_bytes(b"")
    (spool / "01.seg").write_bytes(bytes(range(256)) * 100)
    (spool / "02.seg").mkdir()
    (spool / "notes.txt").write_text("what is this?")
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(50)
    check_every_answer_is_stored_once(postgres.uri, left, load)
    assert records(server, "dropped") == 0
