"""Small models of the two kinds that are trained most, and their batches."""

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.SiLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x):
        return nn.functional.silu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(Residual(4, 4, 1), Residual(4, 6, 2))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))

    @staticmethod
    def batch(dtype):
        return torch.randn(4, 3, 6, 6, dtype=dtype), torch.randint(5, (4,))


class Transformer(nn.Module):
    """One block and embeddings whose weights are those of the output too.

    Keys have no bias: its gradient is nothing but rounding, which some rules magnify.
    """

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)])
        self.qkv, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x):
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in self.qkv(self.norms[0](h)).chunk(3, -1))
        a = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(a.transpose(1, 2).flatten(2))
        h = h + self.mlp(self.norms[1](h))
        return self.head(self.norms[2](h)).transpose(1, 2)

    @staticmethod
    def batch(dtype):
        x = torch.randint(11, (3, 7))
        return x[:, :-1], x[:, 1:]


MODELS = {"resnet": ResNet, "transformer": Transformer}


def build(name, dtype=torch.float32):
    torch.manual_seed(0)
    return MODELS[name]().to(dtype)


def batches(name, count, dtype=torch.float32):
    torch.manual_seed(1)
    return [MODELS[name].batch(dtype) for _ in range(count)]


def backward(model, batch, scale=1.0):
    x, y = batch
    loss = nn.functional.cross_entropy(model(x), y)
    (loss * scale).backward()
    return loss


def step_with(model, opt, grads):
    """For another process. Gradients are made in this one, since torch's autograd does not survive a fork."""
    for p, g in zip(model.parameters(), grads, strict=True):
        p.grad = g
    opt.step()
