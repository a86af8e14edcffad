"""The emulated device as programs see it: memory, random numbers, visibility, stopping."""

import pytest

from tests.on_npu import answer_of, run_granted

pytestmark = pytest.mark.story

DRAWS = """
import json, torch
torch.manual_seed(5)
x = torch.ones(64, device="npu")
cpu = torch.get_rng_state()
drawn = [torch.rand(4, device="npu"), torch.randperm(9, device="npu"),
         torch.nn.functional.dropout(x, 0.5), torch.empty_like(x).normal_()]
untouched = torch.equal(torch.get_rng_state(), cpu)
torch.manual_seed(5)
again = [torch.rand(4, device="npu"), torch.randperm(9, device="npu"),
         torch.nn.functional.dropout(x, 0.5), torch.empty_like(x).normal_()]
print(json.dumps({
    "untouched": untouched,
    "again": [torch.equal(a.cpu(), b.cpu()) for a, b in zip(drawn, again)],
    "kept": float(drawn[2].mean()),
    "levels": sorted(set(drawn[2].tolist())),
}))
"""


def test_a_device_with_a_generator_of_its_own_leaves_the_cpus_alone() -> None:
    said = answer_of(DRAWS)
    assert said["untouched"]
    assert said["again"] == [True] * 4
    assert said["levels"] == [0.0, 2.0]
    assert 0.5 < said["kept"] < 1.5


def test_a_device_without_one_draws_what_the_cpu_would() -> None:
    code = """
import json, torch
torch.manual_seed(5)
ours = torch.rand(4, device="npu").tolist()
torch.manual_seed(5)
print(json.dumps(ours == torch.rand(4).tolist()))
"""
    assert answer_of(code, KAREZ_EMUNPU_RANDOM="")


def test_memory_is_limited_and_what_was_freed_can_be_had_again() -> None:
    code = """
import json, torch
MiB = 1 << 20
free, total = torch.npu.mem_get_info()
x = torch.ones(40 * MiB // 4, device="npu")
try:
    torch.ones(40 * MiB // 4, device="npu")
    refused = ""
except torch.OutOfMemoryError as error:
    refused = str(error)
held = torch.npu.memory_allocated()
del x
y = torch.ones(40 * MiB // 4, device="npu")
torch.npu.set_per_process_memory_fraction(0.5)
try:
    torch.ones(1, device="npu")
    limited = ""
except torch.OutOfMemoryError as error:
    limited = str(error)
print(json.dumps([total, held, refused, limited]))
"""
    total, held, refused, limited = answer_of(code)
    assert total == 64 << 20
    assert held == 40 << 20
    assert "Tried to allocate 40.00 MiB" in refused
    assert "64.00 MiB total capacity" in refused
    assert limited


def test_a_process_sees_the_devices_that_it_was_granted_and_no_other() -> None:
    code = """
import json, torch
torch.ones(1, device="npu:1")
try:
    torch.ones(1, device="npu:2")
    said = ""
except RuntimeError as error:
    said = str(error)
print(json.dumps([torch.npu.device_count(), said]))
"""
    count, said = answer_of(code, ASCEND_RT_VISIBLE_DEVICES="4,5")
    assert count == 2
    assert "npu:2 is not visible" in said


def test_a_stopped_device_ends_collectives_and_forms_no_group() -> None:
    code = """
import json, torch, torch.distributed as dist
store = dist.HashStore()
def form(n):
    dist.init_process_group("hccl", store=dist.PrefixStore(str(n), store), rank=0, world_size=1)
form(1)
row = torch.ones(3, device="npu")
dist.all_reduce(row)
dist.destroy_process_group()
stopped = torch.npu.stop_device(0)
try:
    form(2)
    refused = ""
except RuntimeError as error:
    refused = str(error)
torch.npu.restart_device(0)
dist.distributed_c10d._world.group_count = 0
form(3)
print(json.dumps([row.tolist(), stopped, refused]))
"""
    row, stopped, refused = answer_of(code)
    assert row == [1.0, 1.0, 1.0]
    assert stopped == 0
    assert "the device is stopped" in refused


def test_complex_tensors_are_conjugated_as_on_the_cpu() -> None:
    code = """
import json, torch
torch.manual_seed(0)
near = torch.randn(4, dtype=torch.complex64)
far = near.to("npu")
cases = {
    "conj": lambda x: x.conj(),
    "resolved": lambda x: x.conj().resolve_conj(),
    "imag": lambda x: x.conj().imag,
    "sum": lambda x: x + x.conj(),
    "clone": lambda x: x.conj().clone(),
    "matmul": lambda x: x.view(2, 2).conj() @ x.view(2, 2),
    "adjoint": lambda x: x.view(2, 2).mH,
}
wrong = [name for name, f in cases.items() if not torch.allclose(f(near), f(far).cpu())]
target = torch.zeros(4, dtype=torch.complex64, device="npu")
target.conj().copy_(far)
if not torch.allclose(target.cpu(), near.conj()):
    wrong.append("copy into a conjugate")
rows = torch.ones(4, 6, device="npu", requires_grad=True)
turns = torch.polar(torch.ones(4, 3), torch.ones(4, 3)).to("npu")
turned = torch.view_as_real(torch.view_as_complex(rows.reshape(4, 3, 2)) * turns)
turned.sum().backward()
print(json.dumps({"wrong": wrong, "grad": float(rows.grad.abs().sum()) > 0}))
"""
    assert answer_of(code) == {"wrong": [], "grad": True}


def test_llama4_trains_a_step() -> None:
    code = """
import json, torch, warnings
warnings.simplefilter("ignore")
from tests.studio.test_lora_targets import tiny
model = tiny("llama4_text").to("npu")
tokens = torch.randint(3, 100, (2, 8), device="npu")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
losses = []
for _ in range(3):
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(json.dumps(losses))
"""
    losses = answer_of(code)
    assert losses[-1] < losses[0]


def test_a_device_that_comes_after_a_backward_says_so() -> None:
    code = """
import torch
torch.ones(3, requires_grad=True).sum().backward()
from karez.emulated_npu.autoload import install
install()
try:
    torch.ones(3, device="npu", requires_grad=True).sum().backward()
except Exception as error:
    print(error)
"""
    done = run_granted(code, KAREZ_EMUNPU="")
    assert "Autograd ran in this process before the emulated NPU was installed" in done.stdout
    assert "KAREZ_EMUNPU=1" in done.stdout
