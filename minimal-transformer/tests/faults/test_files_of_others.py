"""Files in the spool folder that this process may not read: said once, and everything goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from evidence import check_every_answer_is_stored_once, records, told
from load import Load
from serving import Predictor, Transformer, until

from embedded_postgres import Postgres

SOMEBODY = 12345


class WithoutPrivileges(Transformer):
    """Runs as root, to whom no file is closed, without what makes it so."""

    started_by = (
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-dac_override,-dac_read_search",
    )


@pytest.fixture
def start_unprivileged(
    tmp_path: Path, spool: Path, predictor: Predictor, transformer_uri: str
) -> Iterator[Callable[[], Transformer]]:
    """Starts a transformer that may read its own files alone."""
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user takes root; run this test as root")
    spool.mkdir()
    with ExitStack() as running:
        yield lambda: running.enter_context(
            WithoutPrivileges(tmp_path, transformer_uri, predictor.address, SPOOL_DIR=str(spool))
        )


def give_away(path: Path, mode: int) -> None:
    """Have another user own it, and nobody else read it."""
    path.chmod(mode)
    os.chown(path, SOMEBODY, SOMEBODY)


def test_unreadable_files_cost_no_record(
    start_unprivileged: Callable[[], Transformer], spool: Path, postgres: Postgres
) -> None:
    """A segment and the dead letters of another user: one line, and all calls are recorded."""
    segment = spool / f"{'ab' * 16}-00000001.seg"
    segment.write_bytes(bytes(4096))
    give_away(segment, 0o600)
    (spool / "dead-letter").mkdir()
    give_away(spool / "dead-letter", 0o700)
    server = start_unprivileged()
    with Load(server) as load:
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)
    assert records(server, "dropped") == 0
    assert server.log.count(str(segment)) == 1
    assert "Permission denied; the rest of the spool is delivered" in server.log


def test_lock_that_cannot_be_opened_is_said_and_tried_again(
    start_unprivileged: Callable[[], Transformer], spool: Path, postgres: Postgres
) -> None:
    """Nothing is delivered until it can; the line says what to do, and then it goes on."""
    lock = spool / "delivery.lock"
    lock.touch()
    give_away(lock, 0o600)
    server = start_unprivileged()
    with Load(server) as load:
        told(server, f"{lock} cannot be opened: Permission denied")
        load.until_answered(100)
        assert records(server, "written") == 0
        lock.unlink()
        until(lambda: records(server, "written") > 0, "delivery")
    check_every_answer_is_stored_once(postgres.uri, load)
    assert server.log.count("cannot be opened") == 1
