"""Each type with modules of its own kind learns through an adapter, and merges to the same."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from karez.core.errors import BrokenArtifact
from karez.studio.architectures.model_types import model_types
from karez.studio.architectures.tiny_model import TinyModel, build, main_output
from karez.studio.recipes.chat_model import AnswerLoss, Batch, collate
from karez.studio.recipes.lora_targets import (
    EXCLUDED,
    AdapterOutput,
    adapter_output,
    check_merged,
    excluded_modules,
)

pytestmark = [
    pytest.mark.story,
    pytest.mark.filterwarnings("ignore"),  # of peft and of fallbacks of transformers
]
SHARED = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "head_dim": 8,
}
MAMBA = {"state_size": 4, "conv_kernel": 4, "time_step_rank": 4}
HEADED = {"n_groups": 1, "chunk_size": 8, "conv_kernel": 4}
OWN: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {},  # caps its logits
    "granite": {"logits_scaling": 8.0},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": {**HEADED, "state_size": 8, "num_heads": 4, "head_dim": 16, "expand": 2},
    "nemotron_h": {
        **HEADED,
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
    },
    "falcon_h1": {
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
        "mamba_d_conv": 4,
    },
    "deepseek_v4": {
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "o_groups": 2,
        "o_lora_rank": 8,
        "sliding_window": 8,
        "num_hash_layers": 0,
        "layer_types": ["sliding_attention", "sliding_attention"],
    },
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 64, "num_experts_per_tok": 1},
}

QUICK = ("llama", "mamba", "phimoe")
"""Tried at each landing; the others in `make deep`, and all of them by the matrix."""
SILENT = {
    "jamba": "dt_proj",
    "longcat_flash": "classifier",
    "neomme": "unembedding_projection",
}
"""Model type -> a module whose weights are read past its adapter."""


class Pad:
    pad_token_id = 0


def tiny(kind: str) -> Any:
    """A model of a type, small and with random weights."""
    config_class = CONFIG_MAPPING[kind]
    known = set(vars(config_class())) | set(OWN[kind])
    config = config_class(**{k: v for k, v in {**SHARED, **OWN[kind]}.items() if k in known})
    config.pad_token_id = 0
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def batch() -> Batch:
    rows = [([*range(3, 3 + length)], 2) for length in (9, 6, 12)]
    return collate(Pad, rows)


def whole_loss(model: Any, rows: Batch) -> torch.Tensor:
    logits_BLV = model(input_ids=rows.tokens_BL, attention_mask=rows.mask_BL).logits
    return torch.nn.functional.cross_entropy(
        logits_BLV[:, :-1].transpose(1, 2).float(), rows.labels_BL[:, 1:]
    )


def with_adapter(base: Any) -> Any:
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        exclude_modules=excluded_modules(base),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


@pytest.mark.parametrize(
    "kind",
    [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.deep) for kind in sorted(OWN)],
)
def test_a_type_learns_through_an_adapter_and_merges_to_the_same(kind: str) -> None:
    model, rows = with_adapter(tiny(kind)), batch()
    loss_of = AnswerLoss(model)
    model.eval()
    torch.testing.assert_close(loss_of(rows), whole_loss(model, rows), rtol=1e-4, atol=1e-4)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(4):
        loss = loss_of(rows)
        loss.backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    before = adapter_output(model, rows.tokens_BL, rows.mask_BL)
    assert check_merged(model.merge_and_unload(), before, rows.tokens_BL, rows.mask_BL) < 0.01


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.deep)
        for kind in sorted(set(EXCLUDED) - {"llama4", *SILENT})
    ],
)
def test_each_exclusion_is_needed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karez.studio.recipes.lora_targets.EXCLUDED", {})
    with pytest.raises((ValueError, AttributeError, RuntimeError)):
        whole_loss(with_adapter(tiny(kind)), batch())


@pytest.mark.parametrize("kind", SILENT)
def test_an_adapter_there_would_do_nothing_until_it_is_merged(kind: str) -> None:
    """So what was evaluated would not be what is merged and served."""
    tiny = build(model_types()[kind])
    assert isinstance(tiny, TinyModel)
    assert SILENT[kind] in EXCLUDED[kind]

    def output(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return main_output(model(**tiny.inputs))

    base = output(tiny.model)
    config = LoraConfig(r=4, target_modules=[SILENT[kind]], init_lora_weights=False)
    model = get_peft_model(tiny.model, config).eval()
    assert torch.equal(output(model), base)
    assert not torch.allclose(output(model.merge_and_unload()), base, rtol=0, atol=1e-6)


def test_a_merge_that_loses_the_adapter_is_refused() -> None:
    model, rows = with_adapter(tiny("llama")), batch()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    before = adapter_output(model, rows.tokens_BL, rows.mask_BL)
    with pytest.raises(BrokenArtifact, match="differ from the adapter's by"):
        check_merged(model.unload(), before, rows.tokens_BL, rows.mask_BL)  # without merging
    nothing = torch.full_like(before.adapted_BLV, float("nan"))
    with pytest.raises(BrokenArtifact):
        check_merged(
            tiny("llama"),
            AdapterOutput(adapted_BLV=nothing, base_BLV=before.base_BLV),
            rows.tokens_BL,
            rows.mask_BL,
        )
