"""Finds personal data, secrets and words in texts, whole or as they come. Pure.

A text that comes in pieces is searched for matches that its end may only be the beginning of
(partial matches of the `regex` package): what may still become one is held back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import regex

from karez.core.guardrails import TextPattern

_BEGIN: Final = r"(?:(?<![\w\\-])|(?<=\\[nrt]))"
"""Where a word begins: after what is none, or after a line break as JSON writes it."""
EXPRESSIONS: Final[Mapping[TextPattern, str]] = {
    TextPattern.EMAIL: (
        r"(?:(?<![\w.+\\-])|(?<=\\[nrt]))"
        r"[\w.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"
    ),
    TextPattern.PHONE: (
        r"(?<![\w+])\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,5}(?!\d)|(?<!\d)1[3-9]\d{9}(?!\d)"
    ),
    TextPattern.CARD: _BEGIN + r"\d(?:[ -]?\d){12,18}(?!\d)",
    TextPattern.IBAN: _BEGIN + r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)",
    TextPattern.CN_ID: r"(?<!\d)[1-9]\d{16}[\dXx](?!\w)",
    TextPattern.SSN: r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])",
    TextPattern.CREDENTIAL: (
        _BEGIN + r"(?:sk-[\w-]{20,200}|gh[pousr]_\w{36,255}|(?:AKIA|ASIA)[0-9A-Z]{16}"
        r"|xox[abeprs]-[\w-]{10,250}|glpat-[\w-]{20,64}|hf_[A-Za-z0-9]{30,64}|kz_\w{20,200})(?!\w)"
        r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[\w+/=\s:,.]|\\[nr]|-(?!----)){0,16384}"
        r"(?:-----END [A-Z ]{0,40}KEY-----)?"
    ),
}
"""Each matches a bounded number of characters."""


def _digits(text: str) -> list[int]:
    return [int(one) for one in text if one.isdigit()]


def _is_card(text: str) -> bool:
    """Luhn's check digit. Source: ISO/IEC 7812-1, annex B."""
    digits = _digits(text)
    doubled = [(2 * one if n % 2 else one) for n, one in enumerate(reversed(digits))]
    right = sum(one - 9 if one > 9 else one for one in doubled) % 10 == 0
    return right and len(digits) >= FEWEST_DIGITS


def _is_iban(text: str) -> bool:
    """Remainder of 97. Source: ISO 13616-1; ISO/IEC 7064, MOD 97-10."""
    plain = text.replace(" ", "")
    turned = "".join(str(int(one, 36)) for one in plain[4:] + plain[:4])
    return len(plain) >= SHORTEST_IBAN and int(turned) % 97 == 1


def _is_cn_id(text: str) -> bool:
    """Source: GB 11643-1999; ISO/IEC 7064, MOD 11-2."""
    weights = [pow(2, 17 - n, 11) for n in range(17)]
    total = sum(w * int(one) for w, one in zip(weights, text[:17], strict=True))
    return "10X98765432"[total % 11] == text[17].upper()


_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    TextPattern.CARD: _is_card,
    TextPattern.IBAN: _is_iban,
    TextPattern.CN_ID: _is_cn_id,
}
FEWEST_DIGITS, SHORTEST_IBAN = 13, 15


def _length(kind: str, text: str) -> int:
    """How much of a candidate is what it looks like, of its groups the most; 0: nothing of it.

    What follows a number in groups, such as a date, may look like one group more.
    """
    check = _CHECKS.get(kind)
    if check is None:
        return len(text)
    ends = [len(text), *(n for n in range(len(text) - 1, 0, -1) if text[n] in " -")]
    return next((end for end in ends if check(text[:end])), 0)


MAX_CHECKS = 5000
"""Candidates of one text whose check digits may be wrong: each costs some microseconds, in which
nobody else is served."""


class TooManyCandidates(ValueError):
    """A text has too much that looks like what is looked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """A match."""

    start: int
    end: int
    kind: str


class Finder:
    """Finds some patterns and words."""

    def __init__(self, patterns: Sequence[TextPattern], words: Sequence[str]) -> None:
        """Look for these."""
        spelled = [(str(pattern), EXPRESSIONS[pattern]) for pattern in patterns]
        if words:
            spelled.append(("removed", f"(?i:{_any_of(words)})"))
        self._expressions = [(kind, regex.compile(text, regex.VERSION1)) for kind, text in spelled]

    def find(self, text: str, at: int = 0) -> list[Found]:
        """The matches of a whole text, from a place on; of those that overlap the first.

        Raises TooManyCandidates.
        """
        kept: list[Found] = []
        every = [found for kind, one in self._expressions for found in _each(kind, one, text, at)]
        for found in sorted(every, key=lambda found: (found.start, -found.end)):
            if not kept or found.start >= kept[-1].end:
                kept.append(found)
        return kept

    def undecided(self, text: str, at: int) -> int:
        """Where what may become a match of a text that goes on begins, from a place on."""
        return min((_undecided(one, text, at) for _, one in self._expressions), default=len(text))


def _any_of(words: Sequence[str]) -> str:
    """An expression of any of these words, which looks at each character once."""
    root: dict[str, Any] = {}
    for word in words:
        at = root
        for letter in word.lower():
            at = at.setdefault(letter, {})
        at[""] = {}

    def spelled(node: dict[str, Any]) -> str:
        ways = [regex.escape(letter) + spelled(node[letter]) for letter in sorted(node) if letter]
        if not ways:
            return ""
        return f"(?:{'|'.join(ways)})" + ("?" if "" in node else "")

    return spelled(root)


def _each(kind: str, expression: "regex.Pattern[str]", text: str, at: int) -> Iterator[Found]:
    wrong = 0
    while (match := expression.search(text, at)) is not None:
        start = match.start()
        if length := _length(kind, match.group()):
            yield Found(start, start + length, kind)
            at = start + length
        else:
            at, wrong = start + 1, wrong + 1
            if wrong > MAX_CHECKS:
                raise TooManyCandidates(f"more than {MAX_CHECKS:,} numbers that may be a {kind}")


def _undecided(expression: "regex.Pattern[str]", text: str, at: int) -> int:
    while (match := expression.search(text, at, partial=True)) is not None:
        start = match.start()
        if match.partial or match.end() == len(text):
            return int(start)
        if expression.fullmatch(text, start, partial=True) is not None:
            return int(start)  # it may go on
        at = start + 1
    return len(text)


@dataclass(slots=True)
class TextInPieces:
    """One text that comes in pieces, of which what is decided is given back."""

    finder: Finder
    _held: str = ""
    _context: str = ""
    """The last characters that were given back: whether a match may begin after them."""
    matches: list[str] = field(default_factory=list)
    """Kinds of what was found since the last look."""

    def feed(self, piece: str, *, masks: bool, is_last: bool = False) -> str:
        """Take in a piece; returns what is decided, with matches replaced if it `masks`.

        Raises TooManyCandidates.
        """
        text, at = self._context + self._held + piece, len(self._context)
        until = len(text) if is_last else self.finder.undecided(text, at)
        parts, last = [], at
        for found in self.finder.find(text, at):
            if found.end > until:
                until = min(until, found.start)
                break
            self.matches.append(found.kind)
            parts += [text[last : found.start], f"[{found.kind}]"] if masks else []
            last = found.end if masks else last
        parts.append(text[last:until])
        self._context, self._held = text[max(0, until - 2) : until], text[until:]
        return "".join(parts)
