"""Runs every operator of the device on the CPU, with limits and faults on request."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from karez.ascend.operator_support import documented
from karez.emulated_npu import memory, random
from karez.emulated_npu.collectives import is_stopped
from karez.emulated_npu.streams import keep_order, put_late
from karez.emulated_npu.visibility import visible_count

_aten: Any = torch.ops.aten


@dataclass(slots=True)
class Limits:
    """Operators and types that the emulation lacks on purpose, and faults that it injects."""

    operators: frozenset[str] | None = None
    """Names without `aten::` of the only operators that exist; None: all."""
    dtypes: frozenset[str] = frozenset()
    """Types that raise, such as float64."""
    chip: str = ""
    """Chip whose documentation limits operators and types; empty: no such limit."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Operator -> its results are multiplied by 1 + this; for tests of comparisons."""
    is_lost: bool = False
    """Whether the device fails whatever it is asked for, as one that fell off its bus."""


LIMITS = Limits()
CALLED: Counter[str] = Counter()
"""How often each operator ran."""


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator on the CPU tensors behind its arguments."""
    _check_device()
    keep_order()
    call = _Call(op._schema.name)
    CALLED[call.name] += 1
    is_limited = LIMITS.operators is not None and call.name.startswith("aten::")
    if is_limited and call.name[6:] not in (LIMITS.operators or ()):
        raise NotImplementedError(f"{op} is not in the NPU's list of kernels (strict mode)")
    plain, named = pytree.tree_map(call.enter, (args, kwargs))
    if LIMITS.chip and call.is_ours and call.name.startswith("aten::"):
        _as_documented(call)
    if call.name == "aten::histc" and not plain[0].is_floating_point():
        # devices count integers, the CPU's kernel does not
        return memory.wrap(op(plain[0].float(), *plain[1:], **named).to(plain[0].dtype))
    compute = random.draw if call.is_ours and random.DeviceRandom.is_own() else _compute
    try:
        out = compute(op, plain, named)
    except RuntimeError as error:
        if "Expected a value of type 'Tensor'" not in str(error):
            raise
        out = op(*_with_tensors(op, plain), **named)
    call.follow()
    return pytree.tree_map(call.leave, out) if call.is_ours else out


def _compute(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return op(*args, **kwargs)


def _with_tensors(op: Any, values: Sequence[Any]) -> list[Any]:
    """Numbers as tensors where the operator takes nothing else: `x % 1` comes with the number."""
    kinds = [argument.type.kind() for argument in op._schema.arguments]
    kinds = [*kinds[: len(values)], *[""] * (len(values) - len(kinds))]
    made = []
    for kind, value in zip(kinds, values, strict=True):
        is_number = kind == "TensorType" and isinstance(value, (int, float, complex))
        dtype = torch.get_default_dtype() if isinstance(value, float) else None
        made.append(torch.tensor(value, dtype=dtype) if is_number else value)
    return made


def _as_documented(call: "_Call") -> None:
    """Raises NotImplementedError for what the chip's documentation rules out."""
    known = documented(call.name[6:], LIMITS.chip)
    if known is None:
        return
    if not known.is_there:
        raise NotImplementedError(
            f"{call.name}: {LIMITS.chip} is documented not to have {known.apis[0]} (strict mode)"
        )
    for dtype in call.dtypes:
        if not known.allows(dtype):
            raise NotImplementedError(
                f"{call.name}: for {LIMITS.chip} {known.apis[0]} is documented with "
                f"{', '.join(sorted(known.dtypes))}, not {dtype} (strict mode)"
            )


