"""Simulated fleets: the same for the same seed, worse for more faults, and as the rates say."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from karez.cli.main import app
from karez.simulation.failure_rates import CLASSES, FLEETS
from karez.simulation.fleet_plan import FleetPlan
from karez.simulation.fleet_report import summarize
from karez.simulation.fleet_simulation import simulate, simulate_many


def test_the_published_counts_add_up() -> None:
    assert sum(one.weight for one in CLASSES) == 419
    assert FLEETS["llama3"].per_node_day == pytest.approx(419 / 54 / (16_384 / 8), rel=1e-3)


def test_a_training_is_the_same_for_the_same_seed() -> None:
    plan = FleetPlan(devices=2000, days=20)
    assert simulate(plan, 3).recoveries == simulate(plan, 3).recoveries
    assert simulate(plan, 3).recoveries != simulate(plan, 4).recoveries


@pytest.mark.story
def test_ten_thousand_devices_train_on_without_a_restart() -> None:
    found = summarize(FleetPlan(), simulate_many(FleetPlan(), range(4)))
    assert found["goodput"]["min"] >= 0.993
    assert found["without_restart"] == 1.0
    assert found["recovery_s"]["max"] < 600
    assert 4.0 < found["interruptions_per_day"] < 7.0
    assert [peer["goodput"] < found["goodput"]["mean"] for peer in found["peers"]] == [True] * 5


@pytest.mark.story
def test_without_spares_or_elasticity_a_broken_node_costs_a_restart() -> None:
    poor = FleetPlan(devices=800, days=40, per_node_day=2e-2, spare_share=0.0)
    lives = simulate_many(poor, range(4))
    assert any(life.restarts for life in lives)
    elastic = simulate_many(
        FleetPlan(devices=800, days=40, per_node_day=2e-2, spare_share=0.0, elastic=0.2), range(4)
    )
    assert sum(len(life.restarts) for life in elastic) < sum(len(life.restarts) for life in lives)


def test_more_faults_leave_less() -> None:
    rates = [
        simulate(FleetPlan(per_node_day=rate, days=10), 1).goodput for rate in (0.0, 4e-3, 2e-2)
    ]
    assert rates[0] > rates[1] > rates[2]


def test_the_command_prints_figures_and_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ["simulate", "training", "--devices", "1000", "--days", "5", "--seeds", "0-3"]
    done = CliRunner().invoke(app, [*words, "--report", str(page), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["runs"] == 4
    assert found["phases"]["exit_s"] == 0.02
    assert "<svg" in page.read_text()
    assert CliRunner().invoke(app, words).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--devices", "0"],
        ["--days", "-1"],
        ["--fleet", "x"],
        ["--rate", "99"],
        ["--step", "0"],
        ["--seeds", "x"],
        ["--spares", "2"],
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str]) -> None:
    from karez.core.errors import BadRequest

    done = CliRunner().invoke(app, ["simulate", "training", *words])
    assert isinstance(done.exception, BadRequest)
