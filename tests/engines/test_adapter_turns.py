"""Answers of several adapters from a model that has one at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from karez.engines.adapter_turns import AdapterTurns
from karez.engines.generation import REFUSED, Asked, BadField, Piece


@dataclass
class OneAdapter:
    """A model that fails a test which mixes adapters."""

    current: str = ""
    running: list[tuple[str, Callable[[Piece], None]]] = field(default_factory=list)
    given_up: int = 0
    has_schemas: bool = False
    end_tokens: frozenset[int] = frozenset()

    def use(self, adapter: str) -> None:
        assert not self.running
        self.current = adapter

    def begin(self, asked: Asked, tell: Callable[[Piece], None]) -> Callable[[], None]:
        assert asked.adapter == self.current
        if asked.schema:
            raise BadField("no schema")
        one = (asked.adapter, tell)
        self.running.append(one)

        def give_up() -> None:
            if one in self.running:
                self.running.remove(one)
                self.given_up += 1

        return give_up

    def finish(self, number: int = 0) -> None:
        _, tell = self.running.pop(number)
        tell(Piece(end="stop"))


def asked(adapter: str, schema: str = "") -> Asked:
    return Asked(tokens=[1], most=1, adapter=adapter, schema=schema)


def test_those_of_one_adapter_run_together_and_others_wait_their_turn() -> None:
    model = OneAdapter()
    turns = AdapterTurns(inner=model, use=model.use)
    ended: list[int] = []

    def note(number: int, piece: Piece) -> None:
        assert piece.end
        ended.append(number)

    for number, adapter in enumerate(["a", "a", "b", "a"]):
        turns.begin(asked(adapter), partial(note, number))
    assert [adapter for adapter, _ in model.running] == ["a", "a"]
    model.finish()
    assert len(model.running) == 1  # `b` waits, and the last `a` behind it
    model.finish()
    assert [adapter for adapter, _ in model.running] == ["b"]
    model.finish()
    assert [adapter for adapter, _ in model.running] == ["a"]
    model.finish()
    assert ended == [0, 1, 2, 3]


def test_what_is_refused_blocks_nobody() -> None:
    model = OneAdapter()
    turns = AdapterTurns(inner=model, use=model.use)
    told: list[Piece] = []
    give_up = turns.begin(asked("a", schema="nonsense"), told.append)
    give_up()
    assert [(piece.end, piece.problem) for piece in told] == [(REFUSED, "no schema")]
    turns.begin(asked("b"), told.append)
    assert [adapter for adapter, _ in model.running] == ["b"]
    turns.begin(asked("a", schema="nonsense"), told.append)  # it waits behind `b`
    model.finish()
    assert [piece.end for piece in told] == [REFUSED, "stop", REFUSED]


def test_what_is_given_up_makes_room() -> None:
    model = OneAdapter()
    turns = AdapterTurns(inner=model, use=model.use)
    give_up = turns.begin(asked("a"), lambda piece: None)
    waits = turns.begin(asked("b"), lambda piece: None)
    last = turns.begin(asked("c"), lambda piece: None)
    waits()
    waits()
    give_up()
    give_up()
    assert model.given_up == 1
    assert [adapter for adapter, _ in model.running] == ["c"]
    last()
    assert model.running == []


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["", "a", "b"]).map(lambda adapter: ("begin", adapter)),
            st.integers(0, 3).map(lambda number: ("finish", number)),
            st.integers(0, 9).map(lambda number: ("give up", number)),
        ),
        max_size=40,
    )
)
def test_every_answer_comes_to_its_end(acts: list[tuple[str, str | int]]) -> None:
    model = OneAdapter()
    turns = AdapterTurns(inner=model, use=model.use)
    begun: list[Callable[[], None]] = []
    ended: set[int] = set()

    def note(number: int, piece: Piece) -> None:
        assert piece.end
        ended.add(number)

    for act, what in acts:
        if act == "begin":
            number = len(begun)
            begun.append(turns.begin(asked(str(what)), partial(note, number)))
        elif act == "finish" and model.running:
            model.finish(int(what) % len(model.running))
        elif act == "give up" and begun:
            begun[int(what) % len(begun)]()
            ended.add(int(what) % len(begun))
    while model.running:
        model.finish()
    assert ended == set(range(len(begun)))
