"""Rules for files that are no Python: what each finds, what it leaves alone, what becomes of it."""

import pytest

from karez.migration.findings import Edit, Kind
from karez.migration.text_files import examine_text
from karez.migration.text_rules import CATALOGUE

RUN, DOCKER, YAML, NEEDS, CPP = (
    "run.sh",
    "Dockerfile",
    "conf/train.yaml",
    "requirements.txt",
    "a.cpp",
)
FOUND: dict[str, list[tuple[str, str]]] = {
    "shell-variable": [
        (RUN, "CUDA_VISIBLE_DEVICES=0,1 python a.py\n"),
        (DOCKER, "ENV CUDA_VISIBLE_DEVICES=0\n"),
        ("train.slurm", "export CUDA_VISIBLE_DEVICES=$SLURM_LOCALID\n"),
        ("Makefile", "run:\n\tCUDA_LAUNCH_BLOCKING=1 python a.py\n"),
    ],
    "shell-nccl": [
        (RUN, "export NCCL_DEBUG=INFO\n"),
        (RUN, "NCCL_IB_DISABLE=1 python a.py\n"),
        (DOCKER, "ENV TORCH_NCCL_BLOCKING_WAIT=1\n"),
        (RUN, "export CUDA_HOME=/usr/local/cuda\n"),
    ],
    "shell-program": [
        (RUN, "nvidia-smi -l 1 &\n"),
        (RUN, "which nvcc\n"),
        ("Makefile", "a:\n\tnvcc a.cu\n"),
        (DOCKER, "RUN nvidia-smi\n"),
        ("p.sbatch", "nsys profile python a.py\n"),
    ],
    "shell-device": [
        (RUN, "python a.py --device cuda\n"),
        (RUN, "python a.py --device=cuda:1\n"),
        (RUN, "torchrun a.py --dist-backend 'nccl'\n"),
        ("a.slurm", "python a.py --device_map cuda\n"),
    ],
    "docker-image": [
        (DOCKER, "FROM nvidia/cuda:12.1-devel\n"),
        (DOCKER, "FROM nvcr.io/nvidia/pytorch:24.01\n"),
        ("docker/Dockerfile.gpu", "FROM pytorch/pytorch:2.1.0-cuda11.8 AS base\n"),
        ("image.def", "From: x\nfrom docker.io/nvidia/cuda\n"),
    ],
    "docker-devices": [
        (RUN, "docker run --gpus all image\n"),
        ("docker-compose.yml", "    runtime: nvidia\n"),
        (RUN, "docker run --runtime=nvidia image\n"),
        ("docker-compose.yaml", "resources:\n  nvidia.com/gpu: 1\n"),
    ],
    "settings-device": [
        (YAML, "device: cuda\n"),
        (YAML, "trainer:\n  accelerator: gpu\n"),
        ("conf/a.json", '{\n  "device": "cuda:0",\n  "lr": 1\n}\n'),
        ("conf/a.toml", 'dist_backend = "nccl"\n'),
    ],
    "requirement": [
        (NEEDS, "flash-attn==2.5\n"),
        (NEEDS, "numpy\nxformers>=0.0.20\n"),
        ("environment.yml", "  - cupy-cuda12x\n"),
        ("pyproject.toml", '  "bitsandbytes>=0.41",\n'),
    ],
    "requirement-nvidia": [
        (NEEDS, "nvidia-cublas-cu12==12.1\n"),
        (NEEDS, "nvidia-nccl-cu12\n"),
        ("environment.yml", "  - nvidia-cudnn-cu12\n"),
        ("requirements/requirements-gpu.in", "nvidia-curand-cu12\n"),
    ],
    "requirement-torch": [
        (NEEDS, "torch==2.1.0+cu118\n"),
        (NEEDS, "--index-url https://x/whl/cu121\n"),
        ("environment.yml", "  - --extra-index-url https://x/whl/cu118\n"),
        ("requirements-dev.txt", "torchvision==0.16.0+cu118\n"),
    ],
    "native-cuda": [
        (CPP, "#include <ATen/cuda/CUDAContext.h>\n"),
        (CPP, "#include <cuda_runtime.h>\n"),
        ("a.h", "TORCH_CHECK(x.is_cuda(), 1);\n"),
        ("b.cc", "auto s = at::cuda::getCurrentCUDAStream();\n"),
    ],
    "cuda-kernel": [
        ("k.cu", "__global__ void f() {}\n"),
        ("k.cuh", "#pragma once\n"),
        ("a/b.cu", "\n"),
        ("c.cu", "int x;\nint y;\n"),
    ],
}
LEFT: dict[str, list[tuple[str, str]]] = {
    "shell-variable": [(RUN, "# CUDA_VISIBLE_DEVICES=0\n"), (YAML, "CUDA_VISIBLE_DEVICES=0\n")],
    "shell-nccl": [(RUN, "echo $NCCL_DEBUG\n"), (RUN, "# NCCL_DEBUG=INFO\n")],
    "shell-program": [(RUN, "npu-smi info\n"), (RUN, "./my-nvcc-wrapper2\n"), (NEEDS, "nvcc\n")],
    "shell-device": [(RUN, "python a.py --device npu\n"), (RUN, "python a.py --name cudax\n")],
    "docker-image": [(DOCKER, "FROM python:3.11\n"), (DOCKER, "# FROM nvidia/cuda\n")],
    "docker-devices": [(RUN, "docker run image\n"), (RUN, "gpus=4\n")],
    "settings-device": [(YAML, "device: auto\n"), (YAML, "name: cuda\n"), (YAML, "device: xpu\n")],
    "requirement": [(NEEDS, "torch\n"), (NEEDS, "tritonclient\n"), (NEEDS, "# apex\n")],
    "requirement-nvidia": [(NEEDS, "numpy\n"), (NEEDS, "my-nvidia-tool\n")],
    "requirement-torch": [(NEEDS, "torch==2.1.0\n"), (NEEDS, "# torch==2.1.0+cu118\n")],
    "native-cuda": [(CPP, "#include <torch/extension.h>\n"), (CPP, "#include <vector>\n")],
    "cuda-kernel": [(CPP, "int x;\n"), ("a.hpp", "int y;\n")],
}


