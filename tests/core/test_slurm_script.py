"""Batch scripts of Slurm: what each directive becomes, and what is refused, with the way."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.dependencies import AfterCondition, Dependency
from karez.core.devices import DeviceKind
from karez.core.gangs import Topology
from karez.core.jobs import JobSpec
from karez.core.slurm_options import parse_time
from karez.core.slurm_script import SlurmScript, is_slurm_script, parse_slurm_script
from karez.core.units import MILLI
from karez.core.workloads import WorkloadKind

GIB = 2**30


def read(*directives: str, body: str = "python train.py", shell: str = "/bin/bash") -> SlurmScript:
    lines = [f"#!{shell}", *(f"#SBATCH {one}" for one in directives), "", body]
    return parse_slurm_script("\n".join(lines) + "\n", name="Train_it.sbatch", arguments=("7",))


def spec(*directives: str, body: str = "python train.py") -> JobSpec:
    return read(*directives, body=body).spec


def test_each_directive_becomes_what_the_job_asks_for() -> None:
    found = spec(
        "--job-name='My sweep'  # a name",
        "-a 0-9%3 -t 1-12:30:00",
        "--gres=gpu:a100:2 -c8",
        "--mem 64G",
        "-d afterok:job-a:job-b,afterany:job-c",
        "-x n1,n2 --requeue",
        "--export=ALL,SEED=7",
    )
    each = found.gang.each[0]
    assert (found.name, found.array, found.kind) == ("my-sweep", "0-9%3", WorkloadKind.BATCH)
    assert found.max_duration_s == (36 * 60 + 30) * 60
    assert (each.kind, each.milli, each.models) == (DeviceKind.GPU, 2 * MILLI, ("a100",))
    assert (each.cpu_milli, each.memory_bytes) == (8 * MILLI, 64 * GIB)
    assert found.after == (
        *(Dependency(job=job) for job in ("job-a", "job-b")),
        Dependency(job="job-c", when=AfterCondition.ANY),
    )
    assert found.gang.among.off == ("n1", "n2")
    assert (found.env, found.retry.limit) == ({"SEED": "7"}, 1)
    assert found.command[-2:] == ("Train_it.sbatch", "7")


def test_tasks_are_workers_that_share_out_what_nodes_were_asked_for() -> None:
    body = "srun python train.py"
    found = read("-N 2 --ntasks-per-node=4", "--gpus-per-node=8 --mem=100G", body=body)
    gang = found.spec.gang
    assert (gang.min, gang.want, gang.topology) == (8, 8, Topology.ANY)
    assert found.spec.kind == WorkloadKind.TRAIN
    assert gang.each[0].milli == 2 * MILLI
    assert gang.each[0].memory_bytes == 25 * GIB
    assert "each of the 8 tasks" in found.notes[1]
    assert spec("--nodes=3", body=body).gang.topology == Topology.SPREAD
    plain = spec("--mem-per-cpu=512").gang.each[0]
    assert (plain.kind, plain.milli, plain.memory_bytes) == (DeviceKind.CPU, MILLI, GIB // 2)
    assert spec("-G npu:2").gang.each[0].kind == DeviceKind.NPU
    assert read().spec.name == "train_it"


def test_what_does_nothing_here_is_said() -> None:
    found = read("-p gpu -o out-%j.txt --mail-type=END", "--chdir=src")
    assert [note.split()[0] for note in found.notes] == ["--partition", "--output", "--mail-type"]
    assert found.folder == "src"


@pytest.mark.parametrize(
    ("directive", "body", "said"),
    [
        ("--exclusive", "true", r"line 2: --exclusive has no equal here: ask for all"),
        ("--constraint=v100", "true", "name the model"),
        ("--frobnicate=3", "true", "line 2: --frobnicate is not understood"),
        ("-Z 3", "true", "'-Z' is no option"),
        ("--time", "true", "--time needs a value"),
        ("--time=soon", "true", "--time=soon: this should be like 90"),
        ("--nodes=1-4", "srun true", "--nodes=1-4: this should be one number"),
        ("--mem=lots", "true", "--mem=lots: this should be like"),
        ("--gres=disk:1", "true", "should be like gpu:2"),
        ("-n 3 --gpus=4", "srun true", "4 devices cannot be shared out evenly to 3 tasks"),
        ("-d afternotok:1", "true", "only afterok"),
        ("--export=PATH", "true", "the value of PATH here is not sent"),
        ("--array=9-1", "true", "counts up"),
        ("-n 4", "python train.py", "starts none with srun"),
        ("-n 4", "srun -n 2 python train.py", "line 4: srun starts 2 tasks, the job has 4"),
        ("-n 4", "exec srun python train.py", "leave out exec"),
        ("-n 4", "cd x && srun -n 2 true", "line 4: srun starts 2 tasks"),
        ("-n 4", "srun \\\n --ntasks=2 true", "line 4: srun starts 2 tasks"),
        ("-n 4", "srun --ntasks-per-node=2 true", "cannot share out tasks"),
        ("-x node[1-x]", "true", "should be like node1"),
        ("-n 1", 'MASTER_ADDR=$(scontrol show hostnames "$X")', "line 4: scontrol is Slurm's own"),
    ],
)
def test_what_would_do_something_else_is_refused_by_line_with_the_way(
    directive: str, body: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read(directive, body=body)


def test_lists_of_nodes_and_flags_of_the_shell_are_kept() -> None:
    found = read("-w login,gpu[01-03,10]-a -n 1 -N 1", shell="/bin/bash -e")
    names = ("login", "gpu01-a", "gpu02-a", "gpu03-a", "gpu10-a")
    assert found.spec.gang.among.on == names
    assert found.spec.command[:3] == ("bash", "-e", "-c")
    assert read(shell="/usr/bin/env -S bash -l").spec.command[:3] == ("bash", "-l", "-c")
    assert read("-N 2 -n 8", body="srun true").notes[0].startswith("the 8 tasks may be on other")
    assert spec(body="echo 'see sbatch docs'").name == "train_it"


def test_only_scripts_of_a_shell_with_directives_are_taken_for_slurms() -> None:
    assert is_slurm_script("#!/bin/sh\n#SBATCH -n 1\n")
    assert not is_slurm_script('name = "a"  #SBATCH\n')
    assert not is_slurm_script("#!/bin/sh\necho\n")
    with pytest.raises(ValueError, match="the script is for python3"):
        read(shell="/usr/bin/env python3")


def test_directives_behind_the_first_command_are_comments_as_in_slurm() -> None:
    assert spec(body="true\n#SBATCH --array=0-3").array == ""


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_times_are_read_in_all_ways_that_slurm_has(days: int, h: int, m: int, s: int) -> None:
    assert parse_time(f"{h}:{m:02d}:{s:02d}") == h * 3600 + m * 60 + s
    assert parse_time(f"{days}-{h}:{m:02d}:{s:02d}") == days * 86_400 + h * 3600 + m * 60 + s
    assert parse_time(f"{days}-{h}") == (days * 24 + h) * 3600
    assert parse_time(f"{days}-{h}:{m}") == (days * 24 + h) * 3600 + m * 60
    assert parse_time(f"{m + 1}") == (m + 1) * 60
    assert parse_time(f"{m}:{s}") == m * 60 + s


def test_the_script_runs_as_it_stands(tmp_path: Path) -> None:
    body = (
        "set -eu\necho $0 $1 $SLURM_PROCID/$SLURM_NTASKS $SLURM_JOB_ID\n"
        "srun --ntasks 2 -c 4 --mpi=pmix -l -k --overcommit --cpu-bind none echo from srun -n\n"
        "srun --version\nsrun --nodelist || echo broken off\ncd $SLURM_SUBMIT_DIR\n"
        "false\necho unreached"
    )
    found = spec("-n 2 -c 4", body=body)
    env = {**os.environ, "RANK": "1", "WORLD_SIZE": "2", "KAREZ_JOB": "job-x"}
    done = subprocess.run(
        found.command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "Train_it.sbatch 7 1/2 job-x\nfrom srun -n\nbroken off\n"
