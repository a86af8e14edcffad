"""Whether a model fits, which engine serves it, and what would fit."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.devices import DeviceKind
from karez.core.engines import AUTO, AdapterUse, Capabilities, Preference, Task
from karez.core.model_facts import ModelFacts
from karez.engines.llamacpp import LlamaCpp
from karez.engines.transformers_engine import TransformersEngine
from karez.serving.engine_choice import Wanted, choose_engine
from karez.serving.fit_check import Room, Served, check_fit, reckon

MIB = 1 << 20
SMOLLM2 = ModelFacts(
    weights_bytes=144_810_848,
    weight_bytes=0,
    layers=30,
    heads=9,
    cached_heads=3,
    head_width=64,
    width=576,
    inner=1536,
    vocabulary=49152,
    context=8192,
)
FOLDER = replace(SMOLLM2, weights_bytes=269_060_552, weight_bytes=2)


def llamacpp(context: int, parallel: int) -> Served:
    return Served(
        engine="llamacpp",
        capabilities=LlamaCpp.capabilities,
        facts=SMOLLM2,
        task=Task.GENERATE,
        context_tokens=context,
        parallel=parallel,
    )


def transformers(context: int, parallel: int) -> Served:
    can = TransformersEngine.capabilities
    served = llamacpp(context, parallel)
    return replace(served, engine="transformers", capabilities=can, facts=FOLDER)


@pytest.mark.parametrize(
    ("served", "measured_mib"),
    [
        (llamacpp(512, 1), 219),
        (llamacpp(2048, 4), 397),
        (llamacpp(2048, 8), 581),
        (transformers(512, 1), 1041),
        (transformers(2048, 4), 1480),
        (transformers(2048, 8), 1907),
    ],
)
def test_what_is_reckoned_is_near_to_what_was_measured(served: Served, measured_mib: int) -> None:
    """Of SmolLM2-135M under load, on a host with two cores, 2026-11-30."""
    reckoned = sum(part.bytes for part in reckon(served, DeviceKind.CPU)) / MIB
    assert 0.9 < reckoned / measured_mib < 1.15


def test_what_was_measured_corrects_what_is_reckoned() -> None:
    room = Room(kind=DeviceKind.CPU, device="1 cpu", bytes=None)
    plain = check_fit(llamacpp(2048, 4), room, [])
    unused = check_fit(llamacpp(2048, 4), room, [0.3, 0.4])
    assert unused == plain  # what was not touched yet is needed all the same
    learnt = check_fit(llamacpp(2048, 4), room, [1.5, 9.0, 1.4])
    assert learnt.need_bytes == pytest.approx(plain.need_bytes * 1.5)
    assert learnt.parts[-1].what == "measured on 3 replicas"
    assert learnt.is_enough  # nobody knows the room


def test_an_accelerator_holds_weights_in_the_type_it_computes_in() -> None:
    on_cpu, on_npu = (
        {part.what: part.bytes for part in reckon(transformers(2048, 4), kind)}
        for kind in (DeviceKind.CPU, DeviceKind.NPU)
    )
    assert on_cpu["weights"] == 2 * on_npu["weights"]
    assert on_cpu["KV cache"] == 2 * on_npu["KV cache"]
    assert "engine" not in on_npu


@given(st.integers(0, 13), st.integers(0, 6), st.integers(100 * MIB, 3000 * MIB))
def test_what_is_proposed_fits_and_is_smaller(context: int, parallel: int, room: int) -> None:
    served = llamacpp(64 << context, 1 << parallel)
    where = Room(kind=DeviceKind.CPU, device="1 cpu", bytes=room)
    fit = check_fit(served, where, [])
    assert fit.is_enough == (fit.need_bytes <= room)
    if fit.is_enough:
        assert fit.nearest == ""
    elif fit.nearest:
        _, tokens, _, answers = fit.nearest.split()
        smaller = replace(served, context_tokens=int(tokens), parallel=int(answers))
        assert int(answers) < served.parallel or int(tokens) < served.context_tokens
        assert check_fit(smaller, where, []).is_enough


ENGINES = {
    "llamacpp": LlamaCpp.capabilities,
    "transformers": TransformersEngine.capabilities,
    "one": Capabilities(
        formats=("gguf",), architectures=("gemma",), kinds=(DeviceKind.CPU,), tasks=(), modules=()
    ),
    "quick": Capabilities(
        formats=("gguf", "hf"),
        kinds=(DeviceKind.CPU,),
        tasks=(Task.GENERATE,),
        modules=("quick",),
        speed=1.0,
    ),
}
WANTED = Wanted(
    engine=AUTO,
    format="gguf",
    architecture="llama",
    task=Task.GENERATE,
    kinds={DeviceKind.CPU},
    adapter_formats=(),
    prefer=Preference.MEMORY,
)
NEEDS = {"llamacpp": 400 * MIB, "transformers": 1500 * MIB, "quick": 700 * MIB}


@pytest.mark.parametrize(
    ("change", "engine", "why"),
    [
        ({}, "llamacpp", "it needs least memory, 400.0 MiB to 700.0 MiB of quick"),
        ({"prefer": Preference.THROUGHPUT}, "quick", "fastest, 1 to 0.43 of llamacpp"),
        ({"format": "hf", "kinds": {DeviceKind.NPU}}, "transformers", "no other can"),
        ({"format": "hf", "adapter_formats": ["peft"]}, "transformers", "no other can"),
        ({"task": Task.EMBED}, "llamacpp", "quick: it has no task embed"),
        ({"engine": "quick"}, "quick", "it was asked for"),
    ],
)
def test_an_engine_is_chosen_for_what_it_can(change: dict[str, Any], engine: str, why: str) -> None:
    wanted = replace(WANTED, **change)
    choice = choose_engine(wanted, ENGINES, set(ENGINES), NEEDS)
    assert choice.engine == engine
    assert why in choice.why


def test_an_engine_that_is_not_installed_is_not_chosen_and_said() -> None:
    wanted = replace(WANTED, prefer=Preference.THROUGHPUT)
    choice = choose_engine(wanted, ENGINES, {"llamacpp"}, NEEDS)
    assert choice.engine == "llamacpp"
    assert "quick: it needs quick, which is not installed" in choice.why


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": ""}, "the model has no format that was told"),
        ({"engine": "one"}, "it loads gemma, and the model is a llama"),
        ({"kinds": {DeviceKind.CPU, DeviceKind.NPU}}, "does not compute on npu"),
        ({"engine": "llamacpp", "adapter_formats": ["peft"]}, "as gguf-lora, not peft"),
        ({"engine": "quick", "adapter_formats": ["peft"]}, "it serves no adapters"),
    ],
)
def test_what_no_engine_can_is_refused_with_the_reason_of_each(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        choose_engine(replace(WANTED, **change), ENGINES, set(ENGINES), {})


def test_every_engine_says_how_it_is_told_of_adapters() -> None:
    for can in ENGINES.values():
        assert bool(can.adapter_formats) == (can.adapters != AdapterUse.NONE)
