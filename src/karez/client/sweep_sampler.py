"""The settings of the next trial by what earlier ones gave (Optuna)."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from karez.core.jobs import Scalar
from karez.core.parts import missing_part
from karez.core.sweeps import Parameter, Sweep, Trial


def suggested(sweep: Sweep, trials: Sequence[Trial], number: int) -> Mapping[str, Scalar]:
    """The settings of a trial, chosen by a tree-structured Parzen estimator.

    Args:
        sweep: The sweep.
        trials: Those before it; of each the rung on which it was given least.
        number: Of the new trial.

    Raises:
        MissingPart: Optuna is not installed.
    """
    try:
        optuna: Any = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise missing_part(error, "a Bayesian sweep") or error from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces = {name: _space(optuna, one) for name, one in sweep.parameters.items()}
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(
            seed=sweep.seed + number, n_startup_trials=5, multivariate=True, constant_liar=True
        ),
        direction="maximize" if sweep.is_higher_better else "minimize",
    )
    for trial in trials:
        study.add_trial(_told(optuna, trial, spaces))
    asked = study.ask(spaces)
    return {name: asked.params[name] for name in spaces}


def _space(optuna: Any, one: Parameter) -> Any:
    if one.values:
        return optuna.distributions.CategoricalDistribution(one.values)
    if one.is_int:
        return optuna.distributions.IntDistribution(int(one.low), int(one.high), log=one.is_log)
    return optuna.distributions.FloatDistribution(one.low, one.high, log=one.is_log)


def _told(optuna: Any, trial: Trial, spaces: Mapping[str, Any]) -> Any:
    """A trial as Optuna has it; settings outside of the space are left out."""
    known = {
        name: value
        for name, value in trial.settings.items()
        if spaces[name]._contains(spaces[name].to_internal_repr(value))
    }
    states = optuna.trial.TrialState
    state = states.RUNNING if not trial.is_over else states.COMPLETE
    if trial.is_over and trial.value is None:
        state = states.FAIL
    return optuna.trial.create_trial(
        params=known,
        distributions={name: spaces[name] for name in known},
        value=trial.value if state == states.COMPLETE else None,
        state=state,
    )
