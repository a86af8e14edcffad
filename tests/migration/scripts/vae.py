"""A variational autoencoder with a class for its options and a device in a dictionary."""

import torch
import torch.nn as nn
import torch.nn.functional as F

config = {"device": "cuda" if torch.cuda.is_available() else "cpu", "seed": 11, "steps": 6}
torch.manual_seed(config["seed"])


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.mean, self.log = nn.Linear(64, 32), nn.Linear(32, 8), nn.Linear(32, 8)
        self.fc3, self.fc4 = nn.Linear(8, 32), nn.Linear(32, 64)

    def forward(self, x):
        h = F.relu(self.fc1(x))
        mean, log = self.mean(h), self.log(h)
        z = mean + torch.exp(0.5 * log) * torch.randn(mean.shape).to(mean.device)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mean, log


model = VAE().to(config["device"])
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(config["steps"]):
    data = torch.rand(16, 64).to(config["device"])
    made, mean, log = model(data)
    loss = F.binary_cross_entropy(made, data, reduction="sum")
    loss = loss - 0.5 * torch.sum(1 + log - mean.pow(2) - log.exp())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
if model.fc1.weight.is_cuda:
    torch.cuda.empty_cache()
print(loss.item())
