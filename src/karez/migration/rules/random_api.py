"""Rules for names of torch.cuda about random number generators."""

from karez.migration.findings import Kind
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule


class CudaManualSeed(Api):
    """Seeds the current device only; torch.manual_seed would also seed the CPU."""

    names = ("torch.cuda.manual_seed",)
    agnostic = "manual_seed"
    npu = "torch.npu.manual_seed"


class CudaManualSeedAll(Api):
    """Seeds all devices. The CPU's generator is not changed, even where there is no device."""

    names = ("torch.cuda.manual_seed_all",)
    agnostic = "manual_seed_all"
    npu = "torch.npu.manual_seed_all"


class CudaSeed(Api):
    """Seeds the device with a random number."""

    names = (
        "torch.cuda.seed",
        "torch.cuda.seed_all",
    )
    agnostic = "seed"
    npu = "torch.npu.seed"


class CudaInitialSeed(Api):
    """Returns the seed of the device's generator."""

    names = ("torch.cuda.initial_seed",)
    agnostic = "initial_seed"
    npu = "torch.npu.initial_seed"


class CudaGetRngState(Api):
    """Returns the state of the device's generator, which no other vendor's device can load."""

    names = ("torch.cuda.get_rng_state",)
    agnostic = "get_rng_state"
    npu = "torch.npu.get_rng_state"


class CudaSetRngState(Api):
    """Restores the state of a generator; the state must be from the same vendor's device."""

    names = ("torch.cuda.set_rng_state",)
    agnostic = "set_rng_state"
    npu = "torch.npu.set_rng_state"


class CudaGetRngStateAll(Api):
    """Returns the states of all devices' generators; an empty list on a CPU."""

    names = ("torch.cuda.get_rng_state_all",)
    agnostic = "get_rng_state_all"
    npu = "torch.npu.get_rng_state_all"


class CudaSetRngStateAll(Api):
    """Restores the states of all devices' generators; an empty list changes nothing."""

    names = ("torch.cuda.set_rng_state_all",)
    agnostic = "set_rng_state_all"
    npu = "torch.npu.set_rng_state_all"


class CudaDefaultGenerators(Api):
    """Holds the generators of all devices, by index."""

    names = ("torch.cuda.default_generators",)
    npu = "torch.npu.default_generators"
    kind = Kind.ASSISTED
    hours = 0.5
    question = (
        "Which generator is needed? torch.get_device_module().default_generators is the "
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
