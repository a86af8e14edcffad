"""Texts as people mistype them, always in the same way. Pure."""

import hashlib

_NEIGHBOURS = {
    key: row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for at, key in enumerate(row)
}
"""Letter -> those beside it on a keyboard (QWERTY)."""
LEAST = 4
"""Letters of a word that may be mistyped."""


def mistyped(text: str, share: float, seed: int = 0) -> str:
    """Mistype about a share of the words, one letter each.

    A letter is left out, doubled, swapped with the next, or replaced by its neighbour on the
    keyboard. The first letter of a word stays, as it mostly does where people mistype.

    Args:
        text: Words divided by blanks.
        share: Of the words with at least LEAST letters.
        seed: Another one gives other mistakes.
    """
    words = text.split(" ")
    return " ".join(_mistype(word, f"{seed}/{at}/{text}", share) for at, word in enumerate(words))


def _mistype(word: str, place: str, share: float) -> str:
    letters = [at for at, letter in enumerate(word) if letter.isalpha()]
    if len(letters) < LEAST:
        return word
    drawn = hashlib.sha256(place.encode()).digest()
    if int.from_bytes(drawn[:4]) >= share * 2**32:
        return word
    at = letters[1 + int.from_bytes(drawn[4:8]) % (len(letters) - 2)]
    kind, letter = drawn[8] % 4, word[at]
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + letter + word[at:]
    if kind == 2 and word[at + 1 : at + 2].isalpha():
        return word[:at] + word[at + 1] + letter + word[at + 2 :]
    beside = _NEIGHBOURS.get(letter.lower(), letter)
    other = beside[drawn[9] % len(beside)]
    return word[:at] + (other.upper() if letter.isupper() else other) + word[at + 1 :]
