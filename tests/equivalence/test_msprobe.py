"""Dumps that msprobe made, as records: read, compared with one another and with karez's own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from karez.cli.main import app
from karez.core.errors import BadRequest
from karez.equivalence import certificate as papers
from karez.equivalence import msprobe, signed_certificate
from karez.equivalence.distance import distance
from karez.equivalence.judgement import judge, read
from karez.equivalence.run import compare_folders

DUMPS = Path(__file__).parent / "msprobe"
NETWORK = """
import torch
torch.manual_seed(0)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act = torch.nn.Linear(8, 16), torch.nn.Tanh()
        self.fc2 = torch.nn.Linear(16, 4)
    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.randn(4, 8), torch.randint(0, 4, (4,))
loss = torch.nn.functional.cross_entropy(net(x), y)
loss.backward()
optimizer.step()
"""
"""What the dumps were made of."""


def test_what_is_in_a_dump_of_modules() -> None:
    record = msprobe.read(DUMPS / "tensors")
    seen = [(row["kind"], row["name"], row["type"]) for row in record.rows]
    assert seen[:3] == [
        ("forward", "fc1", "Linear"),
        ("forward", "act", "Tanh"),
        ("forward", "fc2", "Linear"),
    ]
    assert ("gradient", "fc1", "Linear") in seen
    assert ("backward", "act", "Tanh") in seen
    assert record.rows[0]["out"]["out"] == {"shape": [4, 16], "finite": True, "dtype": "float32"}
    assert record.samples["0/out/out"].size == 64
    assert set(record.rows[0]["in"]) == {"in.0", "of.weight", "of.bias"}


@pytest.mark.parametrize("name", ["tensors", "statistics", "functions"])
def test_a_dump_is_as_itself(name: str) -> None:
    found = compare_folders(DUMPS / name, DUMPS / name / "step0")
    assert found.verdict.is_lossless
    assert found.verdict.differences


def test_the_module_that_is_off_is_named_and_the_certificate_says_what_was_seen(
    tmp_path: Path,
) -> None:
    found = compare_folders(DUMPS / "statistics", DUMPS / "spoiled")
    verdict = found.verdict
    assert not verdict.is_lossless
    assert verdict.first is not None
    assert (verdict.first.kind, verdict.first.name) == ("forward", "act")
    assert verdict.loss_error > verdict.loss_limit
    signed = signed_certificate.sign(
        papers.certificate(found, now="now", version="0"), tmp_path / "key"
    )
    assert not signed["lossless"]
    assert any("norm, extremes" in line for line in signed["not_shown"])
    assert "act" in papers.page(signed, found)


@pytest.mark.story
def test_a_dump_is_a_reference_for_a_record(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "karez.equivalence.recorder",
            str(tmp_path / "record"),
            "--",
            str(tmp_path / "net.py"),
        ],
        check=True,
        capture_output=True,
    )
    own = read(tmp_path / "record")
    verdict = judge(msprobe.read(DUMPS / "tensors"), own)
    assert verdict.is_lossless
    assert [(d.kind, d.name) for d in verdict.differences if d.kind == "forward"] == [
        ("forward", "fc1"),
        ("forward", "act"),
        ("forward", "fc2"),
    ]
    with pytest.raises(BadRequest, match="nothing in common"):
        judge(msprobe.read(DUMPS / "functions"), own)


def _changed(tmp_path: Path, change: Any) -> Path:
    shutil.copytree(DUMPS / "statistics", tmp_path / "dump")
    path = tmp_path / "dump/step0/rank0/dump.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return tmp_path / "dump"


def test_what_is_not_finite_is_a_problem(tmp_path: Path) -> None:
    def spoil(table: Any) -> None:
        table["data"]["Module.fc2.Linear.forward.0"]["output"][0]["Max"] = float("inf")

    found = compare_folders(DUMPS / "statistics", _changed(tmp_path, spoil))
    assert any("finite" in one.problem for one in found.verdict.differences if one.name == "fc2")


def test_statistics_without_a_norm_are_compared_by_what_is_there(tmp_path: Path) -> None:
    def bare(table: Any) -> None:
        def strip(value: Any) -> None:
            if isinstance(value, dict):
                value.pop("Norm", None)
                for one in value.values():
                    strip(one)
            elif isinstance(value, list):
                for one in value:
                    strip(one)

        strip(table)

    same = _changed(tmp_path, bare)
    other = tmp_path / "other"
    shutil.copytree(same, other)
    path = other / "step0/rank0/dump.json"
    table = json.loads(path.read_text())
    table["data"]["Module.act.Tanh.forward.0"]["output"][0]["Max"] = 99.0
    path.write_text(json.dumps(table))
    assert compare_folders(same, same).verdict.is_lossless
    verdict = compare_folders(same, other).verdict
    assert verdict.first is not None
    assert verdict.first.name == "act"


@pytest.mark.parametrize("body", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_tensor_that_cannot_be_read_is_told(tmp_path: Path, body: bytes) -> None:
    shutil.copytree(DUMPS / "tensors", tmp_path / "dump")
    place = tmp_path / "dump/step0/rank0/dump_tensor_data"
    (place / "Module.act.Tanh.forward.0.output.0.pt").write_bytes(body)
    with pytest.raises(BadRequest, match="cannot be read"):
        msprobe.read(tmp_path / "dump")


def test_no_file_outside_the_dump_is_opened(tmp_path: Path) -> None:
    shutil.copytree(DUMPS / "tensors", tmp_path / "dump")
    path = tmp_path / "dump/step0/rank0/dump.json"
    name = "Module.act.Tanh.forward.0.output.0.pt"
    path.write_text(path.read_text().replace(name, "../../../../../../etc/passwd"))
    row = next(row for row in msprobe.read(tmp_path / "dump").rows if row["name"] == "act")
    assert set(row["out"]) == {"out:norm", "out:range"}


def test_one_dump_is_named_and_a_rank_is_not_replaced_by_another() -> None:
    with pytest.raises(BadRequest, match="more than one dump"):
        msprobe.read(DUMPS)
    with pytest.raises(BadRequest, match="no rank 3"):
        msprobe.read(DUMPS / "tensors", 3)


def test_a_mask_of_minus_infinity_is_no_difference() -> None:
    a = np.array([-np.inf, 1.0, 2.0])
    assert distance(a, a * (1 + 2e-7)) < 1e-6
    assert distance(a, np.array([1.0, -np.inf, 2.0])) == float("inf")


def test_checksums_are_compared_exactly(tmp_path: Path) -> None:
    def checksums(table: Any) -> None:
        for entry in table["data"].values():
            for one in entry.get("output", ()):
                if isinstance(one, dict):
                    one["md5"] = "0a1b2c3d"

    same = _changed(tmp_path, checksums)
    other = tmp_path / "other"
    shutil.copytree(same, other)
    path = other / "step0/rank0/dump.json"
    path.write_text(path.read_text().replace("0a1b2c3d", "0a1b2c3e", 1))
    assert compare_folders(same, same).verdict.is_lossless
    assert not compare_folders(same, other).verdict.is_lossless


@pytest.mark.parametrize("text", ["", "{", '{"data": {"Module.a.B.forward.0": 3}}', '{"no": 1}'])
def test_a_broken_dump_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "step0/rank0").mkdir(parents=True)
    (tmp_path / "step0/rank0/dump.json").write_text(text)
    with pytest.raises(BadRequest, match="cannot be read"):
        msprobe.read(tmp_path)


def test_a_rank_that_is_not_there(tmp_path: Path) -> None:
    for rank in (0, 1):
        shutil.copytree(DUMPS / "statistics/step0/rank0", tmp_path / f"step0/rank{rank}")
    assert msprobe.read(tmp_path, 1).rows
    with pytest.raises(BadRequest, match="no rank 7"):
        msprobe.read(tmp_path, 7)


def test_the_command(tmp_path: Path) -> None:
    words = ["migrate", "compare", str(DUMPS / "statistics")]
    paper, page = tmp_path / "paper.json", tmp_path / "page.html"
    more = ["--certificate", str(paper), "--report", str(page)]
    done = CliRunner().invoke(app, [*words, str(DUMPS / "statistics"), *more])
    assert done.exit_code == 0
    assert signed_certificate.check(json.loads(paper.read_text())) == ""
    assert "lossless" in page.read_text()
    spoiled = CliRunner().invoke(app, [*words, str(DUMPS / "spoiled"), "--json"])
    assert spoiled.exit_code == 1
    assert json.loads(spoiled.stdout)["first_difference"]["name"] == "act"
    assert CliRunner().invoke(app, [*words, str(tmp_path)]).exit_code != 0
