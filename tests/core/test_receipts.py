"""Receipts: signed, chained, checked by anyone; goodput; plans of faults."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from karez.cli.main import app
from karez.core.chaos import HEALED, parse_faults, plan_faults
from karez.core.codec import to_text
from karez.core.fault_injection import FaultKind
from karez.core.goodput import goodput
from karez.core.receipts import Receipt, SignedReceipts, chained, check, head_of
from karez.vault.signing import CloudKey


def made(number: int, **more: Any) -> Receipt:
    at = 100.0 * number
    fields: dict[str, Any] = {
        "cause": "rank 1 killed by signal 9",
        "ranks": (1,),
        "rung": "in-place",
        "source": "shm",
        "detected_at": at,
        "decided_at": at + 0.02,
        "restored_at": at + 0.1,
        "resumed_at": at + 0.15,
        "step_before": 7,
        "step_restored": 6,
        **more,
    }
    return Receipt(id=f"rcp-x-{number}", job="job-x", generation=number, **fields)


@pytest.fixture
def signed(tmp_path: Path) -> tuple[CloudKey, list[Receipt]]:
    key = CloudKey(tmp_path / "receipts.key")
    found: list[Receipt] = []
    for number in range(1, 5):
        found.append(key.sign(chained(made(number), found[-1] if found else None)))
    return key, found


def test_signed_receipts_verify_and_the_key_file_is_private(
    tmp_path: Path, signed: tuple[CloudKey, list[Receipt]]
) -> None:
    key, receipts = signed
    assert check(receipts, key.public) == []
    assert (tmp_path / "receipts.key").stat().st_mode & 0o777 == 0o600
    again = CloudKey(tmp_path / "receipts.key")
    assert again.public == key.public


def test_a_receipt_of_emulated_devices_cannot_pass_for_one_of_real_devices(
    tmp_path: Path,
) -> None:
    key = CloudKey(tmp_path / "receipts.key")
    receipt = key.sign(chained(made(1, emulated=True), None))
    assert check([receipt], key.public) == []
    assert check([replace(receipt, emulated=False)], key.public)


def test_an_altered_a_missing_and_a_foreign_receipt_are_found(
    tmp_path: Path, signed: tuple[CloudKey, list[Receipt]]
) -> None:
    key, receipts = signed
    first = receipts[0]
    for forged in (
        replace(first, step_before=6),
        replace(first, resumed_at=100.05),
        replace(first, cause="x"),
        replace(first, rung="y"),
    ):
        wrong = check([forged, *receipts[1:]], key.public)
        assert any("does not fit" in one for one in wrong), forged
    gone = [receipts[0], *receipts[2:]]
    assert check(gone, key.public) == [
        f"{receipts[2].id}: the receipt before it is missing or altered"
    ]
    other = CloudKey(tmp_path / "other.key")
    assert len(check(receipts, other.public)) == 8


def test_receipts_are_verified_offline_from_a_file(
    tmp_path: Path, signed: tuple[CloudKey, list[Receipt]]
) -> None:
    key, receipts = signed
    file = tmp_path / "r.json"
    shown = [
        {**asdict(r), "steps_lost": r.steps_lost, "recovery_s": r.recovery_s} for r in receipts
    ]
    file.write_text(json.dumps(shown))
    runner = CliRunner()
    words = ["receipts", "verify", str(file), "--key", key.public.hex(), "--json"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0
    assert json.loads(done.output)["valid"] is True
    assert json.loads(done.output)["complete"] is False  # later ones may be missing
    for field, value in (("step_restored", 7), ("steps_lost", 0), ("recovery_s", 0.0), ("x", 1)):
        changed = [shown[0], {**shown[1], field: value}, *shown[2:]]
        file.write_text(json.dumps(changed))
        assert runner.invoke(app, words).exit_code == 1, field


def test_receipts_with_a_head_cannot_lose_their_end(
    tmp_path: Path, signed: tuple[CloudKey, list[Receipt]]
) -> None:
    key, receipts = signed
    job = receipts[0].job
    head = key.sign_head(head_of(job, "succeeded", receipts, 9.0))
    empty = key.sign_head(head_of(job, "succeeded", [], 9.0))
    forged = replace(head, count=len(receipts) - 2, last=receipts[-3].digest)
    other = key.sign_head(head_of("job-2", "succeeded", receipts, 9.0))
    file, runner = tmp_path / "r.json", CliRunner()
    words = ["receipts", "verify", str(file), "--key", key.public.hex()]
    for told, here, is_fine in (
        (head, receipts, True),
        (empty, [], True),
        (head, receipts[:-2], False),
        (forged, receipts[:-2], False),
        (head, [], False),
        (empty, receipts, False),
        (other, receipts, False),
        (replace(head, state="failed"), receipts, False),
    ):
        file.write_text(to_text(SignedReceipts(head=told, receipts=tuple(here))))
        done = runner.invoke(app, words)
        assert (done.exit_code == 0) == is_fine, (told, done.output)
        assert ("all true" in done.output) == is_fine


def test_goodput_subtracts_recoveries_repeated_steps_and_waits() -> None:
    found = goodput(
        [made(1), made(2)], began_at=0.0, until=1000.0, step_s=2.0, waited=[(300.0, 400.0)]
    )
    assert found.lost_s == pytest.approx(2 * 0.15 + 2 * 2.0 + 100.0)
    assert found.goodput == pytest.approx(1 - found.lost_s / 1000)
    assert (found.interruptions, found.restarts, found.steps_lost) == (3, 1, 2)
    assert found.longest_run_s == 700.0
    assert [(r.rung, r.count) for r in found.rungs] == [("in-place", 2)]
    told = replace(made(3), rung="restart", detected_at=299.0, resumed_at=401.0)
    once = goodput([told], began_at=0.0, until=1000.0, step_s=2.0, waited=[(300.0, 400.0)])
    assert (once.interruptions, once.restarts) == (1, 1)
    assert once.lost_s == pytest.approx(102.0 + 2.0)  # the wait is within it
    nothing = goodput([], began_at=0.0, until=0.0, step_s=0.0)
    assert (nothing.goodput, nothing.interruptions) == (1.0, 0)


def test_faults_are_read_and_planned_the_same_for_the_same_seed() -> None:
    faults = parse_faults("kill:40, stop:5,control")
    assert (len(faults), faults.count(FaultKind.STOP), faults[-1]) == (46, 5, FaultKind.CONTROL)
    first, again = plan_faults(faults, ranks=4, seed=3), plan_faults(faults, ranks=4, seed=3)
    assert first == again != plan_faults(faults, ranks=4, seed=4)
    assert sum(map(len, first)) == 46
    pairs = [group for group in first if len(group) > 1]
    assert pairs
    assert all(spec.what in HEALED for group in pairs for spec in group)
    assert {spec.rank for group in first for spec in group} == {0, 1, 2, 3}


@pytest.mark.parametrize("text", ["", "boom", "kill:x", "kill:-1", "kill:99999"])
def test_invalid_faults_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault|FAULT"):
        parse_faults(text)
