import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.errors import AccuracyLost
from karez.studio.accuracy_gate import check_gate, least_bound, measure_gate
from karez.studio.gguf_types import MIXTURES, tensor_type
from karez.studio.paired_comparison import Paired, compare, paired_report


def test_the_interval_of_a_difference_is_tangos() -> None:
    """Where no row differs it is z²/(n + z²) to both sides; else as the score test gives it."""
    none = Paired(rows=100, only_first=0, only_second=0)
    z = 1.959964
    assert none.interval() == pytest.approx((-z * z / (100 + z * z), z * z / (100 + z * z)))
    some = Paired(rows=50, only_first=12, only_second=2)
    assert some.difference == -0.2
    assert some.interval() == pytest.approx((-0.3447, -0.0611), abs=1e-4)


counts = st.integers(1, 400).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n)).flatmap(
        lambda t: st.tuples(st.just(t[0]), st.just(t[1]), st.integers(0, t[0] - t[1]))
    )
)


@given(counts)
def test_the_interval_holds_the_difference_and_turns_with_the_models(
    told: tuple[int, int, int],
) -> None:
    rows, first, second = told
    paired = Paired(rows=rows, only_first=first, only_second=second)
    low, high = paired.interval()
    assert -1 <= low <= paired.difference <= high <= 1
    turned = Paired(rows=rows, only_first=second, only_second=first).interval()
    assert turned == pytest.approx((-high, -low), abs=1e-9)
    assert 0 <= paired.p_value() <= 1


def test_the_interval_covers_as_often_as_it_says() -> None:
    """500 draws of 80 rows, of which a tenth and a twentieth differ: 95%, at least 92%."""
    drawn = random.Random(3)
    covered = 0
    for _ in range(500):
        kinds = [drawn.random() for _ in range(80)]
        first = sum(kind < 0.1 for kind in kinds)
        second = sum(0.1 <= kind < 0.15 for kind in kinds)
        low, high = Paired(rows=80, only_first=first, only_second=second).interval()
        covered += low <= -0.05 <= high
    assert 460 <= covered <= 495


def test_the_p_value_is_mcnemars() -> None:
    """2 of 14 that differ: 2 * (1 + 14 + 91) / 2^14."""
    assert Paired(rows=50, only_first=12, only_second=2).p_value() == pytest.approx(212 / 2**14)
    assert Paired(rows=9, only_first=0, only_second=0).p_value() == 1
    many = Paired(rows=5000, only_first=700, only_second=500)
    assert 0 < many.p_value() < 1e-6


def test_models_are_compared_row_by_row() -> None:
    told = compare([True, True, False], [True, False, False])
    assert (told.only_first, told.only_second) == (1, 0)
    with pytest.raises(ValueError, match="zip"):
        compare([True], [])
    with pytest.raises(ValueError, match="more rows differ"):
        Paired(rows=1, only_first=1, only_second=1)


def test_a_report_says_which_model_is_better() -> None:
    told = paired_report([True] * 20 + [False] * 80, [True] * 60 + [False] * 40)
    assert told["words"].endswith("better")
    assert (told["only_before"], told["only_after"]) == (0, 40)
    assert paired_report([True, False], [False, True])["words"].endswith("no difference is shown")


def test_a_model_passes_that_lost_little() -> None:
    right = [1.0] * 190 + [0.0] * 10
    gate = measure_gate(right, right)
    check_gate("m", gate, 0.02)
    assert gate.lost_at_most == pytest.approx(least_bound(200))
    worse = measure_gate(right, [0.0] * 20 + right[20:])
    with pytest.raises(AccuracyLost, match=r"85\.0% of 200 rows, the reference 95\.0%.*2\.0% is"):
        check_gate("m", worse, 0.02)
    check_gate("m", worse, 0.2)


def test_rows_that_show_nothing_are_told() -> None:
    few = measure_gate([1.0] * 20, [1.0] * 20)
    with pytest.raises(AccuracyLost, match=r"20 rows cannot show.*Measure on 133 rows"):
        check_gate("m", few, 0.02)
    check_gate("m", measure_gate([1.0] * 133, [1.0] * 133), 0.02)
    nothing = measure_gate([0.0] * 200, [0.0] * 200)
    with pytest.raises(AccuracyLost, match="shows nothing"):
        check_gate("m", nothing, 0.02)
    with pytest.raises(AccuracyLost, match="no number of rows"):
        check_gate("m", measure_gate([1.0] * 200, [1.0] * 200), 0.0)


def test_other_scores_are_compared_by_their_mean_difference() -> None:
    before = [0.5, 0.9, 0.7, 0.8] * 50
    gate = measure_gate(before, [score - 0.1 for score in before])
    assert gate.lost_at_most == pytest.approx(0.1 + least_bound(200))
    assert measure_gate(before, before).lost_at_most <= least_bound(200)


@given(st.sampled_from(sorted(MIXTURES)), st.integers(1, 64), st.integers(1, 200))
def test_every_matrix_gets_a_type_that_its_rows_allow(
    mixture: str, layers: int, blocks: int
) -> None:
    for name in ("token_embd", "output", f"blk.{layers - 1}.attn_v", "blk.0.ffn_up"):
        kind = tensor_type(
            f"{name}.weight", mixture, width=32 * blocks, layers=layers, is_tied=False
        )
        assert kind
        assert not kind.endswith("_K") or blocks % 8 == 0
    assert not tensor_type("blk.0.ffn_up.weight", mixture, width=33, layers=1, is_tied=False)
    assert not tensor_type("blk.0.attn_norm.weight", mixture, width=256, layers=1, is_tied=False)


def test_the_mixture_is_llama_cpps() -> None:
    """Of 30 layers, use_more_bits takes 0-2, each third from 5 on, and 26-29."""
    better = [
        layer
        for layer in range(30)
        if tensor_type(
            f"blk.{layer}.ffn_down.weight", "q4_k_m", width=1536, layers=30, is_tied=True
        )
        == "Q6_K"
    ]
    assert better == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]
    tied = {"width": 512, "layers": 30}
    assert tensor_type("token_embd.weight", "q4_k_m", **tied, is_tied=True) == "Q6_K"
    assert tensor_type("token_embd.weight", "q4_k_m", **tied, is_tied=False) == "Q4_K"
