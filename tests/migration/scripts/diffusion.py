"""A toy of denoising diffusion: noise is predicted from noisy points and a step."""

import torch
import torch.nn as nn
from torch.cuda.amp import GradScaler, autocast


class Denoiser(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.time = nn.Embedding(50, width)
        self.inner, self.outer = nn.Linear(2, width), nn.Linear(width, 2)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())
                for _ in range(3)
            ]
        )

    def forward(self, x, t):
        h = self.inner(x) + self.time(t)
        for block in self.blocks:
            h = h + block(h)
        return self.outer(h)


torch.manual_seed(3)
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
betas = torch.linspace(1e-4, 0.02, 50, device=device)
alphas = torch.cumprod(1.0 - betas, dim=0)
model = Denoiser().to(device)
ema = {name: p.detach().clone() for name, p in model.named_parameters()}
optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=2e-3), GradScaler(enabled=False)
for step in range(8):
    x = torch.randn(64, 2).cumsum(1).to(device)
    t = torch.randint(0, 50, (64,)).to(device)
    noise = torch.randn(64, 2).to(device)
    with autocast(enabled=False):
        noisy = alphas[t, None].sqrt() * x + (1 - alphas[t, None]).sqrt() * noise
        loss = nn.functional.mse_loss(model(noisy, t), noise)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    with torch.no_grad():
        for name, p in model.named_parameters():
            ema[name].lerp_(p, 0.1)
print(loss.item(), torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)
