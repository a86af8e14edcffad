"""Rules for numeric settings and types: cuDNN, TF32, attention kernels, float8, float64."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site


class NamesRule(Rule[ast.AST]):
    """Base of rules for full names, or prefixes of full names, of torch."""

    nodes = (ast.Attribute, ast.Name)
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node)
        if name is None:
            return None
        if name not in self.names and not any(name.startswith(start) for start in self.prefixes):
            return None
        site.claim_all(node)
        return self.finding(node, site, api=name)


class Cudnn(NamesRule):
    """A setting of cuDNN, which no other device reads."""

    kind = Kind.KEEP
    prefixes = ("torch.backends.cudnn",)


class Tf32(NamesRule):
    """A setting of TF32, which only NVIDIA has; HF32 of NPUs is another format."""

    kind = Kind.KEEP
    names = (
        "torch.backends.cuda.matmul.allow_tf32",
        "torch.backends.cuda.matmul",
        "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
        "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
        "torch.backends.cuda.matmul.fp32_precision",
    )


class SdpSwitch(NamesRule):
    """Selects one of NVIDIA's attention kernels; NPUs have their own."""

    kind = Kind.ASSISTED
    question = "Is one kernel required, or only preferred? A preference may stay: NPUs ignore it."
    hours = 0.1
    prefixes = (
        "torch.backends.cuda.sdp_kernel",
        "torch.backends.cuda.enable_",
        "torch.backends.cuda.flash_sdp",
        "torch.backends.cuda.mem_efficient_sdp",
        "torch.backends.cuda.math_sdp",
        "torch.backends.cuda.can_use_",
        "torch.backends.cuda.cudnn_sdp",
        "torch.nn.attention.sdpa_kernel",
    )


class CudaBackend(NamesRule):
    """A further setting of torch.backends.cuda."""

    kind = Kind.KEEP
    prefixes = ("torch.backends.cuda",)


class CudaVersion(NamesRule):
    """Reads the version of CUDA that torch was built for; None for other builds."""

    kind = Kind.ASSISTED
    question = "What depends on the version? Read the version only on CUDA."
    hours = 0.1
    names = ("torch.version.cuda", "torch.version.hip")


class PrivateCuda(NamesRule):
    """Uses a private part of torch for CUDA."""

    kind = Kind.MANUAL
    question = "Which public function does the same?"
    hours = 2.0
    prefixes = ("torch._C._cuda", "torch._C._CUDA", "torch._C._nccl")


class Float8(NamesRule):
    """Uses 8-bit floats, which only the newest chips compute (Ascend 950, Hopper)."""

    kind = Kind.ASSISTED
    question = "Is there a code path in bfloat16 for chips without 8-bit floats?"
    hours = 1.0
    prefixes = ("torch.float8_",)


class ProfilerActivity(NamesRule):
    """The profiler is configured to record CUDA."""

    names = ("torch.profiler.ProfilerActivity.CUDA", "torch.autograd.ProfilerActivity.CUDA")

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node)
        if name not in self.names:
            return None
        site.claim_all(node)
        new = "torch_npu.profiler.ProfilerActivity.NPU"
        if not site.is_npu:
            new = f"{site.shim}.profiler_activity()"
        return self.finding(
            node, site, [site.swap(node, new)], needs=site.needs("profiler_activity")
        )


class ProfilerFlag(Rule[ast.keyword]):
    """The old profiler is configured to record CUDA by a flag."""

    nodes = (ast.keyword,)
    kind = Kind.ASSISTED
    question = "torch.profiler.profile(activities=...) is the portable function."
    hours = 0.1

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        return (
            self.finding(node, site)
            if node.arg in ("use_cuda", "use_device") and (_is_profiler(node, site))
            else None
        )


class PinDevice(Rule[ast.keyword]):
    """DataLoader pins memory for the accelerator by itself and needs no device."""

    nodes = (ast.keyword,)

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        if node.arg != "pin_memory_device" or not (string(node.value) or "").startswith("cuda"):
            return None
        site.claim(node.value)
        return self.finding(node, site, [site.swap(node.value, '""')])


class NpuLacks(NamesRule):
    """Ascend's documentation lists this as unsupported on every chip, or kernels contradict it."""

    kind = Kind.ASSISTED
    question = "Run `karez migrate verify`; the support tables list the missing parts."
    hours = 0.5
    names = (
        "torch.nn.utils.rnn.pack_padded_sequence",
        "torch.nn.functional.gumbel_softmax",
        "torch.nn.functional.triplet_margin_loss",
        "torch.export.export",
    )


class ComplexNumbers(NamesRule):
    """Uses complex numbers: on many NPUs indexing and gathering fail, and complex128 is slow."""

    kind = Kind.ASSISTED
    question = "Is it a rotary embedding? The version with sine and cosine works on every device."
    hours = 0.5
    names = (
        "torch.view_as_complex",
        "torch.polar",
        "torch.complex64",
        "torch.complex128",
        "torch.cfloat",
        "torch.cdouble",
        "torch.complex32",
    )


class Float64(NamesRule):
    """Uses float64, which NPUs compute slowly or not at all."""

    kind = Kind.ASSISTED
    question = "Does the device compute it? Use float32 there, or keep this part on the CPU."
    hours = 0.25
    names = ("torch.float64", "torch.double")


class DoubleMethod(Rule[ast.Call]):
    """Converts to float64, which NPUs compute slowly or not at all."""

    nodes = (ast.Call,)
    kind = Kind.ASSISTED
    question = Float64.question
    hours = 0.25

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        func = node.func
        is_method = isinstance(func, ast.Attribute) and func.attr == "double"
        if not is_method or node.args or node.keywords or site.source.dotted(func) is not None:
            return None
        return self.finding(node, site)


RULES: tuple[AnyRule, ...] = (
    Cudnn,
    Tf32,
    SdpSwitch,
    CudaBackend,
    CudaVersion,
    PrivateCuda,
    Float8,
    ProfilerActivity,
    ProfilerFlag,
    PinDevice,
    NpuLacks,
    ComplexNumbers,
    Float64,
    DoubleMethod,
)


def _is_profiler(word: ast.keyword, site: Site) -> bool:
    call = site.source.parent(word)
    if not isinstance(call, ast.Call):
        return False
    return (site.source.dotted(call.func) or "").startswith("torch.autograd.profiler")
