"""FSDP2 on a small transformer, started by torchrun; alone it is a group of one."""

import os

import torch
import torch.distributed as dist
import torch.nn as nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

for name, value in (
    ("RANK", "0"),
    ("WORLD_SIZE", "1"),
    ("LOCAL_RANK", "0"),
    ("MASTER_ADDR", "127.0.0.1"),
    ("MASTER_PORT", "29871"),
):
    os.environ.setdefault(name, value)
local_rank = int(os.environ["LOCAL_RANK"])
device_type = "cuda" if torch.cuda.is_available() else "cpu"
if device_type == "cuda":
    torch.cuda.set_device(local_rank)
dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
mesh = init_device_mesh(device_type, (dist.get_world_size(),))
torch.manual_seed(4)
layers = [nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True) for _ in range(2)]
model = nn.Sequential(*layers, nn.Linear(16, 4)).to(device_type)
for layer in model:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(4):
    x = torch.randn(4, 6, 16).to(device_type)
    loss = model(x).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(loss.item())
dist.destroy_process_group()
