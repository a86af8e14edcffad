"""Rules for names of torch.cuda about mixed precision and old tensor types."""

import ast
from dataclasses import replace

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule
from karez.migration.rules.site import Site


class Made(Api):
    """Base of rules for classes of torch.cuda that the generated module replaces by a function."""

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
            question="The class is used as a type: compare x.device.type and x.dtype instead.",
        )


class CudaAmpAutocast(Api):
    """Computes in float16. On a CPU torch.autocast means bfloat16, so the type is written out."""

    names = (
        "torch.cuda.amp.autocast",
        "torch.cuda.amp.autocast_mode.autocast",
    )
    agnostic = "autocast"
    npu = "torch.npu.amp.autocast"


class CudaAmpGradScaler(Api):
    """Scales losses against underflow; disabled on a machine without a device."""

    names = (
        "torch.cuda.amp.GradScaler",
        "torch.cuda.amp.grad_scaler.GradScaler",
    )
    agnostic = "GradScaler"
    npu = "torch.npu.amp.GradScaler"


class CudaAmpCustomFwd(Api):
    """Decorates a forward function for autocast."""

    names = ("torch.cuda.amp.custom_fwd",)
    agnostic = "custom_fwd"
    npu = "torch.npu.amp.custom_fwd"


class CudaAmpCustomBwd(Api):
    """Decorates a backward function for autocast."""

    names = ("torch.cuda.amp.custom_bwd",)
    agnostic = "custom_bwd"
    npu = "torch.npu.amp.custom_bwd"


class CudaAmpCommon(Api):
    """Checks whether mixed precision is unavailable."""

    names = ("torch.cuda.amp.common.amp_definitely_not_available",)
    agnostic = "amp_definitely_not_available"


class CudaFloatTensor(Made):
    """Creates float32 tensors on the device."""

    names = ("torch.cuda.FloatTensor",)
    agnostic = "FloatTensor"
    npu = "torch.npu.FloatTensor"


class CudaHalfTensor(Made):
    """Creates float16 tensors on the device."""

    names = ("torch.cuda.HalfTensor",)
    agnostic = "HalfTensor"
    npu = "torch.npu.HalfTensor"


class CudaBFloat16Tensor(Made):
    """Creates bfloat16 tensors on the device."""

    names = ("torch.cuda.BFloat16Tensor",)
    agnostic = "BFloat16Tensor"
    npu = "torch.npu.BFloat16Tensor"


class CudaDoubleTensor(Made):
    """Creates float64 tensors on the device, which NPUs compute slowly or not at all."""

    names = ("torch.cuda.DoubleTensor",)
    agnostic = "DoubleTensor"
    kind = Kind.ASSISTED
    hours = 0.5
    question = "Is float64 needed, or is float32 or the CPU enough?"


class CudaLongTensor(Made):
    """Creates int64 tensors on the device."""

    names = ("torch.cuda.LongTensor",)
    agnostic = "LongTensor"
    npu = "torch.npu.LongTensor"


class CudaIntTensor(Made):
    """Creates int32 tensors on the device."""

    names = ("torch.cuda.IntTensor",)
    agnostic = "IntTensor"
    npu = "torch.npu.IntTensor"


class CudaShortTensor(Made):
    """Creates int16 tensors on the device."""

    names = ("torch.cuda.ShortTensor",)
    agnostic = "ShortTensor"
    npu = "torch.npu.ShortTensor"


class CudaCharTensor(Made):
    """Creates int8 tensors on the device."""

    names = ("torch.cuda.CharTensor",)
    agnostic = "CharTensor"
    npu = "torch.npu.CharTensor"


class CudaByteTensor(Made):
    """Creates uint8 tensors on the device."""

    names = ("torch.cuda.ByteTensor",)
    agnostic = "ByteTensor"
    npu = "torch.npu.ByteTensor"


class CudaBoolTensor(Made):
    """Creates bool tensors on the device."""

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
