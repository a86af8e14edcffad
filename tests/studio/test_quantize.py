"""Quantisation by the llama.cpp that serves, behind its gate."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from karez.core.errors import BrokenArtifact
from karez.studio.gguf_types import MIXTURES
from karez.studio.recipes.gguf_quantization import quantize_file
from karez.studio.recipes.llamacpp_answers import llamacpp_answers
from tests.studio.test_recipes_on_npu import CPU, card_of, run_recipe
from tests.tiny_bpe_model import write_tiny_bpe_model

pytestmark = pytest.mark.story
ERRORS = {"Q8_0": 0.01, "Q6_K": 0.03, "Q5_K": 0.06, "Q4_K": 0.12, "Q4_0": 0.15, "Q3_K": 0.25}
"""Type -> largest share of a matrix's length that its rounding may be."""


def write_wide(path: Path, layers: int = 4) -> Path:
    """Matrices of rows that the blocks of all types divide."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_token_list(["a", "ü"])
    writer.add_string("general.note", "kept as it is")
    chance = np.random.default_rng(0)
    for layer in range(layers):
        for name in ("attn_q", "attn_v", "ffn_down"):
            matrix = chance.normal(0, 1, (32, 512)).astype(np.float16)
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix)
    writer.add_tensor("output_norm.weight", np.ones(512, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("mixture", sorted(MIXTURES))
def test_weights_are_rounded_and_all_else_is_kept(mixture: str, tmp_path: Path) -> None:
    source = write_wide(tmp_path / "wide.gguf")
    told: list[int] = []
    quantize_file(source, tmp_path / "small.gguf", mixture, lambda done, _: told.append(done))
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "small.gguf")
    assert told == list(range(13))
    for key in ("general.note", "tokenizer.ggml.tokens", "llama.block_count"):
        assert after.fields[key].contents() == before.fields[key].contents()
    most, better = MIXTURES[mixture]
    kinds = {tensor.name: tensor.tensor_type.name for tensor in after.tensors}
    assert kinds["blk.0.attn_q.weight"] == most
    assert kinds["blk.3.attn_v.weight"] == better
    assert kinds["output_norm.weight"] == "F32"
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert old.name == new.name
        assert list(old.shape) == list(new.shape)
        exact = gguf.quants.dequantize(old.data, old.tensor_type)
        rounded = gguf.quants.dequantize(new.data, new.tensor_type)
        lost = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
        assert lost <= ERRORS.get(kinds[new.name], 0.45)


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "no.gguf"
    file.write_bytes(b"no" * 50)
    with pytest.raises(BrokenArtifact, match="no GGUF file"):
        quantize_file(file, tmp_path / "x.gguf", "q8_0", lambda _, __: None)


def test_a_model_that_lost_too_much_is_refused_and_reported(tmp_path: Path) -> None:
    """Of random weights, four bits change most answers, and eight bits few."""
    (tmp_path / "model").mkdir()
    (tmp_path / "data").mkdir()
    model = write_tiny_bpe_model(tmp_path / "model" / "model.gguf", 256)
    prompts = [[{"role": "user", "content": f"{n} and {n * n}?"}] for n in range(60)]
    asked = [[*prompt, {"role": "assistant", "content": "?"}] for prompt in prompts]
    right = llamacpp_answers(model, asked, context=128, new_tokens=4)
    rows = [
        {"messages": [*prompt, {"role": "assistant", "content": answer.text or "none"}]}
        for prompt, answer in zip(prompts, right, strict=True)
    ]
    held_out = tmp_path / "data" / "held_out.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"max_loss": 0.4, "new_tokens": 4, "context": 128}
    kept = {**CPU, "KAREZ_CODE": str(tmp_path / "code")}

    good = run_recipe("quantize", tmp_path, tmp_path / "good", {**settings, "type": "q8_0"}, **kept)
    assert good.returncode == 0, good.stderr
    facts = card_of(tmp_path / "good" / "gguf")
    assert facts["score_before"] > 0.9
    assert facts["lost_at_most"] <= 0.4
    assert facts["bytes"] < facts["bytes_before"]
    assert (tmp_path / "good" / "gguf" / "model-q8_0.gguf").exists()

    bad = run_recipe("quantize", tmp_path, tmp_path / "bad", {**settings, "type": "q4_0"}, **kept)
    assert bad.returncode != 0
    assert "model-q4_0.gguf is not accepted" in bad.stderr
    assert not (tmp_path / "bad" / "gguf").exists()
    report = json.loads((tmp_path / "bad" / "report" / "report.json").read_text())
    assert len(report["answers"]) == 60
    assert report["lost_at_most"] > 0.4