def test_every_text_rule_has_positive_and_negative_fixtures() -> None:
    assert set(FOUND) == set(LEFT) == set(CATALOGUE)
    assert all(len(rows) >= 4 for rows in FOUND.values())


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [(rule, *row) for rule, rows in FOUND.items() for row in rows],
)
def test_a_text_rule_reports_its_construct(rule: str, path: str, text: str) -> None:
    found = [one for one in examine_text(path, text).findings if one.rule == rule]
    assert found
    for one in found:
        assert one.reason
        assert one.question or one.kind in (Kind.KEEP, Kind.AUTOMATIC)
        kept = examine_text(path, text.replace("\n", "  # karez: keep\n"))
        mine = [other for other in kept.findings if other.rule == rule]
        assert all(other.kind == Kind.KEEP for other in mine) or rule == "cuda-kernel"


@pytest.mark.parametrize(
    ("rule", "path", "text"), [(rule, *row) for rule, rows in LEFT.items() for row in rows]
)
def test_a_text_rule_does_not_report_similar_text(rule: str, path: str, text: str) -> None:
    assert rule not in {one.rule for one in examine_text(path, text).findings}


@pytest.mark.parametrize(
    ("path", "text", "after"),
    [
        (
            RUN,
            "CUDA_VISIBLE_DEVICES=0,1 python a.py\n",
            "CUDA_VISIBLE_DEVICES=0,1 ASCEND_RT_VISIBLE_DEVICES=0,1 python a.py\n",
        ),
        (
            RUN,
            'export CUDA_VISIBLE_DEVICES="$1"\n',
            'export CUDA_VISIBLE_DEVICES="$1" ASCEND_RT_VISIBLE_DEVICES="$1"\n',
        ),
        (
            DOCKER,
            "ENV CUDA_LAUNCH_BLOCKING=1\n",
            "ENV CUDA_LAUNCH_BLOCKING=1 ASCEND_LAUNCH_BLOCKING=1\n",
        ),
        (
            RUN,
            "CUDA_VISIBLE_DEVICES=0 ASCEND_RT_VISIBLE_DEVICES=0 python a.py\n",
            "CUDA_VISIBLE_DEVICES=0 ASCEND_RT_VISIBLE_DEVICES=0 python a.py\n",
        ),
    ],
)
def test_a_cuda_variable_gets_its_npu_equivalent_once(path: str, text: str, after: str) -> None:
    def twins(before: str) -> str:
        edits: list[Edit] = [e for one in examine_text(path, before).findings for e in one.edits]
        for edit in sorted(edits, key=lambda one: -one.start):
            before = before[: edit.start] + edit.text + before[edit.end :]
        return before

    assert twins(text) == after
    assert twins(after) == after
