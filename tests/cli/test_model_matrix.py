"""`karez models matrix` and `karez models check`, as users type them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.cli.conftest import Karez


def test_sums_by_family_are_printed_with_what_they_were_seen_with(karez: Karez) -> None:
    done = karez("models", "matrix")
    assert done.code == 0
    assert "causal-lm" in done.out
    assert "train on the host and on the emulated NPU" in done.out
    assert "transformers 5." in done.out


def test_types_and_families_are_listed_with_why_one_fails(karez: Karez) -> None:
    done = karez("models", "matrix", "llama", "edgetam")
    assert "llama" in done.out
    assert "edgetam: init: ImportError" in done.out
    failed = karez("models", "matrix", "--family", "causal-lm", "--failed")
    assert "nearest that works: " in failed.out
    assert "llama " not in failed.out


def test_the_matrix_is_there_for_machines_and_as_a_page(karez: Karez, tmp_path: Path) -> None:
    page = tmp_path / "m.html"
    done = karez("models", "matrix", "--json", "--family", "ctc", "--page", str(page))
    rows = json.loads(done.out)["rows"]
    assert {row["family"] for row in rows} == {"ctc"}
    assert page.read_text().startswith("<!doctype html>")
    assert "wav2vec2" in page.read_text()


def test_unknown_types_and_families_are_refused_with_near_ones(karez: Karez) -> None:
    done = karez("models", "matrix", "lama")
    assert (done.code, "Did you mean llama" in done.err) == (2, True)
    done = karez("models", "matrix", "--family", "lm")
    assert (done.code, "causal-lm" in done.err) == (2, True)
    done = karez("models", "matrix", "--output", "new.json")
    assert (done.code, "--run" in done.err) == (2, True)
    done = karez("models", "check", "./nowhere")
    assert (done.code, "no folder" in done.err) == (2, True)


@pytest.mark.deep
def test_a_type_and_a_folder_are_tried_on_this_machine(karez: Karez, tmp_path: Path) -> None:
    done = karez("models", "check", "lama")
    assert (done.code, "Did you mean llama" in done.err) == (2, True)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    done = karez("models", "check", str(tmp_path / "model"))
    assert done.code == 0, done
    assert "all weights of the folder are there" in done.out


@pytest.mark.deep
def test_a_run_that_is_cut_goes_on_where_it_stopped(tmp_path: Path) -> None:
    output = tmp_path / "new.json"
    part = tmp_path / "new.json.part"
    words = [sys.executable, "-m", "karez.cli.main", "models", "matrix", "--run"]
    words += ["llama", "gemma", "qwen2", "--processes", "1", "--output", str(output)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        while not (part.exists() and len(part.read_text().splitlines()) > 1):
            assert first.poll() is None
        started = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGINT)
        assert first.wait() != 0
    _, left = psutil.wait_procs(started, timeout=20)
    assert len(started) >= 1
    assert left == []
    assert not output.exists()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "were tried before" in done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [row["type"] for row in rows] == ["llama", "gemma", "qwen2"]
    assert not part.exists()
