"""How sure a model is of an answer: the chance of its tokens, whatever is beside it in a batch."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from karez.studio.recipes.greedy_answers import greedy_answers
from tests.tiny_chat import write_tiny_chat

pytestmark = pytest.mark.story


@torch.inference_mode()
def test_confidence_is_the_chance_of_the_answer_and_its_end(tmp_path: Path) -> None:
    write_tiny_chat(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model.generation_config.eos_token_id = None
    prompts = [[10, 11, 12], [40, 41, 42, 43, 44, 45], [99]]
    free = [greedy_answers(tokenizer, model, [prompt], 6)[0] for prompt in prompts]
    together = greedy_answers(tokenizer, model, prompts, 6)
    for prompt, alone, beside in zip(prompts, free, together, strict=True):
        assert beside.text == alone.text
        assert beside.confidence == pytest.approx(alone.confidence, rel=1e-3)
        made = model.generate(
            torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=2
        )[0]
        logs = model(made[None]).logits[0].log_softmax(-1)
        chance = sum(logs[at - 1, made[at]] for at in range(len(prompt), len(made))).exp()
        assert alone.confidence == pytest.approx(float(chance), rel=1e-3)


@torch.inference_mode()
def test_padding_after_an_end_counts_nothing(tmp_path: Path) -> None:
    write_tiny_chat(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model.generation_config.eos_token_id = None
    (first,) = greedy_answers(tokenizer, model, [[10, 11, 12]], 1)
    made = model.generate(
        torch.tensor([[10, 11, 12]]), max_new_tokens=1, do_sample=False, pad_token_id=2
    )[0]
    model.generation_config.eos_token_id = int(made[-1])  # so it ends at once
    ended, other = greedy_answers(tokenizer, model, [[10, 11, 12], [40, 41]], 6)
    assert ended.confidence == pytest.approx(first.confidence, rel=1e-3)
    assert other.confidence < 1


@torch.inference_mode()
def test_an_answer_that_was_cut_is_not_sure_and_settings_of_the_folder_change_nothing(
    tmp_path: Path,
) -> None:
    write_tiny_chat(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model.generation_config.eos_token_id = None
    plain = greedy_answers(tokenizer, model, [[10, 11, 12], [40, 41]], 6)
    odd = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    odd.generation_config = GenerationConfig(
        num_beams=3, repetition_penalty=3.0, no_repeat_ngram_size=1, num_return_sequences=2
    )
    assert greedy_answers(tokenizer, odd, [[10, 11, 12], [40, 41]], 6) == plain
    model.generation_config.eos_token_id = 258  # which it does not say
    assert [one.confidence for one in greedy_answers(tokenizer, model, [[10, 11, 12]], 3)] == [0.0]
