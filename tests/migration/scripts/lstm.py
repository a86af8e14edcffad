"""A word model with an LSTM whose hidden state is carried along and cut."""

import torch
import torch.nn as nn

USE_CUDA = torch.cuda.is_available()
torch.manual_seed(7)
if USE_CUDA:
    torch.cuda.manual_seed_all(7)


class RNNModel(nn.Module):
    def __init__(self, tokens=40, size=24, layers=2):
        super().__init__()
        self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(tokens, size)
        self.rnn = nn.LSTM(size, size, layers, dropout=0.2)
        self.decoder = nn.Linear(size, tokens)

    def forward(self, x, hidden):
        output, hidden = self.rnn(self.drop(self.encoder(x)), hidden)
        return self.decoder(self.drop(output)), hidden


model = RNNModel()
if USE_CUDA:
    model = model.cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, nesterov=True)
hidden = (torch.zeros(2, 4, 24), torch.zeros(2, 4, 24))
hidden = tuple(h.cuda() if USE_CUDA else h for h in hidden)
data = torch.randint(0, 40, (60, 4))
for step in range(6):
    x, y = data[step * 8 : step * 8 + 8], data[step * 8 + 1 : step * 8 + 9]
    if next(model.parameters()).is_cuda:
        x, y = x.cuda(), y.cuda(non_blocking=True)
    optimizer.zero_grad()
    hidden = tuple(h.detach() for h in hidden)
    output, hidden = model(x, hidden)
    loss = nn.functional.cross_entropy(output.flatten(0, 1), y.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    optimizer.step()
print(loss.item())
