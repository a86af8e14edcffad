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
MAX_INSTRUCTION = 20_000
ALLOWS = ("safe", "no")
"""How guard models begin who find nothing wrong: Llama Guard says safe, ShieldGemma no."""


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
    """One check of texts: for patterns, for words, for their length, or by a model."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    side: Side = Side.BOTH
    action: GuardAction = GuardAction.BLOCK
    patterns: tuple[TextPattern, ...] = ()
    words: tuple[str, ...] = ()
    """Found anywhere, in capitals or not."""
    characters: int = 0
    """Most that a request or an answer may have; 0: any number."""
    model: str = ""
    """A service of the project that is asked; empty: none is."""
    allows: tuple[str, ...] = ALLOWS
    """How its answer begins if it allows what it is asked about, in capitals or not."""
    instruction: str = ""
    """What it is told first; empty: its template knows what to do."""

    def __post_init__(self) -> None:
        check_name(self.name)
        kinds = bool(self.patterns or self.words), self.characters > 0, bool(self.model)
        if not any(kinds) and not self.characters:
            raise ValueError(f"guardrail {self.name} has patterns, words, characters or a model")
        if sum(kinds) > 1:
            raise ValueError(
                f"guardrail {self.name} looks for texts, at length, or asks a model: only one of it"
            )
        self._check_model()
        if self.characters and self.action == GuardAction.MASK:
            raise ValueError(f"guardrail {self.name}: what is too long cannot be masked")
        if not 0 <= self.characters <= MAX_CHARACTERS or len(self.words) > MAX_WORDS:
            raise ValueError(
                f"guardrail {self.name} has up to {MAX_CHARACTERS:,} characters, and up to "
                f"{MAX_WORDS:,} words"
            )
        if any(not 0 < len(word) <= MAX_WORD for word in self.words):
            raise ValueError(f"a word of guardrail {self.name} has 1 to {MAX_WORD} characters")

    def _check_model(self) -> None:
        if not self.model:
            return
        check_name(self.model)
        if self.action == GuardAction.MASK:
            raise ValueError(f"guardrail {self.name}: a model does not say what to mask")
        if not self.allows or not all(0 < len(word.strip()) <= MAX_WORD for word in self.allows):
            raise ValueError(f"guardrail {self.name}: {self.model} needs words by which it allows")
        if len(self.allows) > MAX_WORDS or len(self.instruction) > MAX_INSTRUCTION:
            raise ValueError(
                f"guardrail {self.name} has up to {MAX_WORDS:,} words by which it allows, and an "
                f"instruction of up to {MAX_INSTRUCTION:,} characters"
            )

    @property
    def blocks(self) -> bool:
        """Whether it ends what it finds something in."""
        return self.action == GuardAction.BLOCK

    @property
    def looks_for(self) -> str:
        """In words."""
        if self.model:
            return f"what {self.model} does not allow"
        return ", ".join((*self.patterns, *self.words)) or f"over {self.characters:,} characters"

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


_TEXTS = ("name", "model", "instruction")
_KEYS = {*_TEXTS, "side", "action", "patterns", "words", "characters", "allows"}


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
    fields: dict[str, Any] = {key: row.get(key, "") for key in _TEXTS}
    for key, value in fields.items():
        if not isinstance(value, str):
            raise ValueError(f"{key} = {value!r} should be text")
    for key, kind in (("side", Side), ("action", GuardAction)):
        if key in row:
            fields[key] = kind(row[key])
    for key, read in (("patterns", TextPattern), ("words", str), ("allows", str)):
        values = row.get(key, list(ALLOWS) if key == "allows" else [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{key} = {values!r} should be a list of texts")
        fields[key] = tuple(map(read, values))
    characters = row.get("characters", 0)
    if type(characters) is not int:
        raise ValueError(f"characters = {characters!r} should be a whole number")
    return Guardrail(**fields, characters=characters)
