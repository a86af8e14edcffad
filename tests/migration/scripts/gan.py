"""A GAN with tensor types chosen at the start, as older scripts do."""

import numpy as np
import torch
import torch.nn as nn

cuda = True if torch.cuda.is_available() else False
Tensor = torch.cuda.FloatTensor if cuda else torch.FloatTensor


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(16, 32),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(32, 64),
            nn.BatchNorm1d(64, 0.8),
            nn.LeakyReLU(0.2),
            nn.Linear(64, 36),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.model(z).view(z.size(0), 1, 6, 6)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(36, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1), nn.Sigmoid()
        )

    def forward(self, img):
        return self.model(img)


np.random.seed(0)
torch.manual_seed(0)
generator, discriminator = Generator(), Discriminator()
adversarial_loss = nn.BCELoss()
if cuda:
    generator.cuda()
    discriminator.cuda()
    adversarial_loss.cuda()
opt_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
opt_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
for step in range(6):
    imgs = torch.tensor(np.random.rand(12, 1, 6, 6), dtype=torch.float32)
    valid, fake = Tensor(12, 1).fill_(1.0), Tensor(12, 1).fill_(0.0)
    real = imgs.type(torch.cuda.FloatTensor) if cuda else imgs
    z = Tensor(np.random.normal(0, 1, (12, 16)))
    opt_g.zero_grad()
    made = generator(z)
    g_loss = adversarial_loss(discriminator(made), valid)
    g_loss.backward()
    opt_g.step()
    opt_d.zero_grad()
    d_loss = adversarial_loss(discriminator(real), valid)
    d_loss = (d_loss + adversarial_loss(discriminator(made.detach()), fake)) / 2
    d_loss.backward()
    opt_d.step()
print(g_loss.item(), d_loss.item())
