"""Guardrails of a project: what is looked for in what models are asked and answer. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.jobfile import only, parse_toml
from karez.core.names import check_name
from karez.core.validation import FORBID

MAX_GUARDRAILS, MAX_WORDS, MAX_WORD = 32, 1000, 200
MAX_CHARACTERS = 10**9


class Side(StrEnum):
    """Which texts a guardrail reads."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"


class GuardAction(StrEnum):
    """What becomes of what is found."""

    BLOCK = "block"
    """A request is refused; an answer ends with the reason `content_filter`."""
    MASK = "mask"
    """It is replaced by its kind, such as [email]."""
    COUNT = "count"
    """It is only counted."""


class TextPattern(StrEnum):
    """Kinds of personal data and secrets that are known."""

    EMAIL = "email"
    PHONE = "phone"
    """With a country's number, or a mobile number of China."""
    CARD = "card"
    """Numbers of payment cards, by their check digit (ISO/IEC 7812)."""
    IBAN = "iban"
    """Numbers of bank accounts, by their check digits (ISO 13616)."""
    CN_ID = "cn-id"
    """Identity numbers of China, by their check digit (GB 11643)."""
    SSN = "ssn"
    """Social security numbers of the USA."""
    CREDENTIAL = "credential"
    """Keys of APIs by the form that their makers gave them, and private keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """One check of texts: for patterns, for words, or for their length."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    side: Side = Side.BOTH
    action: GuardAction = GuardAction.BLOCK
    patterns: tuple[TextPattern, ...] = ()
    words: tuple[str, ...] = ()
    """Found anywhere, in capitals or not."""
    characters: int = 0
    """Most that a request or an answer may have; 0: any number."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not (self.patterns or self.words) and not self.characters:
            raise ValueError(f"guardrail {self.name} has patterns, words or characters")
        if (self.patterns or self.words) and self.characters:
            raise ValueError(f"guardrail {self.name} looks for texts or at length, not for both")
        if self.characters and self.action == GuardAction.MASK:
            raise ValueError(f"guardrail {self.name}: what is too long cannot be masked")
        if not 0 <= self.characters <= MAX_CHARACTERS or len(self.words) > MAX_WORDS:
            raise ValueError(
                f"guardrail {self.name} has up to {MAX_CHARACTERS:,} characters, and up to "
                f"{MAX_WORDS:,} words"
            )
        if any(not 0 < len(word) <= MAX_WORD for word in self.words):
            raise ValueError(f"a word of guardrail {self.name} has 1 to {MAX_WORD} characters")

    def reads(self, side: Side) -> bool:
        """Whether it reads what is asked (input), or what is answered (output)."""
        return self.side in (side, Side.BOTH)


def check_guardrails(guardrails: Sequence[Guardrail]) -> None:
    """Check those of one project together. Raises ValueError."""
    names = [one.name for one in guardrails]
    if len(set(names)) < len(names):
        raise ValueError("each guardrail of a project needs a name of its own")
    if len(names) > MAX_GUARDRAILS:
        raise ValueError(f"a project has at most {MAX_GUARDRAILS} guardrails")


_KEYS = {"name", "side", "action", "patterns", "words", "characters"}


def parse_guardrails(text: str) -> tuple[Guardrail, ...]:
    """Read guardrails from TOML, each a table [[guardrail]].

    Raises:
        ValueError: Invalid TOML, an unknown key, or an invalid value.
    """
    table = only(parse_toml(text), {"guardrail"}, "the file")
    rows = table.get("guardrail", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("each guardrail is a table: write [[guardrail]]")
    found = tuple(_guardrail(only(row, _KEYS, "a guardrail")) for row in rows)
    check_guardrails(found)
    return found


def _guardrail(row: Mapping[str, Any]) -> Guardrail:
    fields: dict[str, Any] = {"name": row.get("name", "")}
    if not isinstance(fields["name"], str):
        raise ValueError(f"name = {fields['name']!r} should be text")
    for key, kind in (("side", Side), ("action", GuardAction)):
        if key in row:
            fields[key] = kind(row[key])
    for key, read in (("patterns", TextPattern), ("words", str)):
        values = row.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{key} = {values!r} should be a list of texts")
        fields[key] = tuple(map(read, values))
    characters = row.get("characters", 0)
    if type(characters) is not int:
        raise ValueError(f"characters = {characters!r} should be a whole number")
    return Guardrail(**fields, characters=characters)
