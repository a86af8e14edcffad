"""Runs side by side on the emulated NPU: scripts, faults that must be found, certificates."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from karez.core.errors import BadRequest
from karez.equivalence import certificate as papers
from karez.equivalence import settings as settings_of
from karez.equivalence import signed_certificate
from karez.equivalence.compare import compare
from karez.equivalence.distance import distance
from karez.equivalence.record import Record
from karez.equivalence.run import Outcome, verify
from karez.equivalence.run_spec import RECORDER, VerifyRequest
from karez.migration.file_writer import write
from karez.migration.findings import Target
from karez.migration.rewrite import plan

SCRIPTS = Path(__file__).parent.parent / "migration" / "scripts"
ALL = sorted(path.name for path in SCRIPTS.glob("*.py"))
SHORT = ("gpt.py", "fsdp.py", "ddp.py")
"""What stories and deep tests run; `make proof` takes all of them."""
CHOSEN = ALL if os.environ.get("KAREZ_TEST_SCRIPTS") == "all" else SHORT
STORIES = ("gpt.py", "ddp.py")
LOSSY = {
    "convnet.py": "norm",
    "ddp.py": "module.1",
    "diffusion.py": "blocks.1.2",
    "fsdp.py": "1.norm1",
    "gan.py": "model.1",
    "gpt.py": "h.1.mlp.1",
    "hf.py": "transformer.h.0.ln_1",
    "lstm.py": "encoder",
    "reinforce.py": "body.1",
    "transformer.py": "core.encoder.norm",
    "unet.py": "down.1",
    "vae.py": "fc3",
}
"""A module of each script that is spoiled by a thousandth."""
RANKS = {"ddp.py": 2}
"""What is started by torchrun; the others are one process."""


def both(tmp_path: Path, script: str) -> tuple[Path, Path]:
    """The script, and what the rewrite makes of it."""
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        shutil.copy(SCRIPTS / script, tmp_path / name / script)
    made = plan(tmp_path / "after", target=Target.AGNOSTIC)
    write(tmp_path / "after", made.changes)
    return tmp_path / "before", tmp_path / "after"


def prove(tmp_path: Path, script: str, **more: Any) -> Outcome:
    before, after = tmp_path / "before", tmp_path / "after"
    ranks = RANKS.get(script, 1)
    order = VerifyRequest(
        original=before, migrated=after, words=[script], limit_s=300.0, ranks=ranks, **more
    )
    return verify(order, tmp_path / "work", lambda _: None)


@pytest.mark.story
@pytest.mark.parametrize(
    "script",
    [one if one in STORIES else pytest.param(one, marks=pytest.mark.deep) for one in CHOSEN],
)
def test_migrated_scripts_train_on_the_emulated_npu_with_the_references_losses(
    tmp_path: Path, script: str
) -> None:
    both(tmp_path, script)
    found = prove(tmp_path, script)
    verdict = found.verdict
    assert found.target.about["devices"] == ["npu"]
    assert verdict.is_lossless, (verdict.first, verdict.unmatched[:3], verdict.loss_error)
    body = papers.certificate(found, now="now", version="0")
    assert body["compared"]["ranks"] == RANKS.get(script, 1)
    signed = signed_certificate.sign(body, tmp_path / "key")
    assert signed["lossless"]
    assert not signed_certificate.check(signed)
    assert "emulated" in papers.page(signed, found)
    reference = str(tmp_path / "work" / "reference")  # a recorded run is a reference too
    spoiled = prove(tmp_path, script, reference=reference, fault=f"{LOSSY[script]}=1e-3")
    assert not spoiled.verdict.is_lossless
    assert spoiled.verdict.first is not None
    assert (spoiled.verdict.first.name, spoiled.verdict.first.kind) == (LOSSY[script], "forward")


@pytest.mark.story
def test_the_first_module_that_differs_is_named_and_nothing_where_nothing_does() -> None:
    env = {**os.environ, "KAREZ_EMUNPU": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.migration.finder"],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    rows = json.loads(done.stdout.splitlines()[-1])
    clean = [row for row in rows if row["what"].startswith("clean")]
    faults = [row for row in rows if not row["what"].startswith("clean")]
    assert len(clean) >= 60
    assert all(row["lossless"] for row in clean), [row for row in clean if not row["lossless"]]
    assert len(faults) >= 60
    wrong = [row for row in faults if row["want"] != row["got"]]
    assert len(wrong) <= 0.05 * len(faults), wrong


@pytest.mark.story
def test_numbers_beside_tensors_are_what_they_are_on_a_cpu() -> None:
    words = [sys.executable, "-W", "ignore", "-m", "tests.migration.arithmetic"]
    said = [
        subprocess.run(
            [*words, device],
            env={**os.environ, "KAREZ_EMUNPU": on},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for device, on in (("cpu", "0"), ("npu", "1"))
    ]
    cpu, npu = (json.loads(text.splitlines()[-1]) for text in said)
    assert len(cpu) > 300
    assert [row for row, other in zip(cpu, npu, strict=True) if row != other] == []


@pytest.mark.story
def test_runs_on_other_data_are_told_apart_from_modules_that_differ(tmp_path: Path) -> None:
    script = (
        "import torch\ntorch.manual_seed(0)\nnet = torch.nn.Linear(4, 2)\n"
        "optimizer = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "loss = net(torch.full((3, 4), 1.0)).pow(2).mean()\nloss.backward()\noptimizer.step()\n"
    )
    records = []
    for name, text in (("a", script), ("b", script.replace("1.0", "2.0"))):
        (tmp_path / f"{name}.py").write_text(text)
        folder, path = tmp_path / name, str(tmp_path / f"{name}.py")
        words = [sys.executable, "-m", RECORDER, str(folder), "--", path]
        subprocess.run(words, check=True, capture_output=True)
        records.append(Record.read(folder / "rank-0"))
    first = compare(*records).first
    assert first is not None
    assert "other data" in first.problem


@pytest.mark.story
def test_a_script_that_ends_with_a_code_has_failed(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(BadRequest, match="failed on cpu"):
        prove(tmp_path, "a.py")


def test_a_chip_that_no_table_has_is_refused(tmp_path: Path) -> None:
    both(tmp_path, "gpt.py")
    with pytest.raises(BadRequest, match="910X"):
        prove(tmp_path, "gpt.py", chip="910X")


@pytest.mark.deep
def test_the_suite_gives_the_cpus_numbers_on_the_emulated_npu_and_on_a_strict_one(
    tmp_path: Path,
) -> None:
    def suite(device: str, **more: str) -> dict[str, Any]:
        env = {**os.environ, **more}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.migration.suite", device],
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    cpu, npu = suite("cpu"), suite("npu", KAREZ_EMUNPU="1")
    assert len(cpu) == 29
    for name, want in cpu.items():
        assert not isinstance(npu[name], str), f"{name}: {npu[name]}"
        limit = 2e-3 if name == "autocast" else 2e-5
        assert distance(numbers(want), numbers(npu[name])) <= limit, name
    assert sum(cpu[name] == npu[name] for name in cpu) >= 15  # most to the bit
    listed = tmp_path / "operators"
    listed.write_text(" ".join(support_kernels()))
    chip = suite("npu", KAREZ_EMUNPU="1", KAREZ_EMUNPU_CHIP="A2")
    refused = {name: text for name, text in chip.items() if isinstance(text, str)}
    assert set(refused) == {"mixtral", "grad_scaler", "complex_numbers"}
    assert "torch.histc is documented with float16, float32, not int32" in refused["mixtral"]
    assert all(chip[name] == npu[name] for name in chip if name not in refused)
    strict = suite("npu", KAREZ_EMUNPU="1", KAREZ_EMUNPU_OPS=str(listed))
    without = {name for name, value in strict.items() if isinstance(value, str)}
    assert without == {"linear_algebra"}  # Ascend has no kernel for Cholesky
    assert {name: strict[name] for name in strict if name not in without} == {
        name: npu[name] for name in npu if name not in without
    }


def support_kernels() -> list[str]:
    from karez.ascend.operator_support import KERNELS

    return sorted(KERNELS)


def numbers(value: Any) -> np.ndarray:
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value)]
    if isinstance(value, list):
        return np.concatenate([numbers(one) for one in value] or [np.zeros(0)])
    return np.array([float(value)])


def record(outs: dict[str, list[float]], losses: list[float], **about: Any) -> Record:
    rows: list[dict[str, Any]] = []
    samples: dict[str, np.ndarray] = {}
    for name, values in outs.items():
        key = f"{len(rows)}/out/out"
        samples[key] = np.array(values)
        said = {"shape": [len(values)], "dtype": "float32", "norm": 0.0, "finite": True} | about
        rows.append(
            {
                "step": 0,
                "kind": "forward",
                "name": name,
                "type": "X",
                "leaf": True,
                "out": {"out": said},
                "in": {},
            }
        )
    return Record(rows=rows, samples=samples, losses=losses, about={})


def test_differences_are_judged_by_type_and_by_the_references_own_spread() -> None:
    base = record({"a": [1.0, 2.0], "b": [1.0]}, [0.5])
    assert compare(base, record({"a": [1.0, 2.00001], "b": [1.0]}, [0.5])).is_lossless
    off = compare(base, record({"a": [1.0, 2.001], "b": [1.0]}, [0.5]))
    assert off.first is not None
    assert off.first.name == "a"
    again = record({"a": [1.0, 2.0005], "b": [1.0]}, [0.5])
    assert compare(base, record({"a": [1.0, 2.001], "b": [1.0]}, [0.5]), again).is_lossless
    assert not compare(base, record({"a": [1.0, 2.0], "b": [1.0]}, [0.6])).is_lossless
    assert not compare(base, record({"a": [1.0, 2.0]}, [0.5])).is_lossless
    other = compare(base, record({"a": [1.0, 2.0], "b": [1.0]}, [0.5], dtype="bfloat16"))
    assert other.first is not None
    assert "float32 against bfloat16" in other.first.problem
    assert distance(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == 0.0
    assert distance(np.array([np.nan]), np.array([1.0])) == float("inf")


def test_settings_that_differ_are_no_lossless_move_though_results_agree() -> None:
    net, other = torch.nn.LayerNorm(4), torch.nn.LayerNorm(4, eps=1e-6)
    steps = torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.SGD(net.parameters(), lr=0.2)
    base, moved = record({"a": [1.0]}, [0.5]), record({"a": [1.0]}, [0.5])
    for one, module, optimizer in ((base, net, steps[0]), (moved, other, steps[1])):
        found = {"norm": settings_of.of_module(module), "SGD": settings_of.of_optimizer(optimizer)}
        one.about["settings"] = json.loads(json.dumps(found))
    verdict = compare(base, moved)
    assert not verdict.is_lossless
    assert verdict.settings == [
        "norm: eps is 1e-06 instead of 1e-05",
        "SGD: group 0 lr is 0.2 instead of 0.1",
    ]
    vars(net).update(where="cuda:0", kind="gelu")
    assert "where" not in settings_of.of_module(net)
    assert settings_of.of_module(net)["kind"] == "gelu"
    assert compare(base, base).is_lossless


def test_a_certificate_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    body = {"form": signed_certificate.FORM, "lossless": False}
    signed = signed_certificate.sign(body, tmp_path / "key")
    assert not signed_certificate.check(signed)
    assert not signed_certificate.check(
        json.loads(json.dumps(signed)), bytes.fromhex(signed["public"])
    )
    assert "changed" in signed_certificate.check({**signed, "lossless": True})
    assert "another key" in signed_certificate.check(signed, bytes(32))
    assert "no certificate" in signed_certificate.check({**signed, "form": "x"})
    other = signed_certificate.sign(body, tmp_path / "other")
    assert "changed" in signed_certificate.check({**other, "signature": signed["signature"]})


def test_a_script_that_fails_says_why_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("raise RuntimeError('needs CUDA')\n")
    order = VerifyRequest(original=tmp_path, migrated=tmp_path, words=["a.py"])
    with pytest.raises(BadRequest, match="needs CUDA") as caught:
        verify(order, tmp_path / "w", lambda _: None)
    assert "--reference migrated" in caught.value.hint()
    for wrong in (replace(order, words=["b.py"]), replace(order, target="tpu")):
        with pytest.raises(BadRequest):
            verify(wrong, tmp_path / "w", lambda _: None)
