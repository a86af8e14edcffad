"""Calls stay on disk until control has them, whatever fails."""

from pathlib import Path

import orjson
import pytest

from karez.serving.usage_spool import UsageSpool


def line(number: int) -> bytes:
    call = {
        "id": f"c{number}",
        "at": 1.0,
        "project": "p",
        "key_id": "k",
        "service": "s",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "status": 200,
        "duration_s": 1.0,
    }
    return orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE)


def test_calls_are_kept_where_no_new_file_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = UsageSpool(tmp_path / "calls.spool")
    spool.add([line(1)])

    def full() -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(spool, "_open", full)
        with pytest.raises(OSError, match="Too many"):
            spool.rotate()
    spool.add([line(2)])
    assert spool.rotate()
    assert [call.id for call in spool.take()] == ["c1", "c2"]
    spool.done()
    assert not spool.rotate()
    spool.close()
