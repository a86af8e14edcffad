from hypothesis import given
from hypothesis import strategies as st

from karez.studio.typing_errors import mistyped

texts = st.text(st.sampled_from("abcxyzäñ你 .!ABC"), max_size=80)


@given(texts, st.floats(0, 1), st.integers(0, 9))
def test_words_stay_in_their_places_and_keep_their_first_letter(
    text: str, share: float, seed: int
) -> None:
    found = mistyped(text, share, seed)
    assert mistyped(text, share, seed) == found
    before, after = text.split(" "), found.split(" ")
    assert len(before) == len(after)
    for word, other in zip(before, after, strict=True):
        assert abs(len(word) - len(other)) <= 1
        assert word[:1] == other[:1]


@given(texts)
def test_nothing_is_mistyped_for_no_share(text: str) -> None:
    assert mistyped(text, 0.0) == text


def test_about_the_share_of_long_words_is_mistyped() -> None:
    text = " ".join(f"cardholder{n:03}" for n in range(1000))
    before, after = text.split(), mistyped(text, 0.3).split()
    changed = sum(word != other for word, other in zip(before, after, strict=True))
    assert 240 <= changed <= 360
    assert mistyped("my car is red", 1.0).split()[0] == "my"
    assert mistyped(text, 0.3, seed=1) != mistyped(text, 0.3)
