"""Segmentation with skip connections, a profiler and memory figures."""

import logging

import torch
import torch.nn as nn
import torch.nn.functional as F


def double(i, o):
    return nn.Sequential(
        nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inc, self.down, self.up = double(3, 8), double(8, 16), nn.ConvTranspose2d(16, 8, 2, 2)
        self.out, self.head = double(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.inc(x)
        b = self.down(F.max_pool2d(a, 2))
        return self.head(self.out(torch.cat([a, self.up(b)], dim=1)))


torch.manual_seed(5)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
logging.info("Using device %s", device)
model = UNet().to(memory_format=torch.channels_last).to(device=device)
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, weight_decay=1e-8, momentum=0.9)
grad_scaler = torch.cuda.amp.GradScaler(enabled=False)
for step in range(4):
    images = torch.randn(2, 3, 16, 16).to(device=device, memory_format=torch.channels_last)
    masks = torch.randint(0, 2, (2, 16, 16)).to(device=device, dtype=torch.long)
    with torch.autocast(device.type if device.type != "mps" else "cpu", enabled=False):
        loss = F.cross_entropy(model(images), masks)
    optimizer.zero_grad(set_to_none=True)
    grad_scaler.scale(loss).backward()
    grad_scaler.step(optimizer)
    grad_scaler.update()
try:
    print(loss.item())
except torch.cuda.OutOfMemoryError:
    torch.cuda.empty_cache()
    raise
