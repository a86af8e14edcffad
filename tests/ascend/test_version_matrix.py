"""Versions that go together: the tables, what fits, what clashes, the least change."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from karez.ascend import installed_versions, stacks, torch_requirement, version_matrix
from karez.cli.main import app
from karez.core.errors import BadRequest
from karez.migration.reports.html_report import as_html
from karez.migration.reports.json_report import as_json
from karez.migration.scan import scan

PARTS = {
    part: sorted({v for one in stacks.stacks() for v in one.allows(part)})
    for part in ("driver", "cann", "torch", "torch_npu")
}


def test_every_row_has_a_source_and_versions_that_can_be_compared() -> None:
    found = stacks.stacks()
    assert len(found) > 100
    for one in found:
        assert one.sources
        assert all(stacks.where(name) for name in one.sources)
        for part in (*stacks.PARTS, one.engine):
            assert all(stacks.order(v).release != (0,) for v in one.allows(part))


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("8.3.RC1", "8.5.0"),
        ("6.3.RC3", "6.3.RC3.1"),
        ("8.0.RC3", "8.0.0"),
        ("25.5.2", "26.0.RC1"),
        ("2.9.0", "2.9.0.post6"),
        ("v0.18.0rc1", "0.18.0"),
    ],
)
def test_the_order_of_versions(older: str, newer: str) -> None:
    assert stacks.order(older) < stacks.order(newer)


@pytest.mark.parametrize(
    ("wanted", "engine", "first"),
    [
        ({"torch": "2.9"}, "", ("2.9.0", "2.9.0.post6", "9.1.0")),
        ({"torch": "2.9", "driver": "25.5.0"}, "", ("2.9.0", "2.9.0", "8.5.0")),
        ({"cann": "8.2.RC1", "torch": "<2.2"}, "", ("2.1.0", "2.1.0.post13", "8.2.RC1")),
        ({"torch": "2.10"}, "vllm-ascend", ("2.10.0", "2.10.0.post4", "9.1.0")),
        ({"mindie": "2.3.0", "python": "3.9"}, "mindie", ("2.8.0", "2.8.0.post2", "8.5.0")),
    ],
)
def test_what_fits(wanted: dict[str, str], engine: str, first: tuple[str, str, str]) -> None:
    one = version_matrix.resolve(wanted, engine)[0]
    assert (one.torch, one.torch_npu, one.cann) == first


@pytest.mark.parametrize(
    ("wanted", "engine"),
    [
        ({"torch": "new"}, ""),
        ({"cuda": "12"}, ""),
        ({}, "triton"),
        ({"torch": "2.9garbage"}, ""),
        ({"torch": "2..9"}, ""),
        ({"torch": "9" * 5000}, ""),
        ({"torch": "2.9 || 2.8"}, ""),
        ({"torch": "\u0662.\u0669"}, ""),
    ],
)
def test_what_no_table_knows_is_refused(wanted: dict[str, str], engine: str) -> None:
    with pytest.raises(BadRequest):
        version_matrix.resolve(wanted, engine)


def test_pairs_that_clash_are_told_from_pairs_that_no_table_names() -> None:
    found = version_matrix.judge(
        {"torch": "2.9.0+cpu", "torch_npu": "2.9.0.post6", "cann": "8.5.0", "driver": "27.0.0"}
    )
    fine = {(one.first.split()[0], one.second.split()[0]): one.fine for one in found}
    assert fine == {
        ("torch_npu", "torch"): True,
        ("torch_npu", "cann"): False,
        ("cann", "driver"): None,
    }
    unknown = version_matrix.judge({"torch": "2.13.0", "torch_npu": "2.14.0", "cann": "9.1.0"})
    assert [one.fine for one in unknown] == [False, None]


@pytest.mark.parametrize(
    ("installed", "change"),
    [
        ({"cann": "8.5.0", "driver": "25.3.0"}, {"driver": "25.5.0"}),
        (
            {"torch": "2.8.1", "torch_npu": "2.8.0.post2", "cann": "8.5.1", "driver": "25.5.0"},
            {"torch": "2.8.0"},
        ),
        ({"mindie": "3.1.0", "cann": "9.0.1"}, {}),
        ({"mindie": "2.2.RC1", "cann": "8.3.RC2"}, {}),
    ],
)
def test_the_least_change(installed: dict[str, str], change: dict[str, str]) -> None:
    closest = version_matrix.nearest(installed)
    assert closest is not None
    assert closest[1] == change
    if not change:
        assert [one.fine for one in version_matrix.judge(installed)] == [True]


def test_what_is_installed_fits_a_stack_of_its_engine() -> None:
    plain = {"torch": "2.9.0+cpu", "torch_npu": "2.9.0.post2", "cann": "9.0.0"}
    assert {one.engine for one in version_matrix.fitting(plain)} == {""}
    served = {"vllm-ascend": "0.18.0rc1", "torch_npu": "2.9.0", "cann": "8.5.1"}
    assert {one.engine_version for one in version_matrix.fitting(served)} == {"0.18.0rc1"}
    assert version_matrix.fitting({"cann": "1.0"}) == []


def test_the_least_change_leaves_the_driver_alone_where_it_can() -> None:
    closest = version_matrix.nearest(
        {"torch": "2.9.0", "torch_npu": "2.9.0.post6", "cann": "8.5.0", "driver": "25.5.0"}
    )
    assert closest is not None
    assert closest[1] == {"torch_npu": "2.9.0"}
    assert version_matrix.nearest({"torch": "9.9", "cann": "99.0"}) is None


@settings(max_examples=60)
@given(installed=st.fixed_dictionaries({part: st.sampled_from(of) for part, of in PARTS.items()}))
def test_the_least_change_goes_together(installed: dict[str, str]) -> None:
    closest = version_matrix.nearest(installed)
    if closest is None:
        return
    mended = {**installed, **closest[1]}
    assert not [one for one in version_matrix.judge(mended) if one.fine is False]
    if not closest[1]:
        assert mended == installed


def test_what_a_machine_has(tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver/version.info").write_text("Version=25.5.0\nascendhal_version=7.35.23\n")
    toolkit = tmp_path / "ascend-toolkit/latest/aarch64-linux"
    toolkit.mkdir(parents=True)
    note = "package_name=Ascend-cann-toolkit\nversion=8.5.0\ninnerversion=V100R001C25\n"
    (toolkit / "ascend_toolkit_install.info").write_text(note)
    found = installed_versions.installed(tmp_path)
    assert (found["driver"], found["cann"]) == ("25.5.0", "8.5.0")
    elsewhere = tmp_path / "cann-9/x86_64-linux"
    elsewhere.mkdir(parents=True)
    (elsewhere / "ascend_toolkit_install.info").write_text("version=9.1.0\n")
    assert installed_versions.installed(tmp_path, str(tmp_path / "cann-9"))["cann"] == "9.1.0"
    assert set(installed_versions.installed(tmp_path / "none")) <= {"torch"}


@pytest.mark.parametrize(
    ("text", "specifier"),
    [
        ("torch>=1.8,<2 ; python_version > '3'\n", "<2,>=1.8"),
        ('dependencies = ["numpy", "torch~=2.1.0", "x"]', "~=2.1.0"),
        ("  - pytorch=1.13=py3_cuda11\n", "==1.13.*"),
        ("  - pytorch::pytorch=2.0\n", "==2.0.*"),
        ("torch==2.1.0+cu118", "==2.1.0"),
        ("torchvision==0.3\npytorch-lightning==2.0\n", ""),
        ("torch\nnumpy==1.26", ""),
        ("# torch==1.8 is too old\ntorch==2.7.1\n", "==2.7.1"),
        ('torch = "^2.1"\n', "<3,>=2.1"),
        ('torch = {version = "2.3.1"}\n', "==2.3.1"),
        ("my-torch==3\n", ""),
        ('"torch (>=2.1)"', ">=2.1"),
        ("Torch===2.1.0\n", "==2.1.0"),
    ],
)
def test_what_a_repository_asks_of_torch(text: str, specifier: str) -> None:
    assert torch_requirement.torch_wanted(text) == specifier


@pytest.mark.parametrize(
    ("asked", "torch", "word"),
    [
        ("torch>=2.8,<2.10", "2.9.0", "2.10"),
        ("torch==1.7.1", "2.12.0", "lifted"),
        ("", "2.12.0", "any torch"),
    ],
)
def test_the_report_says_what_to_install(tmp_path: Path, asked: str, torch: str, word: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"numpy\n{asked}\n")
    (tmp_path / "a.py").write_text("import torch\nx = torch.zeros(1).cuda()\n")
    found = scan(tmp_path)
    environment = as_json(found)["environment"]
    assert environment["stacks"][0]["torch"] == torch
    assert word in environment["note"]
    assert torch in as_html(found)


def test_the_command() -> None:
    done = CliRunner().invoke(
        app, ["migrate", "versions", "--torch", "2.9", "--engine", "vllm-ascend==0.18.0", "--json"]
    )
    assert done.exit_code == 0
    assert [one["engine_version"] for one in json.loads(done.stdout)["stacks"]] == ["0.18.0"]
    assert CliRunner().invoke(app, ["migrate", "versions", "--torch", "7"]).exit_code == 1
