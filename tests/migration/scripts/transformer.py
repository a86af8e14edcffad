"""A translation-like encoder and decoder with masks, warm-up and label smoothing."""

import torch
import torch.nn as nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(9)
if torch.cuda.device_count() > 0:
    torch.cuda.manual_seed_all(9)


class Seq2Seq(nn.Module):
    def __init__(self, vocab=30, width=32):
        super().__init__()
        self.source, self.target = nn.Embedding(vocab, width), nn.Embedding(vocab, width)
        self.core = nn.Transformer(width, 4, 1, 1, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, src, tgt):
        mask = torch.triu(torch.full((tgt.shape[1],) * 2, float("-inf"), device=DEVICE), 1)
        return self.head(self.core(self.source(src), self.target(tgt), tgt_mask=mask))


model = Seq2Seq().to(DEVICE)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9)
warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 4))
criterion = nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=0).to(DEVICE)
for step in range(5):
    src, tgt = torch.randint(1, 30, (4, 7)).to(DEVICE), torch.randint(1, 30, (4, 8)).to(DEVICE)
    loss = criterion(model(src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    warmup.step()
print(loss.item())
