import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from karez.cli.main import COMMANDS, app
from karez.cli.remote.job_progress import curve
from karez.cli.remote.pool_map import pool_map
from karez.core.devices import Device, DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.workloads import Allocation, WorkloadId


def karez(*words: str, home: Path) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "KAREZ_HOME": str(home), "KAREZ_URL": "http://127.0.0.1:1"}
    env.pop("KAREZ_KEY", None)
    return subprocess.run(
        [sys.executable, "-m", "karez.cli.main", *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_every_command(tmp_path: Path) -> None:
    shown = karez("--help", home=tmp_path)
    assert shown.returncode == 0
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in shown.stdout
        assert line in shown.stdout


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], prog_name="karez")
    assert shown.exit_code == 0, shown.stderr
    assert "Usage: karez" in shown.stdout


def test_help_is_the_same_in_process_and_imports_no_command() -> None:
    for words in ((), ("--help",), ("jobs", "--help"), ("jobs", "submit", "--help")):
        here = CliRunner().invoke(app, list(words), prog_name="karez").output
        there = karez(*words, home=Path("/nowhere"))
        assert here == there.stdout + there.stderr, words
    code = (
        "import sys; from karez.cli.main import main\n"
        "try:\n  main(['--help'])\nexcept SystemExit:\n"
        "  print([m for m in sys.modules if m in ('karez.cli.remote.jobs', 'karez.client.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nope"], 2, "No such command"),
        (["jobs", "nope"], 2, "No such command"),
        (["jobs", "submit"], 2, "--recipe, or a --file"),
        (["jobs", "submit", "--workers", "x", "--", "a"], 2, "MIN:WANT"),
        (["jobs", "submit", "--each", "tpu=1", "--", "a"], 2, "Invalid device kind"),
        (["jobs", "submit", "-f", "/nowhere.toml"], 2, "nowhere.toml"),
        (["jobs", "submit", "--env", "x", "--", "a"], 2, "NAME=VALUE"),
        (["projects", "quota", "p", "npu=many"], 2, "Write limits like"),
    ],
)
def test_misuse_exits_with_2_and_names_the_fix(
    words: list[str], code: int, says: str, tmp_path: Path
) -> None:
    done = karez(*words, home=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.story
def test_without_a_cloud_the_error_names_karez_up(tmp_path: Path) -> None:
    done = karez("jobs", "cancel", "x", home=tmp_path)
    assert done.returncode == 1
    assert "karez does not answer at http://127.0.0.1:1." in done.stderr
    assert "karez up" in done.stderr
    assert karez("down", home=tmp_path).returncode == 0


def test_pool_map_groups_nodes_by_supernode() -> None:
    def node(name: str, block: str, state: NodeState = NodeState.READY) -> Node:
        devices = tuple(Device(kind=DeviceKind.NPU, index=index) for index in range(4))
        return Node(id=NodeId(name), address="", devices=devices, supernode=block, state=state)

    grant = Grant(node=NodeId("a"), kind=DeviceKind.NPU, devices=((0, 1000), (1, 250)))
    held = {"j": Allocation(workload=WorkloadId("j"), epoch=1, grants=(grant,))}
    nodes = [node("b", "s1"), node("a", "s1"), node("c", "s2", NodeState.LOST)]
    assert pool_map(nodes, held) == ["s1  a  █▒··", "    b  ····", "s2  c  xxxx"]
    big = Node(
        id=NodeId("big"),
        address="",
        devices=tuple(Device(kind=DeviceKind.CPU, index=index) for index in range(192)),
    )
    assert pool_map([big], {}) == ["  big  " + "·" * 64]


def test_loss_curve_falls_with_the_losses_and_fits_the_width() -> None:
    drawn = curve([4.0, 2.0, 1.0, 0.5])
    assert "4.000" in drawn.splitlines()[0]
    assert drawn.splitlines()[0].endswith("█   ")
    assert "step 4" in drawn
    assert curve([1.0]) == ""
    assert len(curve([float(n) for n in range(500)]).splitlines()[0]) < 80


def test_a_state_folder_that_cannot_be_made_is_misuse(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = karez("up", home=file / "home")
    assert done.returncode == 2
    assert "Cannot create the state folder" in done.stderr
    assert "--home" in done.stderr
