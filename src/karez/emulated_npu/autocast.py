"""Autocast of the emulated device: which operators run in 16 bits, and which in 32."""

from typing import Any

import torch
from torch.utils import _pytree as pytree

from karez.emulated_npu.memory import NAME, is_npu

_aten: Any = torch.ops.aten
_C: Any = torch._C
LOW = (
    "matmul",
    "mm",
    "mv",
    "bmm",
    "addmm",
    "addmv",
    "addbmm",
    "baddbmm",
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "prelu",
    "scaled_dot_product_attention",
)
HIGH = (
    "exp",
    "log",
    "pow.Tensor_Scalar",
    "softmax.int",
    "log_softmax.int",
    "layer_norm",
    "group_norm",
    "nll_loss",
    "cross_entropy_loss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "binary_cross_entropy_with_logits",
    "cosine_similarity",
    "cumsum",
    "prod",
    "rsqrt",
    "reciprocal",
    "norm.Scalar",
)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def register(library: Any) -> None:
    """Put all of them into a library for the device's autocast."""
    for names, is_low in ((LOW, True), (HIGH, False)):
        for name in names:
            library.impl(name, _cast(name, is_low=is_low), "AutocastPrivateUse1")


def _cast(name: str, *, is_low: bool) -> Any:
    base, _, overload = name.partition(".")
    op = getattr(getattr(_aten, base), overload or "default")

    def cast(*args: Any, **kwargs: Any) -> Any:
        with _C._ExcludeDispatchKeyGuard(_C.DispatchKeySet(_C.DispatchKey.AutocastPrivateUse1)):
            kind = torch.get_autocast_dtype(NAME) if is_low else torch.float32

            def change(value: Any) -> Any:
                return value.to(kind) if is_npu(value) and value.dtype in _FLOATS else value

            plain, named = pytree.tree_map(change, (args, kwargs))
            return op(*plain, **named)

    return cast
