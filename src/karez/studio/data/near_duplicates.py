"""Texts that are nearly equal, found by MinHash and locality-sensitive hashing.

Broder 1997, "On the resemblance and containment of documents": the share of equal minima of random
hashes estimates the Jaccard similarity of two sets. The library `rensa` proposes pairs by it, and
each pair is compared exactly.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

from rensa import RMinHash, RMinHashLSH

HASHES, BANDS = 128, 32
"""Four hashes in a band: a pair that is 0.7 alike is proposed with a probability above 0.999."""
SHINGLE, HAN_SHINGLE = 4, 2
"""Letters of a shingle; of Chinese and Japanese ones, each of which says more."""
LEAST = 0.6
"""Least similarity that is found: with these bands, less alike pairs are often not proposed."""
NEARLY_EQUAL = 0.9
REPRESENTATIVES = 200
"""Texts of a group that others are compared with: templates make groups of thousands."""
_SEED = 1
_WORDS = re.compile(r"[\w\u0300-\u036f\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f]+")
_FIRST_HAN = "\u3040"


def group_near_duplicates(
    texts: Sequence[str], similarity: float, told: Callable[[int], None] = lambda _: None
) -> list[int]:
    """The group of each text: the number of its first text. Alike are also friends of friends.

    A text joins at most one representative of each group that it is compared with, so the time
    grows with the rows and not with their pairs, though all of them are one group.

    Args:
        texts: Any texts; case, blanks and punctuation do not count.
        similarity: Jaccard similarity of their shingles from which on two are alike, LEAST to 1; 1:
            only equal texts are.
        told: Called with the number of texts that were looked at.
    """
    plain = [plain_text(text) for text in texts]
    groups = _Groups(len(texts))
    first: dict[str, int] = {}
    for number, text in enumerate(plain):
        groups.join(number, first.setdefault(text, number))
    if similarity < 1:
        _join_alike(plain, list(first.values()), similarity, groups, told)
    return [groups.of(number) for number in range(len(texts))]


def _join_alike(
    texts: Sequence[str],
    numbers: Sequence[int],
    similarity: float,
    groups: "_Groups",
    told: Callable[[int], None],
) -> None:
    index = RMinHashLSH(threshold=similarity, num_perm=HASHES, num_bands=BANDS)
    runs: dict[int, set[str]] = {}
    for count, number in enumerate(numbers):
        told(count)
        own = shingles(texts[number])
        sketch = RMinHash(num_perm=HASHES, seed=_SEED)
        sketch.update(list(own))
        is_alone = True
        for other in index.query(sketch):
            theirs = runs[other]
            if groups.of(other) == groups.of(number):
                continue
            if len(own & theirs) >= similarity * len(own | theirs):
                groups.join(number, other)
                # who is nearly equal to a representative needs not be one too
                is_alone = is_alone and len(own & theirs) < NEARLY_EQUAL * len(own | theirs)
        if is_alone and groups.count(number) <= REPRESENTATIVES:
            groups.counted(number)
            runs[number] = own
            index.insert(number, sketch)


def plain_text(text: str) -> str:
    """A text without what people do not take for a difference; itself, if nothing else is left."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORDS.findall(folded)) or " ".join(folded.split())


def shingles(text: str) -> set[str]:
    """All runs of so many letters of a text, with a blank at both ends."""
    padded = f" {text} "
    runs = set()
    for at, letter in enumerate(padded[:-1]):
        run = padded[at : at + (HAN_SHINGLE if letter >= _FIRST_HAN else SHINGLE)]
        runs.add(run)
    return runs


class _Groups:
    """Sets that are joined (union-find)."""

    def __init__(self, count: int) -> None:
        self._first = list(range(count))
        self._count: dict[int, int] = {}

    def of(self, number: int) -> int:
        while self._first[number] != number:
            self._first[number] = self._first[self._first[number]]
            number = self._first[number]
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.of(one), self.of(other)))
        self._first[high] = low
        if low != high:
            self._count[low] = self.count(low) + self._count.pop(high, 0)

    def count(self, number: int) -> int:
        """How many representatives the group of a text has."""
        return self._count.get(self.of(number), 0)

    def counted(self, number: int) -> None:
        """Count one more."""
        self._count[self.of(number)] = self.count(number) + 1
