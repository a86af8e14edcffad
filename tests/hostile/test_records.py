"""Records that can be relied on: by whom a certificate was signed (M8). Receipts: test_receipts."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from karez.cli.main import app
from karez.equivalence import signed_certificate


@pytest.mark.parametrize("given", ["own", "other", "none"])
def test_a_certificate_says_by_whom_or_that_it_is_not_known(tmp_path: Path, given: str) -> None:
    """M8: anyone writes a body and makes a key on the spot."""
    body = {"form": signed_certificate.FORM, "lossless": True, "made_at": "2026-11-28"}
    forged = signed_certificate.sign(body, tmp_path / "forged.key")
    file = tmp_path / "c.json"
    file.write_text(json.dumps(forged))
    signed_certificate.sign(body, tmp_path / "other.key")
    publics = {
        "own": (tmp_path / "forged.pub").read_text().strip(),
        "other": (tmp_path / "other.pub").read_text().strip(),
        "none": "",
    }
    key = ["--key", publics[given]] if given != "none" else []
    done = CliRunner().invoke(app, ["migrate", "check", str(file), *key])
    assert done.exit_code == {"own": 0, "other": 1, "none": 3}[given], done.output
    assert ("not known" in done.output) == (given == "none")


@pytest.mark.parametrize("text", ["[]", "5", "{}", "[" * 5000, '{"form": "x"}', "\0"])
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.json"
    file.write_text(text)
    done = CliRunner().invoke(app, ["migrate", "check", str(file)])
    assert done.exit_code == 1, done.output
