"""Policy gradients on a walk of its own: actions are drawn, rewards come later."""

import argparse
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.distributions import Categorical


@dataclass
class Args:
    seed: int = 1
    torch_deterministic: bool = True
    cuda: bool = True
    """if toggled, cuda will be enabled by default"""


args = Args()
argparse.ArgumentParser().parse_args()
torch.manual_seed(args.seed)
torch.backends.cudnn.deterministic = args.torch_deterministic
device = torch.device("cuda" if torch.cuda.is_available() and args.cuda else "cpu")


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.actor, self.critic = nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, x):
        h = self.body(x)
        return self.actor(h), self.critic(h).squeeze(-1)


agent = Agent().to(device)
optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2, eps=1e-5)
for update in range(5):
    state, logs, values, rewards = torch.zeros(8, 2, device=device), [], [], []
    for step in range(6):
        logits, value = agent(state)
        dist = Categorical(logits=logits.cpu())
        action = dist.sample()
        logs.append(dist.log_prob(action))
        values.append(value)
        move = (action.float() - 1).to(device)
        state = torch.stack([state[:, 0] + move, torch.full_like(move, step / 6)], dim=1)
        rewards.append(-(state[:, 0] - 2).abs())
    returns = torch.stack(rewards).flip(0).cumsum(0).flip(0)
    advantage = returns - torch.stack(values)
    policy = -(torch.stack(logs).to(device) * advantage.detach()).mean()
    loss = policy + 0.5 * advantage.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
    optimizer.step()
print(loss.item())
