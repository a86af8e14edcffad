"""Processes in container images, by the program that this host has."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.core.containers import LABEL
from karez.core.nodes import NodeId
from karez.core.tunnels import TunnelKind, TunnelSpec
from karez.core.workloads import WorkloadId
from karez.drivers.container_programs import container_program
from tests.drivers.test_steward import exit_of, spec
from tests.drivers.test_tunnels import output
from tests.fakes import DirectFabric

A, JOB = NodeId("a"), WorkloadId("job-1")
IMAGE = "localhost/karez-test:1"
pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with busybox and nothing else."""
    program, busybox = container_program(), shutil.which("busybox")
    if program not in ("podman", "docker"):
        pytest.skip("neither podman nor docker runs on this host")
    if busybox is None or b"/ld-linux" in Path(busybox).read_bytes():
        pytest.skip("no static busybox (Debian's busybox-static) to make an image of")
    folder = tmp_path_factory.mktemp("image")
    (folder / "bin").mkdir()
    shutil.copy(busybox, folder / "bin" / "busybox")
    for name in ("sh", "cat", "echo", "id", "ls", "sleep", "true"):
        (folder / "bin" / name).symlink_to("busybox")
    subprocess.run(["tar", "-C", folder, "-cf", folder.with_suffix(".tar"), "."], check=True)
    subprocess.run([program, "import", folder.with_suffix(".tar"), IMAGE], check=True)
    yield IMAGE
    subprocess.run([program, "rmi", "--force", IMAGE], check=True)


def containers() -> str:
    program = container_program()
    assert program is not None
    return subprocess.check_output([program, "ps", "--all", "--format", "{{.Names}}"], text=True)


def test_a_process_runs_in_its_image_with_its_folders_and_leaves_no_container(
    fabric: DirectFabric, image: str
) -> None:
    assert fabric.nodes()[0].labels[LABEL] == container_program()
    write = "/bin/busybox mkdir $KAREZ_OUT/o; echo r > $KAREZ_OUT/o/f; exit 3"
    script = f"ls /bin; cat /etc/os-release; echo $MARK; {write}"
    fabric.start(A, spec("sh", "-c", script, image=image, env={"MARK": "its own"}))
    ended = exit_of(fabric)
    log = fabric.read_log(A, "job-1.0.1", 0, 10_000).data.decode()
    assert ended.data["code"] == 3, log
    assert "busybox\n" in log
    assert "can't open '/etc/os-release'" in log
    assert "its own" in log
    ((name, entry),) = fabric.collect(A, "job-1.0.1")
    assert (name, entry.path) == ("o", "f")
    assert "karez-job-1" not in containers()


def test_what_is_killed_leaves_no_container_and_a_shell_is_inside(
    fabric: DirectFabric, image: str
) -> None:
    fabric.start(A, spec("sh", "-c", "echo up; sleep 1000", image=image))
    deadline = time.monotonic() + 30
    while b"up" not in fabric.read_log(A, "job-1.0.1", 0, 100).data:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    node = fabric.stewards[A]
    node.open_tunnel(JOB, "t", TunnelSpec(kind=TunnelKind.SHELL, command=("ls", "/bin")))
    said, piece = output(node, "t")
    assert b"busybox" in said
    assert piece.exit_code == 0
    fabric.kill(A, "job-1.0.1")
    assert exit_of(fabric).data["code"] == -9
    assert "karez-job-1" not in containers()


def test_an_image_that_cannot_be_fetched_says_so(fabric: DirectFabric, image: str) -> None:
    fabric.start(A, spec("true", image="localhost:1/nothing:1"))
    ended = exit_of(fabric, within_s=120.0)
    assert ended.data["code"] == 127
    assert "The image localhost:1/nothing:1 is not to be had" in str(ended.data["error"])
