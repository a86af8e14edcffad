"""What the files of a model are."""

import pytest

from karez.core.model_formats import model_format


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["m.gguf"], "gguf"),
        (["q4/m-00001-of-00002.gguf", "q4/m-00002-of-00002.gguf", "README.md"], "gguf"),
        (["config.json", "model.safetensors", "tokenizer.json"], "hf"),
        (["model.safetensors"], "hf"),
        (["config.json", "pytorch_model.bin"], "hf"),
        (["adapter_config.json", "adapter_model.safetensors", "config.json"], "peft"),
        (["config.json", "openvino_model.xml", "openvino_model.bin"], "openvino"),
        (["weights.bin"], ""),
        ([], ""),
    ],
)
def test_a_format_is_known_by_its_files(paths: list[str], found: str) -> None:
    assert model_format(paths) == found
