"""Parser of service files (TOML), and of how many replicas are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

from karez.core.call_limits import MinuteLimits
from karez.core.engines import Adapter, Preference, Task
from karez.core.jobfile import only, parse_toml, requests_of, table_of
from karez.core.probes import Probe
from karez.core.service_schedules import parse_schedule
from karez.core.services import ServiceSpec
from karez.core.units import parse_seconds

_WORDS = ("name", "model", "project", "engine", "environment", "prefer", "task")
_COUNTS = ("context", "parallel", "priority")
_LIMITS = ("requests_per_minute", "tokens_per_minute")
_TIMES = {"idle": "idle_s", "hedge": "hedge_s", "first_token": "first_token_s"}
"""Key -> field of a ServiceSpec in seconds."""
_TOP = {*_WORDS, *_COUNTS, *_LIMITS, *_TIMES, "replicas", "each", "probe", "adapters"}
_LISTS = {"fallbacks": "names of services", "schedules": "hours and replicas"}


def parse_service(text: str) -> ServiceSpec:
    """Parse a service from TOML text.

    Raises:
        ValueError: Invalid TOML, an unknown key, or an invalid value.
    """
    table = parse_toml(text)
    only(table, _TOP | _LISTS.keys(), "the file")
    for name in ("name", "model"):
        if not isinstance(table.get(name), str):
            raise ValueError(f'the file needs a {name}; write {name} = "..."')
    fields = _typed(table, _WORDS, str, "text") | _typed(table, _COUNTS, int, "a whole number")
    if "prefer" in fields:
        fields["prefer"] = Preference(fields["prefer"])
    if "task" in fields:
        fields["task"] = Task(fields["task"])
    adapters = table_of(table, "adapters")
    _typed(adapters, tuple(adapters), str, "the name of a model")
    fields["adapters"] = tuple(Adapter(name=n, model=adapters[n]) for n in adapters)
    if "context" in fields:
        fields["context_tokens"] = fields.pop("context")
    fields |= parse_replicas(table.get("replicas", 1))
    for key in _TIMES.keys() & table.keys():
        value = table[key]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{key} = {value!r} should be a time, such as 10m")
        fields[_TIMES[key]] = parse_seconds(value)
    fields["calls"] = MinuteLimits(**_typed(table, _LIMITS, int, "a whole number"))
    fields["fallbacks"] = _texts(table, "fallbacks")
    fields["schedules"] = tuple(map(parse_schedule, _texts(table, "schedules")))
    probe = only(table_of(table, "probe"), {"prompt", "expect"}, "[probe]")
    if probe:
        words = {"prompt": "", "expect": "", **_typed(probe, ("prompt", "expect"), str, "text")}
        fields["probe"] = Probe(**words)
    return ServiceSpec(**fields, each=requests_of(table))


def _texts(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts. Raises ValueError."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key} = {value!r} should be a list of {_LISTS[key]}")
    return tuple(value)


def _typed(table: Mapping[str, Any], names: Sequence[str], kind: type, what: str) -> dict[str, Any]:
    """The values of these keys, which are all of one type. Raises ValueError."""
    found = {name: table[name] for name in names if name in table}
    for name, value in found.items():
        if type(value) is not kind:
            raise ValueError(f"{name} = {value!r} should be {what}")
    return found


def parse_replicas(text: str | int) -> dict[str, Any]:
    """Read `2`, or `0..4` for as many as the requests need: fields of a ServiceSpec.

    Raises:
        ValueError: Neither a number nor two of them.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(f"replicas = {text!r} should be a number, or a range as 0..4")
    low, dots, high = str(text).partition("..")
    try:
        least = int(low)
        most = int(high) if dots else None
    except ValueError:
        raise ValueError(f"replicas = {text!r} should be a number, or a range as 0..4") from None
    if most is None:
        return {"replicas": least, "min_replicas": None, "max_replicas": None}
    return {"replicas": max(1, least), "min_replicas": least, "max_replicas": most}
