"""From records of any shape to chat rows: what people's columns mean. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from karez.core.chat_rows import Row, chat_row, whole_text
from karez.core.errors import BadRow
from karez.studio.data.records import Record, cell_text, optional_text

TALKS = ("messages", "conversations", "conversation")
"""Columns that hold whole talks, as OpenAI and ShareGPT write them."""
PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
    ("input", "target"),
    ("user", "assistant"),
    ("document", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("article", "highlights"),
    ("text", "label"),
    ("text", "category"),
    ("text", "intent"),
    ("utterance", "intent"),
    ("sentence", "label"),
    ("review", "label"),
)
"""Columns that are a prompt and its answer, in the order in which they are looked for: those of
Alpaca, of OpenAI's completions, of ms-swift, and of public data sets for summaries and labels."""
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Who speaks in rows of ShareGPT -> role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowShape:
    """Which columns of a table make a chat row."""

    prompt: str
    """Column of the question, or of the whole talk."""
    answer: str = ""
    """Empty: the prompt's column holds the whole talk."""
    system: str = ""
    """Column of the system message; empty: `system`, where there is one."""
    instruction: str = ""
    """Text above each prompt, as the model will be asked later."""

    def show(self) -> str:
        """What is read, for people."""
        if not self.answer:
            return f"whole talks in {self.prompt!r}"
        return f"prompts in {self.prompt!r}, answers in {self.answer!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRow:
    """A row to train on, and what tells it from others."""

    messages: Row
    prompt: str
    """What is asked, without the instruction that all rows share."""
    answer: str


def guess_shape(record: Record, wanted: RowShape) -> RowShape:
    """The shape of a table; what is wanted by name comes before what is known by custom.

    Args:
        record: The first one.
        wanted: The columns that were named; empty ones are to be found.

    Raises:
        BadRow: No columns are known as a prompt and its answer.
    """
    names = {name.lower(): name for name in record.fields}
    names |= {name: name for name in record.fields}
    if wanted.prompt and wanted.answer:
        return wanted
    if not wanted.answer:
        customary = (names[talk] for talk in TALKS if talk in names)
        talk = wanted.prompt or next(customary, "")
        if isinstance(record.fields.get(talk), list):
            return replace(wanted, prompt=talk)
    for prompt, answer in PAIRS:
        is_meant = wanted.prompt.lower() in ("", prompt) and wanted.answer.lower() in ("", answer)
        if is_meant and prompt in names and answer in names:
            chosen = {"prompt": wanted.prompt or names[prompt]}
            return replace(wanted, **chosen, answer=wanted.answer or names[answer])
    raise BadRow(
        place=record.place,
        problem="which columns are the prompt and its answer is not known; there is: "
        + ", ".join(record.fields),
        fix="Name them: --prompt COLUMN --answer COLUMN.",
    )


def to_chat(record: Record, shape: RowShape) -> ChatRow:
    """The chat row of a record. Raises BadRow."""
    row = _pair(record, shape) if shape.answer else _talk(record, shape)
    for message in row.messages:
        whole_text(message["content"], record.place)
    return row


def _pair(record: Record, shape: RowShape) -> ChatRow:
    prompt = cell_text(record, shape.prompt)
    is_alpaca = shape.prompt.lower() == "instruction"
    more = optional_text(record, "input") if is_alpaca and shape.answer != "input" else ""
    prompt = f"{prompt}\n{more}" if more else prompt
    answer = cell_text(record, shape.answer)
    asked = f"{shape.instruction}\n{prompt}" if shape.instruction else prompt
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    system = _system(record, shape)
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return ChatRow(messages=messages, prompt=prompt, answer=answer)


def _system(record: Record, shape: RowShape) -> str:
    """The system message of a record; empty: it has none. Raises BadRow for a missing column."""
    if shape.system and shape.system not in record.fields:
        cell_text(record, shape.system)  # says what is there
    return optional_text(record, shape.system or "system")


def _talk(record: Record, shape: RowShape) -> ChatRow:
    talk = record.fields.get(shape.prompt)
    if not isinstance(talk, list):
        problem = f"there is no list of messages in {shape.prompt!r}"
        raise BadRow(place=record.place, problem=problem, fix="Write one, or drop the row.")
    if any(isinstance(turn, dict) and "from" in turn for turn in talk):
        talk = _as_messages(record, shape, talk)
    messages = [dict(one) for one in chat_row(record.place, {"messages": talk})]
    asked = [one for one in messages[:-1] if one["role"] == "user" and one["content"].strip()]
    if not asked:
        problem = "nothing is asked before the answer"
        fix = "Begin with the user's message, or drop the row."
        raise BadRow(place=record.place, problem=problem, fix=fix)
    prompt = "\n".join(one["content"] for one in asked)
    if shape.instruction:
        asked[0]["content"] = f"{shape.instruction}\n{asked[0]['content']}"
    system = _system(record, shape)
    if system and all(one["role"] != "system" for one in messages):
        messages.insert(0, {"role": "system", "content": system})
    return ChatRow(messages=messages, prompt=prompt, answer=messages[-1]["content"])


def _as_messages(
    record: Record, shape: RowShape, talk: Sequence[object]
) -> list[Mapping[str, object]]:
    """Turns of ShareGPT as messages."""
    turns: list[Mapping[str, object]] = []
    for number, turn in enumerate(talk):
        speaker = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(turn, dict) or str(speaker) not in _SPEAKERS:
            problem = f"it is {speaker!r}" if speaker else "it is missing"
            place = f"{record.place}, {shape.prompt}[{number}].from"
            raise BadRow(place=place, problem=problem, fix=f"Known are {', '.join(_SPEAKERS)}.")
        turns.append({"role": _SPEAKERS[str(speaker)], "content": turn.get("value")})
    return turns
