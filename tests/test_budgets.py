"""The budgets of the tests: complete, within what `make test` may take, and told when broken."""

from pathlib import Path

from tests.budgets import lines_of, read_table, room_of, tier_of

HERE = Path(__file__).parent
LIMIT_S = 15 * 60
"""What `make test` may take on two cores."""
WORKERS = {"fast": 2, "story": 2}
"""Workers of a tier, as in the Makefile; the others have one."""


def test_all_budgets_together_fit_into_a_quarter_of_an_hour() -> None:
    took = {tier: sum(rows.values()) / WORKERS.get(tier, 1) for tier, rows in read_table().items()}
    assert sum(took.values()) <= LIMIT_S, took


def test_fast_tests_have_a_minute() -> None:
    assert sum(read_table()["fast"].values()) / WORKERS["fast"] <= 45  # and 15 s to collect them


def test_every_room_has_a_budget_and_every_budget_a_room() -> None:
    table = read_table()
    rooms = {room_of(f"tests/{file.relative_to(HERE)}") for file in HERE.rglob("test_*.py")}
    assert set(table["fast"]) | set(table["story"]) | set(table["alone"]) == rooms
    assert set(table) == {"fast", "story", "alone", "steps"}


def test_the_strongest_marker_is_the_tier() -> None:
    assert tier_of(["asyncio"]) == "fast"
    assert tier_of(["deep", "parametrize", "story"]) == "deep"
    assert tier_of(["alone", "story"]) == "alone"


def test_a_room_is_the_first_folder() -> None:
    assert room_of("tests/store/test_store.py::test_a[x/y]") == "store"
    assert room_of("tests/migration/msprobe/test_a.py::test_a") == "migration"
    assert room_of("tests/test_house.py::test_a") == "house"


def test_a_room_over_its_budget_is_a_warning() -> None:
    used = {"fast": {"core": 2.0, "store": 3.04}, "deep": {"store": 70.0}}
    budgets = {"fast": {"core": 4.0, "store": 3.0, "cli": 9.0}}
    assert [line.split() for line in lines_of(used, budgets)[:4]] == [
        ["room", "fast", "deep"],
        ["core", "2.0", "/", "4", "s", "-"],
        ["store", "3.0", "/", "3", "s", "70.0", "s"],
        ["in", "all", "5.0", "/", "16", "s", "70.0", "s"],
    ]
    (warning,) = lines_of(used, budgets)[4:]
    assert warning.startswith("WARNING: fast tests of store took 3.0 s of 3 s")
