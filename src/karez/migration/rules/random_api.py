"""Rules for names of torch.cuda about random number generators."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule


class CudaManualSeed(Api):
    """Seeds the device alone; torch.manual_seed would reseed the CPU too."""

    names = ("torch.cuda.manual_seed",)
    agnostic = "manual_seed"
    npu = "torch.npu.manual_seed"


class CudaManualSeedAll(Api):
    """Seeds all devices; nothing happens on a CPU, whose generator is left alone."""

    names = ("torch.cuda.manual_seed_all",)
    agnostic = "manual_seed_all"
    npu = "torch.npu.manual_seed_all"


class CudaSeed(Api):
    """Seeds the device from the clock."""

    names = (
        "torch.cuda.seed",
        "torch.cuda.seed_all",
    )
    agnostic = "seed"
    npu = "torch.npu.seed"


class CudaInitialSeed(Api):
    """The seed of the device's generator."""

    names = ("torch.cuda.initial_seed",)
    agnostic = "initial_seed"
    npu = "torch.npu.initial_seed"


class CudaGetRngState(Api):
    """The device's generator state, which no other vendor's device can take."""

    names = ("torch.cuda.get_rng_state",)
    agnostic = "get_rng_state"
    npu = "torch.npu.get_rng_state"


class CudaSetRngState(Api):
    """Puts a generator state back, of the same vendor's device."""

    names = ("torch.cuda.set_rng_state",)
    agnostic = "set_rng_state"
    npu = "torch.npu.set_rng_state"


class CudaGetRngStateAll(Api):
    """The states of all generators; empty on a CPU."""

    names = ("torch.cuda.get_rng_state_all",)
    agnostic = "get_rng_state_all"
    npu = "torch.npu.get_rng_state_all"


class CudaSetRngStateAll(Api):
    """Puts all generator states back; nothing happens for an empty list."""

    names = ("torch.cuda.set_rng_state_all",)
    agnostic = "set_rng_state_all"
    npu = "torch.npu.set_rng_state_all"


class CudaDefaultGenerators(Api):
    """The generators of all devices by index."""

    names = ("torch.cuda.default_generators",)
    npu = "torch.npu.default_generators"
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "Which generator is wanted? torch.get_device_module().default_generators is the "
        "portable name."
    )


RULES: tuple[AnyRule, ...] = (
    CudaManualSeed,
    CudaManualSeedAll,
    CudaSeed,
    CudaInitialSeed,
    CudaGetRngState,
    CudaSetRngState,
    CudaGetRngStateAll,
    CudaSetRngStateAll,
    CudaDefaultGenerators,
)
