"""Rules for libraries that speed up the training of models on CUDA."""

from karez.migration.findings import Kind
from karez.migration.rules.library_rule import Library
from karez.migration.rules.rule import AnyRule


class Triton(Library):
    """Triton compiles kernels for one vendor's chips."""

    modules = ("triton",)
    question = (
        "triton-ascend compiles many kernels after the device is renamed; check the size of the "
        "grid, the on-chip buffer, int64 and num_warps. Or use torch's operators."
    )


class FlashAttention(Library):
    """flash-attn cannot be installed without CUDA."""

    kind = Kind.ASSISTED
    hours = 2.0
    modules = ("flash_attn", "flash_attn_interface", "flash_attn_cuda", "flash_attn_2_cuda")
    question = (
        "F.scaled_dot_product_attention does the same for fixed lengths; for packed lengths, "
        "torch_npu.npu_fusion_attention with input_layout TND."
    )


class Xformers(Library):
    """xformers has kernels for CUDA only; NPUs do not support its training part."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("xformers",)
    question = (
        "Replace memory_efficient_attention by F.scaled_dot_product_attention, heads transposed."
    )


class Apex(Library):
    """apex is made for CUDA; torch has the same functions today."""

    kind = Kind.ASSISTED
    hours = 1.0
    modules = ("apex",)
    question = (
        "FusedAdam is torch.optim.AdamW(fused=True), FusedLayerNorm is nn.LayerNorm, amp is "
        "torch.amp; on NPUs there are NpuFusedAdamW and apex for Ascend."
    )


class BitsAndBytes(Library):
    """bitsandbytes quantises weights with CUDA kernels."""

    modules = ("bitsandbytes",)
    question = "Remove the quantisation, or quantise with torchao or msModelSlim."


class MambaKernels(Library):
    """mamba_ssm and causal_conv1d are CUDA kernels."""

    modules = ("mamba_ssm", "causal_conv1d", "selective_scan_cuda", "causal_conv1d_cuda")
    question = "The reference functions in torch (`*_ref`) run on every device, slowly."


class TransformerEngine(Library):
    """Transformer Engine has kernels for NVIDIA's devices only."""

    modules = ("transformer_engine", "transformer_engine_torch")
    question = "Use torch's layers; MindSpeed has fused layers for NPUs."


class Deepspeed(Library):
    """DeepSpeed runs on NPUs through its accelerator for NPUs."""

    kind = Kind.ASSISTED
    hours = 0.5
    modules = ("deepspeed",)
    question = "Set DS_ACCELERATOR=npu; do not use fused CUDA optimizers (FusedAdam, CPUAdam)."


class Megatron(Library):
    """Megatron uses CUDA kernels and apex."""

    modules = ("megatron",)
    question = "MindSpeed adapts Megatron for NPUs: `import mindspeed.megatron_adaptor` first."


RULES: tuple[AnyRule, ...] = (
    Triton,
    FlashAttention,
    Xformers,
    Apex,
    BitsAndBytes,
    MambaKernels,
    TransformerEngine,
    Deepspeed,
    Megatron,
)
