"""The device that a process was granted: found, opened, described; and why it cannot be."""

import pytest

from tests.on_npu import answer_of, run_granted

pytestmark = pytest.mark.story

ASK = """
import json, torch
from karez.core.errors import KarezError
from karez.runtime import device
try:
    found = device.granted_devices()
    print(json.dumps([[str(d) for d in found], device.show_device(found[0]),
                      device.collectives_for(found[0]), str(device.computing_dtype(found[0]))]))
except KarezError as error:
    print(json.dumps([error.code, error.what(), error.hint()]))
"""


def test_a_granted_npu_is_npu_0_with_its_own_collectives_and_type() -> None:
    assert answer_of(ASK) == [["npu:0"], "npu:0, emulated", "hccl", "torch.bfloat16"]


def test_a_share_of_a_device_goes_by_gloo_and_its_memory_is_limited() -> None:
    code = ASK + "print(json.dumps([device.collectives_for(found[0]), torch.npu.mem_get_info()]))"
    collectives, (free, total) = answer_of(code, KAREZ_DEVICE_MILLI="250")
    assert collectives == "gloo"
    assert free <= total // 4


def test_a_device_without_bfloat16_computes_in_float16() -> None:
    assert answer_of(ASK, KAREZ_EMUNPU_NO_DTYPES="bfloat16")[3] == "torch.float16"


@pytest.mark.parametrize(
    ("variables", "what", "hint"),
    [
        ({"KAREZ_EMUNPU": ""}, "torch_npu is not installed", "karez migrate versions"),
        ({"KAREZ_DEVICE": "gpu"}, "was built without CUDA", "CUDA index"),
        ({"ASCEND_RT_VISIBLE_DEVICES": "0,1"}, "one emulated device", "--each npu=1"),
    ],
    ids=["no torch_npu", "a CPU build of torch", "two emulated"],
)
def test_a_device_that_cannot_be_opened_is_a_typed_error_with_the_next_step(
    variables: dict[str, str], what: str, hint: str
) -> None:
    code, problem, advice = answer_of(ASK, **variables)
    assert code == "device-unavailable"
    assert what in problem
    assert hint in advice


def test_a_cpu_grant_computes_on_the_cpu_whatever_the_host_has() -> None:
    assert answer_of(ASK, KAREZ_DEVICE="cpu")[0] == ["cpu"]


def test_without_a_grant_it_is_the_accelerator_that_torch_finds() -> None:
    assert answer_of(ASK, KAREZ_DEVICE="")[0] == ["npu:0"]


def test_random_states_of_the_device_are_kept_and_restored() -> None:
    code = """
import json, torch
from karez.runtime.random_state import generator_states, restore_generators
from karez.runtime.device import granted_devices
devices = granted_devices()
kept = generator_states(devices)
first = torch.rand(3, device=devices[0]).tolist()
restore_generators(kept)
print(json.dumps(first == torch.rand(3, device=devices[0]).tolist()))
"""
    assert answer_of(code)


def test_a_session_that_runs_out_of_device_memory_says_how_much_it_asked_for() -> None:
    code = """
import torch
from karez import training
with training.session() as run:
    torch.ones(1 << 28, device=run.device)
"""
    done = run_granted(code)
    assert done.returncode == 1
    assert "DeviceMemoryFull: npu:0 has no memory for 1.00 GiB" in done.stderr
    assert "64.0 MiB are free" in done.stderr
