"""Words of karez 0.1 work on the command line for one release, and say what to use instead."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from karez.cli.main import app
from karez.cli.old_names import NEW_COMMANDS, word_of
from karez.core.fault_injection import FaultKind
from karez.core.workloads import State

LOG = Path(__file__).parent.parent / "stored" / "v0_1" / "decisions.log"


def test_an_old_command_does_the_same_and_names_the_new_on_standard_error() -> None:
    old = CliRunner().invoke(app, ["simulate", "journal", str(LOG)])
    new = CliRunner().invoke(app, ["simulate", "verify-log", str(LOG)])
    assert (old.exit_code, new.exit_code) == (0, 0)
    assert old.stdout == new.stdout
    assert "`karez simulate verify-log`" in old.stderr
    assert "verify-log" not in new.stderr


@pytest.mark.parametrize("old", NEW_COMMANDS)
def test_every_old_command_is_there_and_hidden(old: str) -> None:
    group, name = old.split()
    assert CliRunner().invoke(app, [group, name, "--help"]).exit_code == 0
    listed = CliRunner().invoke(app, [group, "--help"]).stdout
    assert f" {name} " not in listed
    assert NEW_COMMANDS[old].split()[1] in listed


@pytest.mark.parametrize(
    ("kind", "word", "meant"),
    [
        (FaultKind, "keeper", FaultKind.REPLICA_SERVER),
        (FaultKind, "foreman", FaultKind.CONTROLLER),
        (FaultKind, "kill", FaultKind.KILL),
        (State, "yielding", State.PREEMPTING),
        (State, "running", State.RUNNING),
    ],
)
def test_an_option_takes_the_words_of_both_releases(
    kind: type[FaultKind] | type[State], word: str, meant: FaultKind | State
) -> None:
    assert word_of(kind)(word) is meant


def test_an_unknown_word_is_misuse() -> None:
    with pytest.raises(typer.BadParameter, match="'replica-server'"):
        word_of(FaultKind)("toaster")
    done = CliRunner().invoke(app, ["jobs", "list", "--state", "asleep"])
    assert (done.exit_code, "preempting" in done.stderr) == (2, True)
