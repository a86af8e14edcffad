"""`karez sweeps`: one job with many settings, tried to find the best."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.output import json_out, table
from karez.cli.remote.transfers import upload
from karez.cli.terminal import say
from karez.client.sweeps import SweepRun
from karez.core.errors import BadRequest
from karez.core.jobs import Job, Scalar
from karez.core.sweeps import Sweep, Trial, parse_sweep, ranked

app = typer.Typer(no_args_is_help=True, help="Try settings of a job to find the best.")
LIMIT_S = 30 * 24 * 3600.0
File = Annotated[Path, typer.Argument(help="TOML file with [job] and a [settings.NAME] for each.")]


@app.command("run")
def run_sweep(
    file: File,
    trials: Annotated[int, typer.Option(help="Number of trials; 0: as the file says.")] = 0,
    parallel: Annotated[int, typer.Option(help="Trials at once; 0: as the file says.")] = 0,
    as_json: Json = False,
) -> None:
    """Try settings until all trials are over, and show the best.

    The first trial has the job's own settings. Ctrl-C ends the choosing, and not the jobs that
    run. The same command again goes on with the trials that there are, also with more of them.

    Example: karez sweeps run rates.toml --trials 20
    """
    sweep = _read(file)
    sweep = replace(sweep, trials=trials or sweep.trials, parallel=parallel or sweep.parallel)

    def watch(trial: Trial, job: Job) -> None:
        if not as_json:
            told = "begun" if not trial.is_over else _value(trial)
            say(f"  {job.spec.name}: {_settings(trial.settings)}: {told}")

    run = SweepRun(
        client=client(),
        sweep=sweep,
        folder=file.parent,
        send=None if as_json else upload,
        watch=watch,
    )
    run.run(limit_s=LIMIT_S)
    _show(run, as_json=as_json)


@app.command("show")
def show_sweep(file: File, as_json: Json = False) -> None:
    """Show the trials that there are, the best first."""
    run = SweepRun(client=client(), sweep=_read(file), folder=file.parent)
    run.find()
    _show(run, as_json=as_json)


def _read(file: Path) -> Sweep:
    try:
        return parse_sweep(file.read_text())
    except (ValueError, OSError) as error:
        raise BadRequest(problem=f"{file}: {error}") from error


def _show(run: SweepRun, *, as_json: bool) -> None:
    trials = list(run.trials.values())
    best = ranked(run.sweep, trials)
    others = [trial for trial in trials if trial not in best]
    if as_json:
        told = [
            {
                "job": str(run.jobs[trial.number, trial.rung].id),
                "trial": trial.number,
                "rung": trial.rung,
                "settings": dict(trial.settings),
                "value": trial.value,
                "state": str(run.jobs[trial.number, trial.rung].state),
            }
            for trial in (*best, *others)
        ]
        json_out({"metric": run.sweep.metric, "trials": told})
        return
    rows = [
        (job.spec.name, _settings(trial.settings), _value(trial), job.state, job.id)
        for trial in (*best, *others)
        for job in (run.jobs[trial.number, trial.rung],)
    ]
    table(("trial", "settings", run.sweep.metric, "state", "job"), rows, empty="no trials yet")
    if best:
        _say_best(best, trials)


def _say_best(best: list[Trial], trials: list[Trial]) -> None:
    own = next((one for one in trials if not one.number and one.rung == best[0].rung), None)
    if not best[0].number:
        say("\nNothing was better than the job's own settings.")
        return
    beside = "" if own is None else f", the job's own settings {_value(own)}"
    say(f"\nThe best: {_value(best[0])}{beside}. Take it with:")
    say("  " + " ".join(f"--set {name}={_text(v)}" for name, v in best[0].settings.items()))


def _settings(settings: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{n}={_text(v)}" for n, v in settings.items()) or "the job's own settings"


def _text(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(trial: Trial) -> str:
    if trial.value is None:
        return "failed" if trial.is_over else ""
    return f"{trial.value:.6g}"


APPS = {"sweeps": app}
