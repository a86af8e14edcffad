"""The names of torch.cuda about types of numbers, one class each."""

import ast
from dataclasses import replace

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule
from karez.migration.rules.site import Site


class Made(Api):
    """A class of torch.cuda; the generated module has a function in its place."""

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        found = super().find(node, site)
        parent = site.source.parent(node)
        makes = isinstance(parent, (ast.Assign, ast.IfExp, ast.BoolOp)) or (
            isinstance(parent, ast.Call) and parent.func is node
        )
        if found is None or makes:
            return found
        return replace(
            found,
            kind=Kind.ASSISTED,
            edits=(),
            needs=frozenset(),
            hours=0.1,
            question="It stands for a type here: compare x.device.type and x.dtype instead.",
        )


class CudaAmpAutocast(Api):
    """Means float16. torch.autocast of a CPU means bfloat16, so the type is said."""

    names = (
        "torch.cuda.amp.autocast",
        "torch.cuda.amp.autocast_mode.autocast",
    )
    agnostic = "autocast"
    npu = "torch.npu.amp.autocast"


class CudaAmpGradScaler(Api):
    """Scales losses against underflow; switched off where there is no device."""

    names = (
        "torch.cuda.amp.GradScaler",
        "torch.cuda.amp.grad_scaler.GradScaler",
    )
    agnostic = "GradScaler"
    npu = "torch.npu.amp.GradScaler"


class CudaAmpCustomFwd(Api):
    """Decorates a forward for autocast."""

    names = ("torch.cuda.amp.custom_fwd",)
    agnostic = "custom_fwd"
    npu = "torch.npu.amp.custom_fwd"


class CudaAmpCustomBwd(Api):
    """Decorates a backward for autocast."""

    names = ("torch.cuda.amp.custom_bwd",)
    agnostic = "custom_bwd"
    npu = "torch.npu.amp.custom_bwd"


class CudaAmpCommon(Api):
    """Whether mixed precision cannot work at all."""

    names = ("torch.cuda.amp.common.amp_definitely_not_available",)
    agnostic = "amp_definitely_not_available"


class CudaFloatTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.FloatTensor",)
    agnostic = "FloatTensor"
    npu = "torch.npu.FloatTensor"


class CudaHalfTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.HalfTensor",)
    agnostic = "HalfTensor"
    npu = "torch.npu.HalfTensor"


class CudaBFloat16Tensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.BFloat16Tensor",)
    agnostic = "BFloat16Tensor"
    npu = "torch.npu.BFloat16Tensor"


class CudaDoubleTensor(Made):
    """Makes float64 tensors on the device, which NPUs compute slowly or not at all."""

    names = ("torch.cuda.DoubleTensor",)
    agnostic = "DoubleTensor"
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Is float64 needed here, or does float32, or the CPU, do?"


class CudaLongTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.LongTensor",)
    agnostic = "LongTensor"
    npu = "torch.npu.LongTensor"


class CudaIntTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.IntTensor",)
    agnostic = "IntTensor"
    npu = "torch.npu.IntTensor"


class CudaShortTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.ShortTensor",)
    agnostic = "ShortTensor"
    npu = "torch.npu.ShortTensor"


class CudaCharTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.CharTensor",)
    agnostic = "CharTensor"
    npu = "torch.npu.CharTensor"


class CudaByteTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.ByteTensor",)
    agnostic = "ByteTensor"
    npu = "torch.npu.ByteTensor"


class CudaBoolTensor(Made):
    """Makes tensors of one type on the device."""

    names = ("torch.cuda.BoolTensor",)
    agnostic = "BoolTensor"
    npu = "torch.npu.BoolTensor"


RULES: tuple[AnyRule, ...] = (
    CudaAmpAutocast,
    CudaAmpGradScaler,
    CudaAmpCustomFwd,
    CudaAmpCustomBwd,
    CudaAmpCommon,
    CudaFloatTensor,
    CudaHalfTensor,
    CudaBFloat16Tensor,
    CudaDoubleTensor,
    CudaLongTensor,
    CudaIntTensor,
    CudaShortTensor,
    CudaCharTensor,
    CudaByteTensor,
    CudaBoolTensor,
)
