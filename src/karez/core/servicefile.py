"""Parser of service files (TOML), and of how many replicas are asked for."""

import tomllib
from typing import Any

from karez.core.jobfile import only, requests_of, table_of
from karez.core.services import Probe, ServiceSpec
from karez.core.units import parse_seconds

_TOP = {
    "name",
    "model",
    "project",
    "engine",
    "replicas",
    "idle",
    "each",
    "context",
    "parallel",
    "priority",
    "probe",
}
_AS_THEY_ARE = ("name", "model", "project", "engine", "parallel", "priority")


def parse_service(text: str) -> ServiceSpec:
    """Parse a service from TOML text.

    Raises:
        ValueError: Invalid TOML, an unknown key, or an invalid value.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"invalid TOML: {error}") from error
    only(table, _TOP, "the file")
    for name in ("name", "model"):
        if not isinstance(table.get(name), str):
            raise ValueError(f'the file needs a {name}; write {name} = "..."')
    fields: dict[str, Any] = {key: table[key] for key in _AS_THEY_ARE if key in table}
    fields |= parse_replicas(table.get("replicas", 1))
    if "idle" in table:
        fields["idle_s"] = parse_seconds(table["idle"])
    if "context" in table:
        fields["context_tokens"] = table["context"]
    probe = only(table_of(table, "probe"), {"prompt", "expect"}, "[probe]")
    if probe:
        fields["probe"] = Probe(prompt=probe.get("prompt", ""), expect=probe.get("expect", ""))
    return ServiceSpec(**fields, each=requests_of(table))


def parse_replicas(text: str | int) -> dict[str, Any]:
    """Read `2`, or `0..4` for as many as the requests need: fields of a ServiceSpec.

    Raises:
        ValueError: Neither a number nor two of them.
    """
    low, dots, high = str(text).partition("..")
    try:
        least = int(low)
        most = int(high) if dots else None
    except ValueError:
        raise ValueError(f"replicas = {text!r} should be a number, or a range as 0..4") from None
    if most is None:
        return {"replicas": least, "min_replicas": None, "max_replicas": None}
    return {"replicas": max(1, least), "min_replicas": least, "max_replicas": most}
