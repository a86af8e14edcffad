"""The decision log's file is rotated where a line states the whole cluster, and not before."""

from pathlib import Path

import pytest

from karez.core.codec import to_brief_text
from karez.scheduling.decision_log import ClusterDelta
from karez.server import logs
from karez.server.logs import DecisionLogFile


def test_a_full_log_is_rotated_by_the_line_that_states_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "DECISION_LOG_BYTES", 10)
    file = DecisionLogFile(tmp_path / "decisions.log")
    change = to_brief_text(ClusterDelta(at=1.0))
    whole = to_brief_text(ClusterDelta(at=2.0, is_reset=True))
    for line in (change, change, whole, change):
        file.write(line)
    assert (tmp_path / "decisions.log.1").read_text().splitlines() == [change, change]
    assert (tmp_path / "decisions.log").read_text().splitlines() == [whole, change]
