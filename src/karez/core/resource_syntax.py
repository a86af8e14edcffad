"""Resource requests and amounts as text: the syntax of the command line and of job files."""

import math
from collections.abc import Mapping
from typing import Final

from karez.core.devices import IN_BYTES, DeviceKind
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI, parse_bytes, show_bytes, show_devices

_FIRST: Final = (
    DeviceKind.NPU,
    DeviceKind.GPU,
    DeviceKind.CPU,
    DeviceKind.DPU,
    DeviceKind.MEMORY,
    DeviceKind.STORAGE,
)
"""Order in which kinds are listed; the first that an alternative names is its device."""


def parse_resource_request(text: str) -> ResourceRequest:
    """Read one alternative such as `npu=1,cpu=8,memory=4GiB,model=910B|910C,speed=0.5`.

    Raises:
        ValueError: Unknown word, no device, or two devices.
    """
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, sep, value = part.partition("=")
        if not sep:
            raise ValueError(f"{part!r} should read like cpu=2 or memory=4GiB")
        if key.strip() in fields:
            raise ValueError(f"{key.strip()!r} is there twice in {text!r}")
        fields[key.strip()] = value.strip()
    return resource_request_from(fields)


def resource_request_from(fields: Mapping[str, str | float | int]) -> ResourceRequest:
    """Read one alternative from a TOML table such as `{ npu = 1, cpu = 8, memory = "32GiB" }`.

    The device is the npu or gpu; without either, the cpu, the dpu, the memory or the storage, in
    this order. All else is taken from the same node beside it.

    Raises:
        ValueError: Unknown word, no device, or two devices.
    """
    words = {kind.value for kind in DeviceKind}
    unknown = sorted(set(fields) - {*words, "speed", "model"})
    if unknown:
        raise ValueError(
            f"invalid device kind {unknown[0]!r}; say {', '.join(kinds_in_order())}, model or speed"
        )
    named = [kind for kind in _FIRST if kind.value in fields]
    if not named:
        raise ValueError("name a device in each alternative, such as cpu=1")
    if DeviceKind.NPU in named and DeviceKind.GPU in named:
        raise ValueError("npu and gpu in one alternative; give two alternatives if either will do")
    kind = named[0]
    milli = {k: _milli(fields, k) for k in (DeviceKind.CPU, DeviceKind.DPU) if k != kind}
    memory = parse_bytes(_whole(fields.get("memory", 0)))
    storage = parse_bytes(_whole(fields.get("storage", 0)))
    models = str(fields["model"]).split("|") if "model" in fields else []
    return ResourceRequest(
        kind=kind,
        milli=0 if kind in IN_BYTES else _milli(fields, kind),
        memory_bytes=memory,
        storage_bytes=storage,
        cpu_milli=milli.get(DeviceKind.CPU, 0),
        dpu_milli=milli.get(DeviceKind.DPU, 0),
        models=tuple(name.strip() for name in models if name.strip()),
        speed=_number(fields.get("speed", 1.0), "speed"),
    )


def kinds_in_order() -> list[str]:
    """List the kinds as people write them, accelerators first."""
    return [kind.value for kind in _FIRST]


def _milli(fields: Mapping[str, str | float | int], kind: DeviceKind) -> int:
    return round(_number(fields.get(kind.value, 0), "amount", f" of {kind}") * MILLI)


def _number(value: str | float, what: str, of: str = "") -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"invalid {what} {value!r}{of}: not a finite number")
    return number


def _whole(value: str | float) -> str | int:
    return value if isinstance(value, str) else int(value)


def parse_amount(kind: DeviceKind, text: str) -> int:
    """Read `8` devices as thousandths, or `64GiB` of memory or storage as bytes.

    Raises:
        ValueError: Not an amount of that kind.
    """
    if kind in IN_BYTES:
        return parse_bytes(text)
    return round(_number(text, "amount", f" of {kind}") * MILLI)


def show_amount(kind: DeviceKind, amount: int) -> str:
    """Show an amount in its kind's unit for people: `8`, `64.0 GiB`."""
    return show_bytes(amount) if kind in IN_BYTES else show_devices(amount)


def write_amount(kind: DeviceKind, amount: int) -> str:
    """Write an amount exactly, as `parse_amount` reads it."""
    return f"{amount}B" if kind in IN_BYTES else show_devices(amount)
