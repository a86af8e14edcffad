"""GGUF for the edge, by the real converter and the real engine, of a model of a few kilobytes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.story


def migrate(home: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "karez.cli.main", "migrate", "checkpoint", *map(str, words)],
        env={**os.environ, "KAREZ_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Llama of two layers as a Hugging Face folder."""
    import sentencepiece
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    text = ["the capital of france is paris and the river is the seine"] * 50
    tokens = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=tokens,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    size = sentencepiece.SentencePieceProcessor(model_proto=tokens.getvalue()).get_piece_size()
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    folder = tmp_path / "model"
    made.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokens.getvalue())
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": True}
    about = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.deep
def test_a_folder_and_a_checkpoint_of_mindspore_give_the_same_gguf(
    tmp_path: Path, model: Path
) -> None:
    home, direct, round_about = tmp_path / "home", tmp_path / "a.gguf", tmp_path / "b.gguf"
    done = migrate(home, model, direct, "--json")
    if "registry" in done.stderr:
        pytest.skip("the package registry that has the converter does not answer")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["outtype"] == "f16"
    assert direct.read_bytes()[:4] == b"GGUF"
    weights = tmp_path / "model.ckpt"
    assert migrate(home, model / "model.safetensors", weights).returncode == 0
    done = migrate(home, weights, round_about, "--like", model)
    assert done.returncode == 0, done.stderr
    assert round_about.read_bytes() == direct.read_bytes()
    refused = migrate(home, weights, tmp_path / "c.gguf")
    assert refused.returncode == 2
    assert "--like" in refused.stderr
    wrong = migrate(home, model, tmp_path / "d.gguf", "--outtype", "q3")
    assert wrong.returncode == 2
    assert "outtype is" in wrong.stderr
    assert sorted(path.name for path in tmp_path.glob("*.gguf")) == ["a.gguf", "b.gguf"]
