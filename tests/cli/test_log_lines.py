"""What a reader sees of output that comes in pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.cli.log_lines import MAX_LINE, PROGRESS_S, LineAssembler


def shown(*pieces: str, colours: bool = False, every_s: float = 0.0) -> list[str]:
    """Lines of one process whose pieces come at these intervals."""
    lines = LineAssembler(colours=colours)
    told = [line for n, piece in enumerate(pieces) for line in lines.add("a", piece, n * every_s)]
    return told + [line for _, line in lines.end()]


@given(st.text(alphabet="ab\u2028é日😀\x85\x0b\x0c\x1c \t\n"), st.data())
def test_where_pieces_end_changes_nothing(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[begin:end] for begin, end in pairwise([0, *cuts, len(text)])]
    assert shown(*pieces) == shown(text)
    assert len(shown(text)) == text.count("\n") + (bool(text) and not text.endswith("\n"))


def test_lines_end_at_newlines_and_nowhere_else() -> None:
    assert shown("a\u2028b\x0bc\x0cd\x85e\x1cf\r\ng\n") == ["a\u2028b␋c␌d\ufffde␜f", "g"]
    assert shown("one\n\ntwo") == ["one", "", "two"]


def test_a_progress_bar_is_its_newest_state_now_and_then() -> None:
    bar = [f"\rprogress {n:3d}%" for n in range(101)]
    assert shown(*bar, "\n", "end\n") == ["progress   0%", "progress 100%", "end"]
    seen = shown(*bar, "\n", every_s=1.0)
    assert seen == [f"progress {n:3d}%" for n in range(0, 101, int(PROGRESS_S))]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[2Jx\x1b[1;1H", "x"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;aGk=\x1b\\x", "x"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x07b\x00\x7f", "a␇b␀␡"),
        ("\x1b", ""),
    ],
)
def test_what_steers_a_terminal_does_not_reach_it(text: str, plain: str) -> None:
    assert shown(text + "\n") == [plain]


def test_colours_stay_where_they_are_wanted_and_end_with_the_line() -> None:
    assert shown("\x1b[31mred\x1b[2J\n", colours=True) == ["\x1b[31mred\x1b[0m"]


def test_a_line_without_an_end_is_broken() -> None:
    assert [len(line) for line in shown("A" * (2 * MAX_LINE + 5))] == [MAX_LINE, MAX_LINE, 5]


def test_processes_do_not_mix() -> None:
    lines = LineAssembler()
    assert list(lines.add("a", "one ", 0.0)) == []
    assert list(lines.add("b", "two\n", 0.0)) == ["two"]
    assert list(lines.add("a", "more\n", 0.0)) == ["one more"]
