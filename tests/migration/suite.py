"""Small trainings and uses of a device, run as `suite.py DEVICE [CASE...]`; prints JSON.

The numbers of one device are compared with those of another.
"""

import copy
import io
import json
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import nn

Loss = Callable[..., torch.Tensor]
CASES: dict[str, Callable[[str], Any]] = {}


def case(run: Callable[[str], Any]) -> Callable[[str], Any]:
    """Put a case on the list."""
    CASES[run.__name__] = run
    return run


def train(
    device: str, model: nn.Module, data: tuple[torch.Tensor, ...], loss: Loss, **more: Any
) -> list[float]:
    """Five steps; losses, and the sum of all weights."""
    model = model.to(device)
    kind = more.pop("kind", torch.optim.AdamW)
    optimizer = kind(model.parameters(), lr=1e-3, **more)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        value = loss(model, *(part.to(device) for part in data))
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())
    return [*losses, sum(p.detach().cpu().double().abs().sum().item() for p in model.parameters())]


def classes(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x), y)


def rows(*size: int, of: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(*size), torch.randint(0, of, (size[0],))


@case
def mlp(device: str) -> Any:
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 5))
    return train(device, net, rows(32, 20), classes)


@case
def sgd_plain(device: str) -> Any:
    net = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 5))
    return train(
        device,
        net,
        rows(32, 20),
        classes,
        kind=torch.optim.SGD,
        momentum=0.9,
        weight_decay=0.1,
        foreach=False,
    )


@case
def cnn(device: str) -> Any:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3),
        nn.GroupNorm(4, 16),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    return train(device, net, rows(8, 3, 16, 16, of=10), classes)


@case
def dcgan(device: str) -> Any:
    net = nn.Sequential(
        nn.ConvTranspose2d(16, 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
        nn.Tanh(),
    )
    data = torch.randn(4, 16, 1, 1), torch.rand(4, 3, 8, 8)
    return train(device, net, data, lambda m, x, y: F.binary_cross_entropy_with_logits(m(x), y))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.lstm = nn.LSTM(16, 24, 2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(24, 30)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(x))[0])


@case
def lstm(device: str) -> Any:
    data = torch.randint(0, 30, (4, 12)), torch.randint(0, 30, (4, 12))
    return train(
        device,
        Tagger(),
        data,
        lambda m, x, y: F.cross_entropy(m(x).flatten(0, 1), y.flatten()),
    )


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(8, 8, bidirectional=True), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [6, 4, 3])
        out, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0])
        return self.head(out[0])


@case
def gru_packed(device: str) -> Any:
    return train(device, Packed(), (torch.randn(6, 3, 8), torch.randint(0, 3, (3,))), classes)


@case
def transformer(device: str) -> Any:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    data = torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    return train(
        device,
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        data,
        lambda m, x, y: F.mse_loss(m(x), y),
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(2, 9, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(2, 9, 32))


@case
def attention(device: str) -> Any:
    data = torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    return train(device, Attention(), data, lambda m, x, y: F.mse_loss(m(x), y))


@case
def gpt2(device: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    net = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=100, n_positions=32)
    )
    ids = torch.randint(0, 100, (2, 16))
    return train(device, net, (ids,), lambda m, x: m(input_ids=x, labels=x).loss)


@case
def llama(device: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    net = LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            hidden_size=32,
            intermediate_size=64,
            vocab_size=100,
            max_position_embeddings=64,
        )
    )
    ids = torch.randint(3, 100, (2, 16))
    losses = train(device, net, (ids,), lambda m, x: m(input_ids=x, labels=x).loss)
    net.eval()
    said = net.generate(ids[:, :4].to(device), max_new_tokens=6, do_sample=False, pad_token_id=0)
    return [losses, said.cpu().tolist()]


@case
def bert(device: str) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    net = BertForSequenceClassification(
        BertConfig(
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_size=32,
            intermediate_size=64,
            vocab_size=100,
        )
    )
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[0, 9:] = 0
    data = torch.randint(0, 100, (2, 16)), mask, torch.tensor([0, 1])
    return train(
        device, net, data, lambda m, x, a, y: m(input_ids=x, attention_mask=a, labels=y).loss
    )


@case
def mixtral(device: str) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    net = MixtralForCausalLM(
        MixtralConfig(
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            hidden_size=16,
            intermediate_size=32,
            vocab_size=50,
            num_local_experts=4,
        )
    )
    ids = torch.randint(0, 50, (2, 8))
    return train(device, net, (ids,), lambda m, x: m(input_ids=x, labels=x).loss)


@case
def autocast(device: str) -> Any:
    def loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            out = model(x)
            assert out.dtype == torch.bfloat16
            return F.cross_entropy(out, y)

    net = nn.Sequential(nn.Linear(20, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 5))
    return train(device, net, rows(32, 20), loss)


@case
def grad_scaler(device: str) -> Any:
    net = nn.Linear(8, 2).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler(device, enabled=True, init_scale=128.0)
    x, losses = torch.randn(4, 8).to(device), []
    for _ in range(4):
        optimizer.zero_grad()
        value = net(x).pow(2).sum()
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        losses.append(value.item())
    return [*losses, scaler.get_scale()]


@case
def save_and_load(device: str) -> Any:
    from safetensors.torch import load, save

    net = nn.Linear(4, 3).to(device)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 4).to(device)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    found = []
    for place in ("cpu", None, device):
        file.seek(0)
        found.append(torch.load(file, map_location=place, weights_only=True))
    near, same, there = found
    other = torch.optim.Adam(nn.Linear(4, 3).to(device).parameters())
    other.load_state_dict(there["optimizer"])
    kept = load(save(dict(net.state_dict())))
    return [
        near["net"]["weight"].device.type == "cpu",
        same["net"]["weight"].device.type == device,
        torch.equal(near["net"]["weight"], same["net"]["weight"].cpu()),
        torch.equal(kept["weight"], near["net"]["weight"]),
    ]


