"""Records what every module of a script computes, through hooks of torch.

torch calls the hooks for all modules and optimizers, so a script needs no edits. Of each tensor a
sample is kept, chosen by its size alone, with its norm; losses are what `backward` is called on.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from karez.equivalence import settings
from karez.equivalence.record import SAMPLE
from karez.equivalence.tensor_tree import named_tensors, spoiled


@dataclass
class Recorder:
    """Records one run of a script."""

    folder: Path
    steps: int = 3
    """Optimizer steps whose modules are recorded; losses are recorded in all."""
    most: int = 0
    """Optimizer steps after which the script is ended; 0: never."""
    inside: str = ""
    """A module whose operators are recorded one by one."""
    fault: tuple[str, float] = ("", 0.0)
    """A module whose outputs are spoiled, and by which share; for tests of comparisons."""
    has_spoiled: bool = False
    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    active: list[Any] = field(default_factory=list)
    handles: list[Any] = field(default_factory=list)
    operators: Any = None
    gradients: dict[int, torch.Tensor] = field(default_factory=dict)
    """Gradients of the parameters that the optimizer is about to step."""
    devices: set[str] = field(default_factory=set)
    parameters: int = 0
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of modules and optimizers at their first use in a step that is recorded."""
    _backward: Any = None

    def install(self) -> None:
        """Register the hooks with torch."""
        modules: Any = torch.nn.modules.module
        self.handles = [
            modules.register_module_forward_pre_hook(self._enter),
            modules.register_module_forward_hook(self._leave, always_call=False),
            register_optimizer_step_pre_hook(self._stepping),
            register_optimizer_step_post_hook(self._stepped),
        ]
        tensors: Any = torch.Tensor  # its methods cannot be replaced by their types
        backward = tensors.backward

        def watched(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if tensor.numel() == 1:
                self.losses.append(float(tensor.detach().float()))
            return backward(tensor, *args, **kwargs)

        tensors.backward = watched
        self._backward = backward

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()
        tensors: Any = torch.Tensor
        tensors.backward = self._backward

    def write(self, why: str) -> None:
        """Write the record into the folder; `why` says how the script ended."""
        np.savez(self.folder / "samples.npz", **self.samples)  # type: ignore[arg-type]  # by name
        record = {
            "rows": self.rows,
            "losses": self.losses,
            "steps": self.step,
            "ended": why,
            "devices": sorted(self.devices),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "parameters": self.parameters,
            "settings": self.settings,
            "argv": sys.argv,
            "operators": sorted(set(_called())),
        }
        (self.folder / "record.json").write_text(json.dumps(record))

    @property
    def _is_on(self) -> bool:
        return self.step < self.steps and torch.is_grad_enabled()

    def _enter(self, module: Any, args: Any) -> None:
        if not self.active:
            self._name_all(module)
        self.active.append(module)
        if self.inside and self._is_on and self.names.get(id(module)) == self.inside:
            self.operators = _Operators(self)
            self.operators.__enter__()
        del args

    def _leave(self, module: Any, args: Any, output: Any) -> Any:
        if self.active and self.active[-1] is module:
            self.active.pop()
        name = self.names.get(id(module), type(module).__name__)
        if self.operators is not None and name == self.inside:
            self.operators.__exit__(None, None, None)
            self.operators = None
        if not self._is_on:
            return None
        if name not in self.settings:
            self.settings[name] = settings.of_module(module)
        changed = None
        if self.fault[0] and name == self.fault[0]:
            changed = output = spoiled(output, self.fault[1])
            self.has_spoiled = True
        self._note("forward", name, module, args, output)
        self._watch_gradients(name, module, args, output)
        return changed

    def _watch_gradients(self, name: str, module: Any, args: Any, output: Any) -> None:
        """Record gradients by hooks on tensors: hooks on modules forbid in-place changes."""
        given: dict[str, torch.Tensor] = {}
        for key, tensor in named_tensors(output, "grad_out"):
            if tensor.requires_grad:
                tensor.register_hook(lambda g, key=key: given.__setitem__(key, g.detach().clone()))
        wanted = [pair for pair in named_tensors(args, "grad_in") if pair[1].requires_grad]

        def arrived(grad: torch.Tensor, key: str) -> None:
            if self.step < self.steps and given:
                leaf = not list(module.children())
                self._add("backward", name, type(module).__name__, {key: grad}, given, leaf=leaf)

        for key, tensor in wanted:
            if not tensor.is_leaf:
                tensor.register_hook(lambda g, key=key: arrived(g, key))

    def _stepping(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """Before the step: some optimizers use the gradients as scratch."""
        self.gradients = {}
        if self.step < self.steps:
            parts = [p for group in optimizer.param_groups for p in group["params"]]
            self.gradients = {id(p): p.grad.detach().clone() for p in parts if p.grad is not None}

    def _stepped(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if self.step < self.steps:
            key = f"{type(optimizer).__name__} in step {self.step + 1}"
            self.settings[key] = settings.of_optimizer(optimizer)
            parts = [p for group in optimizer.param_groups for p in group["params"]]
            for number, part in enumerate(parts):
                name = self.names.get(id(part), f"parameter {number}")
                tensors = {"weight": part.data, "gradient": self.gradients.get(id(part))}
                tensors |= {k: v for k, v in optimizer.state.get(part, {}).items()}
                self._add("optimizer", name, type(optimizer).__name__, tensors, {})
        self.step += 1
        if self.most and self.step >= self.most:
            raise StepsDone

    def _name_all(self, root: Any) -> None:
        count = 0
        for name, module in root.named_modules():
            self.names[id(module)] = name or type(root).__name__
        for name, part in root.named_parameters():
            self.names[id(part)] = name
            self.devices.add(part.device.type)
            count += part.numel()
        self.parameters = max(self.parameters, count)

    def _note(self, kind: str, name: str, module: Any, inputs: Any, outputs: Any) -> None:
        self._add(
            kind,
            name,
            type(module).__name__,
            dict(named_tensors(outputs, "out")),
            dict(named_tensors(inputs, "in")),
            leaf=not list(module.children()),
        )

    def _add(
        self,
        kind: str,
        name: str,
        what: str,
        out: dict[str, Any],
        inputs: dict[str, Any],
        *,
        leaf: bool = True,
    ) -> None:
        row: dict[str, Any] = {
            "step": self.step,
            "kind": kind,
            "name": name,
            "type": what,
            "leaf": leaf,
            "out": {},
            "in": {},
        }
        for side, tensors in (("out", out), ("in", inputs)):
            for key, tensor in tensors.items():
                if isinstance(tensor, torch.Tensor):
                    row[side][key] = self._sample(f"{len(self.rows)}/{side}/{key}", tensor)
        self.rows.append(row)

    def _sample(self, key: str, tensor: torch.Tensor) -> dict[str, Any]:
        near = tensor.detach()
        near = near.to_local() if hasattr(near, "to_local") else near  # a DTensor's own part
        flat = near.to("cpu").reshape(-1)
        if flat.is_complex():
            flat = torch.view_as_real(flat).reshape(-1)
        values = flat.to(torch.float64)
        stride = max(1, -(-values.numel() // SAMPLE))
        self.samples[key] = values[::stride].numpy().copy()
        return {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "norm": float(values.norm()),
            "finite": bool(torch.isfinite(values).all()),
        }


class StepsDone(BaseException):
    """Ends a script that has done the requested number of steps."""


class _Operators(TorchDispatchMode):
    """Records each operator inside one module."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types for it
        self._recorder = recorder
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = dict(named_tensors(out, "out"))
        if any(t.is_floating_point() for t in tensors.values()) and "empty" not in str(func):
            name = f"{self._count} {func._schema.name}"
            recorder = self._recorder
            inputs = dict(named_tensors(args, "in"))
            recorder._add("operator", name, recorder.inside, tensors, inputs)
            self._count += 1
        return out


def _called() -> list[str]:
    """Operators that the emulated device ran."""
    module = sys.modules.get("karez.emulated_npu.operators")
    return list(module.CALLED) if module is not None else []
