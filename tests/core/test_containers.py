"""Commands of the programs that run images: folders, variables, devices, and no secret in sight."""

from dataclasses import replace

import pytest

from karez.core.containers import ContainerProgram, ContainerRun, check_image, run_command
from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.jobs import JobSpec
from karez.core.nodes import NodeId

RUN = ContainerRun(
    program=ContainerProgram.PODMAN,
    image="localhost/tiny:1",
    name="karez-job-1.0.1",
    folders=["/w/job-1"],
    cwd="/w/job-1/code",
    variables=["TOKEN", "RANK"],
    command=["python", "train.py"],
    cores=[2, 3],
    user="1000:1000",
)


def grant(kind: DeviceKind, *indices: int) -> Grant:
    return Grant(node=NodeId("n"), kind=kind, devices=tuple((index, 1000) for index in indices))


def test_the_command_has_folders_variables_by_name_and_the_jobs_own_command() -> None:
    words = run_command(RUN)
    assert words[:5] == ("podman", "run", "--rm", "--name", "karez-job-1.0.1")
    text = " ".join(words)
    for part in (
        "--volume /w/job-1:/w/job-1",
        "--workdir /w/job-1/code",
        "--env RANK --env TOKEN",
        "--userns keep-id",
        "--entrypoint python",
    ):
        assert part in text
    assert words[-2:] == ("localhost/tiny:1", "train.py")
    docker = " ".join(run_command(replace(RUN, program=ContainerProgram.DOCKER)))
    assert "--user 1000:1000" in docker
    assert "--cpuset-cpus 2,3" in docker
    assert "--user" not in " ".join(run_command(replace(RUN, user="")))
    isolated = " ".join(run_command(replace(RUN, user="1900000001:1900000001", is_isolated=True)))
    assert "--user 1900000001:1900000001 --security-opt no-new-privileges" in isolated


def test_each_program_gets_the_devices_in_its_own_words() -> None:
    npu = replace(RUN, grant=grant(DeviceKind.NPU, 4, 5))
    text = " ".join(run_command(npu))
    assert "--device /dev/davinci4 --device /dev/davinci5 --device /dev/davinci_manager" in text
    assert "--volume /usr/local/Ascend/driver:/usr/local/Ascend/driver" in text
    gpu = replace(RUN, grant=grant(DeviceKind.GPU, 0))
    assert "--device nvidia.com/gpu=all" in " ".join(run_command(gpu))
    docker = replace(gpu, program=ContainerProgram.DOCKER)
    assert "--gpus all" in " ".join(run_command(docker))
    apptainer = run_command(replace(gpu, program=ContainerProgram.APPTAINER))
    assert apptainer[:4] == ("apptainer", "exec", "--no-home", "--nv")
    assert apptainer[-3:] == ("docker://localhost/tiny:1", "python", "train.py")
    emulated = replace(RUN, grant=replace(grant(DeviceKind.NPU, 0), is_emulated=True))
    assert "--device" not in run_command(emulated)


def test_what_is_no_image_or_brings_its_packages_twice_is_refused() -> None:
    for wrong in ("", "-v", "a b", "a;b", "--privileged", "x" * 501):
        with pytest.raises(ValueError, match="is no image"):
            check_image(wrong)
    with pytest.raises(ValueError, match="no recipe, no environment"):
        JobSpec(name="j", command=("true",), image="a:1", environment="mine")
