"""Switches of numbers: mixed precision, TF32, cuDNN, types that not every chip computes."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site


class _Names(Rule[ast.AST]):
    """A set of names with one verdict."""

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


class Cudnn(_Names):
    """A switch of cuDNN: harmless elsewhere, where nothing reads it."""

    kind = Kind.KEEP
    prefixes = ("torch.backends.cudnn",)


class Tf32(_Names):
    """TF32 is NVIDIA's; the switch does nothing elsewhere. HF32 of NPUs is not the same format."""

    kind = Kind.KEEP
    names = (
        "torch.backends.cuda.matmul.allow_tf32",
        "torch.backends.cuda.matmul",
        "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
        "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
        "torch.backends.cuda.matmul.fp32_precision",
    )


class SdpSwitch(_Names):
    """Chooses among NVIDIA's kernels for attention; NPUs have one of their own."""

    kind = Kind.ASSISTED
    question = (
        "Is one kernel required, or only preferred? Preferences can stay, as they do nothing."
    )
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


class CudaBackend(_Names):
    """Another setting of torch.backends.cuda."""

    kind = Kind.KEEP
    prefixes = ("torch.backends.cuda",)


class CudaVersion(_Names):
    """The version of CUDA that torch was built for; None elsewhere."""

    kind = Kind.ASSISTED
    question = "What does the version decide? Guard it with a check for CUDA."
    hours = 0.1
    names = ("torch.version.cuda", "torch.version.hip")


class PrivateCuda(_Names):
    """A private part of torch for CUDA."""

    kind = Kind.MANUAL
    question = "Which public call does the same?"
    hours = 2.0
    prefixes = ("torch._C._cuda", "torch._C._CUDA", "torch._C._nccl")


class Float8(_Names):
    """8-bit floats compute only on the newest chips (Ascend 950, Hopper)."""

    kind = Kind.ASSISTED
    question = "Is there a path in bfloat16 for chips without 8-bit floats?"
    hours = 1.0
    prefixes = ("torch.float8_",)


class ProfilerActivity(_Names):
    """The profiler is told to watch CUDA."""

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
    """The old profiler is told to watch CUDA by a flag."""

    nodes = (ast.keyword,)
    kind = Kind.ASSISTED
    question = "torch.profiler.profile(activities=...) is the portable form."
    hours = 0.1

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        return (
            self.finding(node, site)
            if node.arg in ("use_cuda", "use_device") and (_is_profiler(node, site))
            else None
        )


class PinDevice(Rule[ast.keyword]):
    """DataLoader pins memory for the accelerator by itself; the device need not be named."""

    nodes = (ast.keyword,)

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        if node.arg != "pin_memory_device" or not (string(node.value) or "").startswith("cuda"):
            return None
        site.claim(node.value)
        return self.finding(node, site, [site.swap(node.value, '""')])


class NpuLacks(_Names):
    """Ascend's documentation marks this as not supported on any chip, or kernels contradict it."""

    kind = Kind.ASSISTED
    question = "Run `karez migrate verify` on it; the support tables say which part is missing."
    hours = 0.5
    names = (
        "torch.nn.utils.rnn.pack_padded_sequence",
        "torch.nn.functional.gumbel_softmax",
        "torch.nn.functional.triplet_margin_loss",
        "torch.export.export",
    )


class ComplexNumbers(_Names):
    """Complex numbers: indexing and gathering them fails on many NPUs, complex128 is slow."""

    kind = Kind.ASSISTED
    question = "Is it a rotary embedding? The form with sine and cosine works everywhere."
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


class Float64(_Names):
    """float64 is not computed, or only slowly, by NPUs."""

    kind = Kind.ASSISTED
    question = "Is it on the device? Use float32 there, or keep this part on the CPU."
    hours = 0.25
    names = ("torch.float64", "torch.double")


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
)


def _is_profiler(word: ast.keyword, site: Site) -> bool:
    call = site.source.parent(word)
    if not isinstance(call, ast.Call):
        return False
    return (site.source.dotted(call.func) or "").startswith("torch.autograd.profiler")
