"""`karez jobs trace` and `karez restore` as a user meets them."""

from pathlib import Path

from tests.cli.conftest import Karez


def test_a_trace_is_shown_and_written_as_a_page(karez: Karez, tmp_path: Path) -> None:
    assert karez("jobs", "submit", "--name", "traced", "--", "true").code == 0
    shown = karez("jobs", "trace", "traced")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == ["trace", "job", "queue"]
    page = tmp_path / "trace.html"
    assert karez("jobs", "trace", "traced", "--page", str(page)).out == f"wrote {page}\n"
    assert page.read_text().startswith("<!doctype html>")
    refused = karez("jobs", "trace", "traced", "--page", str(tmp_path / "no" / "x.html"))
    assert (refused.code, "Name another file" in refused.err) == (2, True)


def test_a_restore_of_no_backup_is_refused(karez: Karez, tmp_path: Path) -> None:
    refused = karez("restore", str(tmp_path / "b"), "--home", str(tmp_path / "new"))
    assert refused.code == 2
    assert "is not a backup folder" in refused.err
