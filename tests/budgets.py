"""A pytest plugin: runs one tier of the tests, and prints what each room took of its budget.

A test belongs to one tier, by its markers: fast (none), story, alone (a story that nothing may
run beside), deep. Its room is the first folder under tests/. A room over its budget in
`budgets.toml` is a warning in the print and fails nothing, since machines are noisy; that all
budgets together stay within what `make test` may take is a test.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("budgets.toml")
TIERS = ("fast", "story", "alone", "deep")
ROOT_ROOM = "house"
"""The room of the files that lie in tests/ itself."""

Seconds = Mapping[str, Mapping[str, float]]
"""Seconds by tier and room."""


def read_table(path: Path = TABLE) -> dict[str, dict[str, float]]:
    """The checked-in budgets: seconds by tier and room; `steps` is what is no test."""
    return tomllib.loads(path.read_text())


def room_of(nodeid: str) -> str:
    """The first folder under tests/ of a test's id."""
    parts = nodeid.split("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ROOT_ROOM


def tier_of(markers: Iterable[str]) -> str:
    """The tier of a test with these markers; the last one in TIERS wins."""
    found = set(markers)
    return next((tier for tier in reversed(TIERS) if tier in found), TIERS[0])


def lines_of(used: Seconds, budgets: Seconds) -> list[str]:
    """The table of used and given seconds, and a warning for every room that is over."""
    tiers = [tier for tier in TIERS if tier in used]
    rooms = sorted({room for tier in tiers for room in used[tier]})
    lines = ["room        " + "".join(f"{tier:>16}" for tier in tiers)]
    warnings = []
    for room in rooms:
        cells = []
        for tier in tiers:
            took, given = used[tier].get(room), budgets.get(tier, {}).get(room)
            cells.append(_cell(took, given))
            if took is not None and given is not None and took > given:
                warnings.append(
                    f"WARNING: {tier} tests of {room} took {took:.1f} s of {given:g} s:"
                    " make one quicker, or a story, or deep; or share tests/budgets.toml out again"
                )
        lines.append(f"{room:<12}" + "".join(f"{cell:>16}" for cell in cells).rstrip())
    totals = [
        _cell(sum(used[tier].values()), sum(budgets[tier].values()) if tier in budgets else None)
        for tier in tiers
    ]
    lines.append("in all      " + "".join(f"{cell:>16}" for cell in totals))
    return lines + warnings


def _cell(took: float | None, given: float | None) -> str:
    if took is None:
        return "-"
    return f"{took:.1f} / {given:g} s" if given is not None else f"{took:.1f} s"


class Meter:
    """Adds up what setup, call and teardown of the tests took, whichever worker ran them."""

    def __init__(self) -> None:
        self.used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.used[tier_of(report.keywords)][room_of(report.nodeid)] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.used:
            return
        terminalreporter.section("seconds used and given")
        for line in lines_of(self.used, read_table()):
            terminalreporter.write_line(line, yellow=line.startswith("WARNING"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=TIERS, help="run the tests of this tier alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--tier")
    if wanted is None:
        return
    others = [item for item in items if tier_of(m.name for m in item.iter_markers()) != wanted]
    config.hook.pytest_deselected(items=others)
    left_out = set(others)
    items[:] = [item for item in items if item not in left_out]


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the workers of pytest-xdist report to the one above
        config.pluginmanager.register(Meter(), "budgets")
