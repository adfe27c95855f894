"""Moments that load meets too seldom to wait for, made on purpose."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from delivering import record, request, settings

from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.spool import reader as reader_module
from minimal_transformer.spool.format import HEADER_BYTES, read_header
from minimal_transformer.spool.reader import Source


def open_recorder(folder: Path) -> PredictionDBHandler:
    """A recorder with its spool below the folder."""
    handler = PredictionDBHandler(settings(folder))
    handler.open()
    return handler


def only_segment(folder: Path) -> Path:
    """The one file of the spool below the folder."""
    (path,) = (folder / "spool").glob("*.seg")
    return path


def test_records_appended_while_the_file_is_read_are_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner appends right after a read that met the end: the next read gives it."""
    handler = open_recorder(tmp_path)
    record(handler, 1)
    source = Source(only_segment(tmp_path))
    assert len(source.read(1 << 20, 100)) == 2
    read = os.pread

    def raced(descriptor: int, size: int, offset: int) -> bytes:
        monkeypatch.setattr(reader_module.os, "pread", read)
        data = read(descriptor, size, offset)
        record(handler, 1)
        return data

    monkeypatch.setattr(reader_module.os, "pread", raced)
    found = source.read(1 << 20, 100) or source.read(1 << 20, 100)
    assert [frame.kind for frame in found] == [1, 2]
    source.close()
    handler.close()


def test_record_of_a_deleted_file_notes_its_place_in_no_other_file(tmp_path: Path) -> None:
    """A batch outlives its file: its delivery changes no file that got the descriptor's number."""
    handler = open_recorder(tmp_path)
    record(handler, 1)
    source = Source(only_segment(tmp_path))
    frames = source.read(1 << 20, 100)
    source.close()
    handler.close()
    shutil.rmtree(tmp_path / "spool")
    record(handler, 1)
    other = os.open(only_segment(tmp_path), os.O_RDWR)
    source.mark_delivered(frames[-1].end)
    header = read_header(other)
    assert header is not None
    assert header.delivered == HEADER_BYTES
    source.close()
    assert os.fstat(other).st_nlink == 1
    os.close(other)
    assert request(handler) is not None
    handler.close()
