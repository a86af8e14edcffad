"""Data parallel training as torchrun starts it: one process for each device, rank 0 saves."""

import os
import tempfile

import torch
import torch.distributed as dist
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler


class Points(Dataset):
    def __init__(self, size):
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(size, 12, generator=generator)
        self.y = (self.x[:, :3].sum(1) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def ddp_setup():
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"),
                        ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29873")):
        os.environ.setdefault(name, value)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend="nccl" if torch.cuda.is_available() else "gloo")


class Trainer:
    def __init__(self, model, data, optimizer, save_path):
        self.gpu_id = int(os.environ["LOCAL_RANK"])
        self.device = torch.device("cuda", self.gpu_id) if torch.cuda.is_available() else "cpu"
        self.model = model.to(self.device)
        ids = [self.gpu_id] if torch.cuda.is_available() else None
        self.model = DDP(self.model, device_ids=ids)
        self.data, self.optimizer, self.save_path = data, optimizer, save_path
        self.scaler = torch.cuda.amp.GradScaler(enabled=False)

    def run_epoch(self, epoch):
        self.data.sampler.set_epoch(epoch)
        for x, y in self.data:
            x = x.to(self.device, non_blocking=True)
            y = y.to(self.device, non_blocking=True)
            with torch.cuda.amp.autocast(enabled=False):
                loss = nn.functional.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if dist.get_rank() == 0:
            print(f"epoch {epoch}: {total.item() / dist.get_world_size():.4f}")
            torch.save(self.model.module.state_dict(), self.save_path)
        dist.barrier()
        where = {"cuda:0": f"cuda:{self.gpu_id}"} if torch.cuda.is_available() else "cpu"
        torch.load(self.save_path, map_location=where)


ddp_setup()
torch.manual_seed(5)
net = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 2))
points = Points(96)
loader = DataLoader(points, batch_size=8, shuffle=False, pin_memory=torch.cuda.is_available(),
                    sampler=DistributedSampler(points))
folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
dist.broadcast_object_list(folder)
path = os.path.join(folder[0], "snapshot.pt")
trainer = Trainer(net, loader, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), path)
for epoch in range(2):
    trainer.run_epoch(epoch)
dist.destroy_process_group()
