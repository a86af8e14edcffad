"""An optimizer whose state is sharded over the ranks (ZeRO stage 1)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, overload

import torch
from typing_extensions import override

from karez.core.errors import BadRequest

Collect = Callable[[torch.Tensor], torch.Tensor | None]


class ShardedOptimizer(torch.optim.Optimizer):
    """An optimizer whose state is split evenly over the ranks (ZeRO stage 1).

    Each rank keeps the moments of one slice of the flat parameters, updates that slice and gathers
    the others'. The update must be elementwise, as those of SGD, Adam and AdamW are; then the
    result is bit for bit that of the whole optimizer.

    Source: Rajbhandari et al., "ZeRO", SC'20, section 5.1 (P_os).
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        kind: Callable[..., torch.optim.Optimizer],
        **options: Any,
    ) -> None:
        """Shard `kind(params, **options)`.

        Raises:
            BadRequest: Parameters of several types or devices, or none.
        """
        own = [p for p in params if p.requires_grad]
        if len({(p.dtype, p.device) for p in own}) != 1:
            problem = "a sharded optimizer needs trainable parameters of one type on one device"
            raise BadRequest(problem=problem)
        self._kind, self._options = kind, options
        self._slice = torch.nn.Parameter(torch.zeros(0, dtype=own[0].dtype, device=own[0].device))
        self._inner = kind([self._slice], **options)
        self._shape = (0, 1)
        self.collect: Collect | None = None
        """Gathers all ranks' slices into one row; None if a peer was lost. Set by the session."""
        super().__init__(own, dict(self._inner.defaults))

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that this optimizer trains."""
        return [p for group in self.param_groups for p in group["params"]]

    def spread(self, rank: int, world: int) -> None:
        """Take this rank's slice of the current parameters; its moments start from zero."""
        self._shape = (rank, world)
        flat = self._flat(self.parameters)
        self._slice = torch.nn.Parameter(self._mine(flat).clone())
        self._inner = self._kind([self._slice], **self._options)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> NoReturn: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update the own slice by averaged gradients, then gather the other ranks' slices."""
        if closure is not None:
            raise BadRequest(problem="a sharded optimizer takes no closure")
        if self._slice.numel() == 0:
            self.spread(*self._shape)
        for key, value in self.param_groups[0].items():
            if key != "params":
                self._inner.param_groups[0][key] = value
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        self._slice.grad = self._mine(self._flat(grads)).clone()
        self._inner.step()
        self._slice.grad = None
        self.gather()

    @torch.no_grad()
    def gather(self, collect: Collect | None = None) -> None:
        """Copy all ranks' slices into the parameters, gathered by `collect` if it is given."""
        own, collect = self._slice.detach(), collect or self.collect
        row = own if self._shape[1] == 1 or collect is None else collect(own)
        if row is None:
            return  # a peer was lost: the step does not count
        at = 0
        for parameter in self.parameters:
            piece = row[at : at + parameter.numel()]
            parameter.copy_(piece.view(parameter.shape))
            at += parameter.numel()

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the own slice and its moments."""
        return {
            "slice": self._slice.detach(),
            "inner": self._inner.state_dict(),
            "shape": self._shape,
            "groups": [
                {k: v for k, v in group.items() if k != "params"} for group in self.param_groups
            ],
        }

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a slice; `gather` then completes the parameters."""
        self._shape = tuple(state["shape"])
        self._slice = torch.nn.Parameter(state["slice"].to(self._slice.device, copy=True))
        self._inner = self._kind([self._slice], **self._options)
        self._inner.load_state_dict(state["inner"])
        for group, saved in zip(self.param_groups, state["groups"], strict=True):
            group.update(saved)

    def _flat(self, tensors: Iterable[torch.Tensor]) -> torch.Tensor:
        """Join tensors into one row, padded so that every rank's slice is as long."""
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        missing = -len(flat) % self._shape[1]
        return torch.nn.functional.pad(flat, (0, missing)) if missing else flat

    def _mine(self, flat: torch.Tensor) -> torch.Tensor:
        rank, world = self._shape
        size = len(flat) // world
        return flat[rank * size : (rank + 1) * size]