@case
def loader_pinned(device: str) -> Any:
    data = torch.utils.data.TensorDataset(*rows(20, 4, of=2))
    loader = torch.utils.data.DataLoader(data, 5, shuffle=True, num_workers=1, pin_memory=True)
    return [x.to(device, non_blocking=True).sum().item() for x, _ in loader]


@case
def indexing(device: str) -> Any:
    x = torch.randn(5, 6).to(device)
    mask, at, y = x > 0, torch.tensor([0, 3]).to(device), x.clone()
    y[mask] = 0
    y[at, 2] = 9
    y[:, at] += 1
    return [
        x[mask].sum().item(),
        x[at].sum().item(),
        y.sum().item(),
        mask.nonzero().shape[0],
        torch.topk(x, 2).values.sum().item(),
        x.sort(1)[1].sum().item(),
        x.unique().numel(),
        torch.where(mask, x, -x).sum().item(),
        torch.einsum("ij,kj->ik", x, x).sum().item(),
        x.cumsum(0)[-1, -1].item(),
        bool((x == x).all()),
        torch.isnan(x).any().item(),
    ]


@case
def checkpointing(device: str) -> Any:
    from torch.utils.checkpoint import checkpoint

    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh())
    return train(
        device,
        net,
        (torch.randn(4, 8),),
        lambda m, x: checkpoint(m, x, use_reentrant=False).pow(2).mean(),
    )


@case
def parameters_stay(device: str) -> Any:
    net = nn.Linear(3, 3)
    weight = net.weight
    net.to(device)
    return [weight is net.weight, weight.device.type == device, net.weight.is_leaf]


@case
def functional(device: str) -> Any:
    def f(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (w @ x).tanh().sum()

    w, xs = torch.randn(3, 3).to(device), torch.randn(4, 3).to(device)
    mapped = torch.func.vmap(lambda x: f(w, x))(xs).sum().item()
    return [mapped, torch.func.grad(f)(w, xs[0]).sum().item()]


@case
def complex_numbers(device: str) -> Any:
    x = torch.randn(8).to(device)
    return [torch.fft.rfft(x).abs().sum().item(), torch.polar(x.abs(), x).real.sum().item()]


@case
def linear_algebra(device: str) -> Any:
    a = torch.randn(4, 4).to(device)
    a = a @ a.t() + 4 * torch.eye(4, device=device)
    return [
        torch.linalg.cholesky(a).sum().item(),
        torch.linalg.eigvalsh(a).sum().item(),
        torch.linalg.svdvals(a).sum().item(),
        torch.linalg.inv(a).sum().item(),
    ]


@case
def hooks(device: str) -> Any:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).to(device)
    seen: dict[str, float] = {}
    for name, part in net.named_modules():
        part.register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(f"F{name}", out.norm().item())
        )
        part.register_full_backward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(f"B{name}", out[0].norm().item())
        )
    net(torch.randn(3, 4).to(device)).sum().backward()
    return seen


@case
def device_context(device: str) -> Any:
    with torch.device(device):
        a, net = torch.ones(3), nn.Linear(2, 2)
    torch.set_default_device(device)
    b = torch.zeros(2)
    torch.set_default_device("cpu")
    return [t.device.type == device for t in (a, net.weight, b)]


@case
def average_of_weights(device: str) -> Any:
    net = nn.Linear(3, 3).to(device)
    kept = copy.deepcopy(net)
    with torch.no_grad():
        for old, new in zip(kept.parameters(), net.parameters(), strict=True):
            old.mul_(0.9).add_(new.data, alpha=0.1)
    return [sum(p.sum().item() for p in kept.parameters())]


@case
def compiled_eagerly(device: str) -> Any:
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh()).to(device)
    return [torch.compile(net, backend="eager")(torch.ones(2, 6).to(device)).sum().item()]


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


@case
def own_gradient(device: str) -> Any:
    x = torch.randn(5).to(device).requires_grad_()
    cubed: torch.Tensor = Cube.apply(x)  # type: ignore[no-untyped-call]  # torch has no types for it
    cubed.sum().backward()
    assert x.grad is not None
    return x.grad.cpu().tolist()


@case
def streams(device: str) -> Any:
    module = torch.get_device_module(device)
    if device == "cpu":
        return [3.0]
    with module.stream(module.Stream()):
        x = torch.ones(3).to(device)
    start, end = module.Event(enable_timing=True), module.Event(enable_timing=True)
    start.record()
    end.record()
    module.synchronize()
    assert start.elapsed_time(end) >= 0
    return [x.sum().item()]


@case
def trainer(device: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    net = GPT2LMHeadModel(
        GPT2Config(
            n_layer=1,
            n_head=2,
            n_embd=16,
            vocab_size=30,
            n_positions=16,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    data = [{"input_ids": t, "labels": t} for t in torch.randint(0, 30, (16, 8))]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            max_steps=4,
            per_device_train_batch_size=4,
            report_to=[],
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=device == "cpu",
        )
        made = Trainer(model=net, args=options, train_dataset=data)
        made.train()
    assert net.device.type == device
    return [row["loss"] for row in made.state.log_history if "loss" in row]


def main() -> None:
    device, wanted = sys.argv[1], sys.argv[2:] or list(CASES)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in wanted:
        torch.manual_seed(0)
        try:
            found[name] = CASES[name](device)
        except (RuntimeError, NotImplementedError, AssertionError, AttributeError) as error:
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
