"""Which engine serves a model, and why. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from karez.core.devices import DeviceKind
from karez.core.engines import AUTO, AdapterUse, Capabilities, Preference, Task
from karez.core.units import show_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an engine has to do."""

    engine: str
    """Its name, or `auto`."""
    format: str
    """Of the model."""
    architecture: str
    """Of the model; empty: nobody knows."""
    task: Task
    kinds: Collection[DeviceKind]
    """Kinds of device that a replica may be given."""
    adapter_formats: Collection[str]
    """Of the adapters beside the model."""
    prefer: Preference


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The engine, and why not another."""

    engine: str
    why: str


def obstacle(wanted: Wanted, can: Capabilities) -> str:
    """Why an engine cannot do what is wanted; empty if it can."""
    if wanted.format not in can.formats:
        told = wanted.format or "no format that was told"
        return f"it loads {', '.join(can.formats)}, and the model has {told}"
    known = can.architectures
    if known and wanted.architecture and wanted.architecture not in known:
        return f"it loads {', '.join(known)}, and the model is a {wanted.architecture}"
    if wanted.task not in can.tasks:
        return f"it has no task {wanted.task}"
    missing = sorted(kind for kind in wanted.kinds if kind not in can.kinds)
    if missing:
        return f"it does not compute on {missing[0]}"
    if wanted.adapter_formats and can.adapters == AdapterUse.NONE:
        return "it serves no adapters"
    others = sorted(set(wanted.adapter_formats) - set(can.adapter_formats))
    if others:
        return f"it loads adapters as {', '.join(can.adapter_formats)}, not {others[0]}"
    return ""


def choose_engine(
    wanted: Wanted,
    engines: Mapping[str, Capabilities],
    installed: Collection[str],
    needs: Mapping[str, int],
) -> Choice:
    """Choose an engine.

    Args:
        wanted: What it has to do.
        engines: All engines.
        installed: Those whose packages are installed; only they are chosen.
        needs: Engine -> memory that it needs, as far as that is known.

    Raises:
        ValueError: None can; the message says why of each.
    """
    if wanted.engine != AUTO:
        problem = obstacle(wanted, engines[wanted.engine])
        if problem:
            raise ValueError(f"engine {wanted.engine} cannot serve this: {problem}")
        return Choice(engine=wanted.engine, why="it was asked for")
    problems = {name: obstacle(wanted, can) for name, can in engines.items()}
    for name, problem in problems.items():
        if not problem and name not in installed:
            problems[name] = f"it needs {', '.join(engines[name].modules)}, which is not installed"
    able = [name for name, problem in problems.items() if not problem]
    if not able:
        told = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
        raise ValueError(f"no engine can serve this ({told})")
    speeds = {name: engines[name].speed for name in able}
    if wanted.prefer == Preference.THROUGHPUT:
        best = max(able, key=lambda name: (speeds[name], name))
        why = f"it answers many callers fastest, {speeds[best]:g} to"
        rest = [f"{speeds[name]:g} of {name}" for name in sorted(able) if name != best]
    else:
        best = min(able, key=lambda name: (needs.get(name, 2**63), -speeds[name], name))
        need = f", {show_bytes(needs[best])} to" if best in needs else " to that"
        why = f"it needs least memory{need}"
        rest = [
            f"{show_bytes(needs[name])} of {name}" if name in needs else f"of {name}"
            for name in sorted(able)
            if name != best
        ]
    if not rest:
        others = [f"{n}: {p}" for n, p in sorted(problems.items()) if p]
        return Choice(engine=best, why="no other can" + (f" ({'; '.join(others)})" * bool(others)))
    return Choice(engine=best, why=f"{why} {', '.join(rest)}")
