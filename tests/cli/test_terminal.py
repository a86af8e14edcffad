"""What commands print."""

import pytest

from karez.cli.terminal import say


def test_what_would_steer_a_terminal_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    say("lost: \x1b[2J\x9b1mgone\r\x07\n\tnext")
    say("piece", nl=False)
    say("to stderr\x1b]0;title", err=True)
    assert capsys.readouterr() == (
        "lost: \\x1b[2J\\x9b1mgone\\r\\x07\n\tnext\npiece",
        "to stderr\\x1b]0;title\n",
    )
