"""Logs keep their newest bytes, and offsets stay."""

import os
from pathlib import Path

import pytest

from karez.core.processes import LogChunk
from karez.transport import log_file
from karez.transport.log_file import append_log_file, drop_old, read_log_file

KEPT = 64 * 1024


@pytest.mark.parametrize("has_holes", [True, False])
def test_the_newest_bytes_stay_where_they_were(
    tmp_path: Path, has_holes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    if not has_holes:  # a mode that no file system knows
        monkeypatch.setattr(log_file, "FALLOC_FL_PUNCH_HOLE", 1 << 20)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # as a process does
    whole = b""
    for number in range(400):
        line = b"%06d " % number * 100
        whole += line
        os.write(fd, line)
        drop_old(path, KEPT)
        assert path.stat().st_blocks * 512 <= 2 * KEPT + 4096
    os.close(fd)
    assert path.stat().st_size == len(whole)
    chunk = read_log_file(path, 0, 1 << 20)
    assert chunk.start > 0
    assert len(chunk.data) >= KEPT
    assert chunk.data == whole[chunk.start :]
    assert read_log_file(path, len(whole) - 10, 4).data == whole[-10:-6]
    copy = tmp_path / "copy"
    append_log_file(copy, chunk)
    assert read_log_file(copy, chunk.start, 1 << 20) == chunk
    assert copy.stat().st_size == len(whole)


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    drop_old(tmp_path / "none", KEPT)
    assert read_log_file(tmp_path / "none", 7, 10) == LogChunk(start=7, data=b"")
    (tmp_path / "short").write_bytes(b"abc")
    assert read_log_file(tmp_path / "short", 3, 10) == LogChunk(start=3, data=b"")
