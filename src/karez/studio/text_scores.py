"""How near an answer is to the expected one. Pure.

F1 is that of SQuAD (Rajpurkar et al. 2016): of the words that both have, without case and
punctuation. Scripts without blanks between words are compared letter by letter.
"""

import re
from collections import Counter

_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """The words of a text; each Chinese or Japanese letter is one."""
    return _WORDS.findall(text.casefold())


def f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, 0 to 1."""
    ours, theirs = Counter(words(answer)), Counter(words(expected))
    if not ours or not theirs:
        return float(answer.strip() == expected.strip())
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total())