class _Call:
    """One operator on its way to the CPU and back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_ours = False
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._storages: dict[int, Any] = {}

    @property
    def dtypes(self) -> list[str]:
        """Types of the first tensor, and of all others but indices and masks."""
        values = [value for value, _ in self._seen]
        counted = values[:1] + [v for v in values[1:] if v.is_floating_point() or v.is_complex()]
        return [str(value.dtype).removeprefix("torch.") for value in counted]

    def enter(self, value: Any) -> Any:
        """An argument for the CPU's kernel."""
        if memory.is_npu(value):
            kind = str(value.dtype).removeprefix("torch.")
            if kind in LIMITS.dtypes:
                raise RuntimeError(f"{self.name} does not compute {kind} (strict mode)")
            near = memory.unwrap(value)
            self._seen.append((value, near))
            storage: Any = value.untyped_storage()
            self._storages[near.untyped_storage()._cdata] = storage
            self.is_ours = True
            return near
        if isinstance(value, torch.device) and value.type == memory.NAME:
            count = visible_count()
            if value.index is not None and value.index >= count:
                raise RuntimeError(f"{value} is not visible: this process sees {count}")
            self.is_ours = True
            return memory.CPU
        return value

    def follow(self) -> None:
        """What was changed in place may have another shape or another storage now."""
        for npu, near in self._seen:
            same = near.shape == npu.shape and near.stride() == npu.stride()
            if same and near.storage_offset() == npu.storage_offset():
                continue
            storage: Any = npu.untyped_storage()
            now = near.untyped_storage()
            is_old = storage._cpu is now and memory.bytes_of(storage) == memory.bytes_of(now)
            memory.repoint(npu, storage if is_old else memory.storage_of(now), near)

    def leave(self, value: Any) -> Any:
        """A result as a tensor of the device."""
        if not isinstance(value, torch.Tensor):
            return value
        if self.name in LIMITS.faults and value.is_floating_point():
            value.mul_(1 + LIMITS.faults[self.name])
        for npu, near in self._seen:
            if value is near:
                return npu
        storage = self._storages.get(value.untyped_storage()._cdata)
        return memory.wrap(value) if storage is None else memory.view(storage, value)


def _check_device() -> None:
    if LIMITS.is_lost:
        raise RuntimeError("the emulated NPU is lost")
    if is_stopped():
        raise RuntimeError("the emulated NPU is stopped")


def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> Any:
    """Copy between the device and the CPU, or within the device."""
    near = memory.unwrap(source) if memory.is_npu(source) else source
    if non_blocking and not memory.is_npu(target) and put_late(lambda: target.copy_(near)):
        return target
    _check_device()
    keep_order()
    (memory.unwrap(target) if memory.is_npu(target) else target).copy_(near)
    return target


def convolution_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rest: Any
) -> Any:
    """The device's own name for the gradient of a convolution."""
    return run(_aten.convolution_backward.default, grad, x, weight, [grad.shape[1]], *rest)


def lstm_cell(ig: Any, hg: Any, cx: Any, bi: Any = None, bh: Any = None) -> Any:
    """One step of an LSTM, in operators that have gradients."""
    gates = ig + hg if bi is None else (ig + bi) + (hg + bh)
    i, f, c, o = gates.chunk(4, 1)
    cy = f.sigmoid() * cx + i.sigmoid() * c.tanh()
    return o.sigmoid() * cy.tanh(), cy, gates.detach()


def gru_cell(ig: Any, hg: Any, hx: Any, bi: Any = None, bh: Any = None) -> Any:
    """One step of a GRU."""
    left = ig if bi is None else ig + bi
    right = hg if bh is None else hg + bh
    (ri, zi, ni), (rh, zh, nh) = left.chunk(3, 1), right.chunk(3, 1)
    n = (ni + (ri + rh).sigmoid() * nh).tanh()
    return n + (zi + zh).sigmoid() * (hx - n), ig.detach()


def redispatched(name: str) -> Callable[..., Any]:
    """The CPU's kernel of an operator that only changes shapes; it works on any device."""
    op = getattr(_aten, name).default

    def on_any(*args: Any, **kwargs: Any) -> Any:
        return op.redispatch(memory.KEYS, *args, **kwargs)

    return on_any
