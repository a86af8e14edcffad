"""Records that can be relied on (M4, M8); for receipts (M7) see tests/core/test_receipts."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from karez.cli.main import app
from karez.cli.output import table
from karez.core.call_limits import NO_CALL_LIMITS
from karez.core.codec import to_text
from karez.core.errors import BadRequest
from karez.core.identity import KeySpec, Role
from karez.equivalence import signed_certificate
from karez.training.controller.outputs import MAX_CARD_BYTES, _read_manifest
from tests.hostile.conftest import TwoProjects


def test_a_row_of_the_audit_log_has_no_order_for_a_terminal(two: TwoProjects) -> None:
    """M4: names of keys, paths and subjects with escape codes, and very long ones."""
    api = two.api
    spec = {"name": "admin\x1b[2J", "project": "a", "role": "member"}
    assert api.ask("POST", "/keys", two.a_admin, json=spec).status_code == 422
    key = KeySpec.__new__(KeySpec)  # as an earlier release kept it
    for field, value in (
        ("name", "x\x1b[2J"),
        ("project", "*"),
        ("role", Role.ADMIN),
        ("expires_in_s", None),
        ("calls", NO_CALL_LIMITS),
    ):
        object.__setattr__(key, field, value)
    old = api.cloud.access.new_key(key)[1]
    for path in ("/jobs/%1b[31m%0a/cancel", f"/projects/a/secrets/{'s' * 5000}", "/keys/%07"):
        method = "DELETE" if "keys" in path else "PUT" if "secrets" in path else "POST"
        api.ask(method, path, old, json={"text": "x"})
    rows = api.ask("GET", "/audit").json()
    assert len(rows) == 4
    assert all(str(value).isprintable() for row in rows for value in row.values())
    assert max(len(row["action"]) for row in rows) < 3000


def test_tables_show_what_others_chose_and_do_not_do_it(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name",), [("\x1b[2Jgone",), ("[/red]",), ("two\nlines",)], empty="")
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "\\x1b[2Jgone" in shown
    assert "[/red]" in shown
    assert "two" in shown


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 200_000, "recursion"),
        ('{"name": "a/b"}', "invalid name"),
        ('{"name": "a\\u001b[2J"}', "invalid name"),
        ('{"facts": {"x": "a\\u0000"}}', "NUL"),
        ('{"kind": "evil"}', "kind"),
        ('{"name": "' + "x" * 500 + '"}', "invalid name"),
        ("x" * (MAX_CARD_BYTES + 1), "bytes"),
    ],
)
def test_what_a_job_says_of_its_output_is_checked(text: str, said: str) -> None:
    """H3: `karez.json` of a job that succeeded, which had stopped its controller."""
    with pytest.raises(BadRequest, match=f"(?i){said}"):
        _read_manifest("o", text.encode())


def test_numbers_that_are_not_finite_are_facts_that_are_not_known() -> None:
    read = _read_manifest("o", b'{"name": "ok", "facts": {"loss": NaN}}')
    assert read.name == "ok"
    assert '"loss":null' in to_text(read)
