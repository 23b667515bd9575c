"""`python -m bench.torch_loop`: the step where it is used, right after `backward()` in a torch training loop.

There the processors' caches hold activations, the gradients have just been written, and torch's OpenMP threads are
still spinning in wait for more work. Copies of one model train on the same batches, each with its optimizer, in turn:
some iterations each, of which the first are not timed, since the copies before have emptied the caches.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter_ns
from typing import Any, NamedTuple

from bench import machine
from bench.clock import Times, no_gc, rotated
from bench.compare import render, show_time
from bench.engines import limit_threads

# With 1e-8 rounding alone would move the keys' biases, which have no gradient, and copies could not be compared.
LR = 1e-4
HYPER = {"lr": LR, "betas": (0.9, 0.999), "eps": 1e-5}
CHECKED = 20  # iterations after which all copies must hold the same parameters, to 1e-5
# With state in fewer bits they do so on average to a tenth of the way that so many steps can go.
NARROW = 0.1 * CHECKED * LR
WARM, TIMED = 3, 10  # iterations of a turn

Batches = list[tuple[Any, Any]]


class Model(NamedTuple):
    """What is trained: a module, its batches, and the loss of one."""

    make: Callable[[Any], Any]
    batches: Callable[[Any], Batches]
    loss: Callable[[Any, Any, Any], Any]


def mlp(torch: Any) -> Any:
    """300,000 parameters in 6 tensors."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(784, 320), nn.Tanh(), nn.Linear(320, 128), nn.Tanh(), nn.Linear(128, 10))


def mlp_batches(torch: Any) -> Batches:
    return [(torch.randn(64, 784), torch.randint(10, (64,))) for _ in range(16)]


def transformer(torch: Any) -> Any:
    """10 million parameters in 149 tensors: 12 layers of width 256.

    GELU, since with ReLU the last bit of a parameter decides whether a gradient is there, and copies that agree do not
    stay together, torch's own two among them.
    """
    nn = torch.nn

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(2048, 256), nn.Embedding(64, 256)
            layer = nn.TransformerEncoderLayer(256, 4, 1024, 0.0, "gelu", batch_first=True, norm_first=True)
            self.body = nn.TransformerEncoder(layer, 12, nn.LayerNorm(256), enable_nested_tensor=False)
            self.head = nn.Linear(256, 2048)
            self.head.weight = self.tokens.weight

        def forward(self, x: Any) -> Any:
            h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.head(self.body(h, mask, is_causal=True)).transpose(1, 2)

    return Transformer()


def transformer_batches(torch: Any) -> Batches:
    data = [torch.randint(2048, (2, 65)) for _ in range(16)]
    return [(x[:, :-1], x[:, 1:]) for x in data]


def embeddings(torch: Any) -> Any:
    """50 million parameters, nearly all of them in a table of which a batch looks up some rows."""
    return torch.nn.Sequential(
        torch.nn.EmbeddingBag(780_000, 64, sparse=True, mode="sum"), torch.nn.Linear(64, 64), torch.nn.Linear(64, 10)
    )


def embedding_batches(torch: Any) -> Batches:
    return [(torch.randint(780_000, (256, 20)), torch.randint(10, (256,))) for _ in range(16)]


def cross_entropy(torch: Any, model: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


MODELS = {
    "mlp": Model(mlp, mlp_batches, cross_entropy),
    "transformer": Model(transformer, transformer_batches, cross_entropy),
    "embeddings": Model(embeddings, embedding_batches, cross_entropy),
}

Made = tuple[Callable[[], object], Callable[[], object]]


def of(module: Any, model: Any, **how: Any) -> Made:
    """(step, zero): the optimizer, and what is done to gradients before backward. Only the first is timed."""
    optimizer = module.AdamW(model.parameters(), weight_decay=0.01, **HYPER, **how)
    return optimizer.step, optimizer.zero_grad


def of_torch(torch: Any, model: Any, **how: Any) -> Made:
    return of(torch.optim, model, **how)


def compiled(torch: Any, model: Any) -> Made:
    step, zero = of(torch.optim, model, foreach=True)
    return torch.compile(step, fullgraph=False), zero


def per_tensor(torch: Any, model: Any, **how: Any) -> Made:
    import fastlr.torch

    return of(fastlr.torch, model, **how)


def flat(torch: Any, model: Any, **how: Any) -> Made:
    """The model's tensors as views of one buffer, and so the gradients, which must be set to zero."""
    import fastlr.torch

    optimizer = fastlr.torch.AdamW(fastlr.torch.flatten(model), weight_decay=0.01, **HYPER, **how)
    return optimizer.step, optimizer.zero_grad


def floor(torch: Any, model: Any) -> Made:
    """As many bytes read and written, in as many passes of fastlr's own loop, and an addition a buffer."""
    import fastlr.torch
    from fastlr import _core
    from fastlr.buffers import allocate

    (p,) = fastlr.torch.flatten(model)
    array = p.detach().numpy()
    states = {f"s{k}": [allocate(array.size, array.dtype)] for k in range(2)}
    plan = _core.Plan(f"floor_{len(states)}", "f", [array], [""], states, [(0, 0, array.size, 0)], 1)
    plan.set_group(0, 0.0, 0.0, 0.0, ())
    grads: list[Any] = []  # where they stay

    def step() -> None:
        if not grads:
            grads.append(p.grad.numpy())
        plan.step(grads, 1.0, False, -1.0, False, _core.PROPAGATE)

    def zero() -> None:
        p.grad = None

    return step, zero


def sparse(module: Any, model: Any, rest: list[Any], wrap: Any = None, **how: Any) -> Made:
    """SparseAdam for the table, AdamW for the rest, whose step is wrapped."""
    table, dense = module.SparseAdam(model[0].parameters(), **HYPER), module.AdamW(rest, **HYPER, **how)
    move = wrap(dense.step) if wrap else dense.step

    def step() -> None:
        table.step()
        move()

    def zero() -> None:
        table.zero_grad()
        dense.zero_grad()

    return step, zero


def rest_of(model: Any) -> list[Any]:
    return [*model[1].parameters(), *model[2].parameters()]


def sparse_of_torch(torch: Any, model: Any) -> Made:
    return sparse(torch.optim, model, rest_of(model), fused=True)


def sparse_compiled(torch: Any, model: Any) -> Made:
    return sparse(torch.optim, model, rest_of(model), torch.compile, foreach=True)


def sparse_of_fastlr(torch: Any, model: Any) -> Made:
    import fastlr.torch

    return sparse(fastlr.torch, model, rest_of(model))


def sparse_flat(torch: Any, model: Any) -> Made:
    import fastlr.torch

    return sparse(fastlr.torch, model, fastlr.torch.flatten(rest_of(model)))


FLOOR = "floor, flattened"  # which trains nothing
BF16, INT8 = "fastlr, bfloat16 state", "fastlr, int8 state"
FLAT_BF16, FLAT_INT8 = "fastlr flattened, bfloat16 state", "fastlr flattened, int8 state"
NARROWER = (BF16, INT8, FLAT_BF16, FLAT_INT8)

OPTIMIZERS: dict[str, Callable[[Any, Any], Made]] = {
    FLOOR: floor,
    "fastlr flattened": flat,
    FLAT_BF16: lambda torch, model: flat(torch, model, state_dtype="bfloat16"),
    FLAT_INT8: lambda torch, model: flat(torch, model, state_dtype="int8"),
    "fastlr": per_tensor,
    BF16: lambda torch, model: per_tensor(torch, model, state_dtype="bfloat16"),
    INT8: lambda torch, model: per_tensor(torch, model, state_dtype="int8"),
    "torch fused": lambda torch, model: of_torch(torch, model, fused=True),
    "torch foreach": lambda torch, model: of_torch(torch, model, foreach=True),
    "torch for-loop": lambda torch, model: of_torch(torch, model, foreach=False),
    "torch compiled": compiled,
}
SPARSE = {
    "fastlr": sparse_of_fastlr,
    "fastlr flattened": sparse_flat,
    "torch for-loop": sparse_of_torch,
    "torch compiled": sparse_compiled,
}
WHY = """torch has one step for sparse gradients, a loop, which its compiler cannot take: fused or compiled is the step
of the dense layers alone. Where fastlr's are flattened, those are one buffer: a sparse gradient has no place in one."""


def optimizers(model: str) -> dict[str, Callable[[Any, Any], Made]]:
    return SPARSE if model == "embeddings" else OPTIMIZERS


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """What takes longer is a TimeoutError."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Trainer:
    def __init__(self, torch: Any, model: Model, make: Callable[[Any, Any], Made]) -> None:
        torch.manual_seed(0)
        self.torch, self.loss, self.model = torch, model.loss, model.make(torch)
        self.step, self.zero = make(torch, self.model)
        self.made = 0
        self.steps, self.iterations = Times(), Times()  # medians of turns

    def iterate(self, batches: Batches) -> tuple[int, int]:
        """Nanoseconds of the step, and of the whole iteration."""
        batch = batches[self.made % len(batches)]
        self.made += 1
        start = perf_counter_ns()
        self.zero()
        self.loss(self.torch, self.model, batch).backward()
        before = perf_counter_ns()
        self.step()
        end = perf_counter_ns()
        return end - before, end - start

    def turn(self, batches: list[tuple[Any, Any]]) -> None:
        steps, iterations = zip(*[self.iterate(batches) for _ in range(WARM + TIMED)][WARM:], strict=True)
        self.steps.samples.append(median(steps))
        self.iterations.samples.append(median(iterations))

    def params(self) -> Any:
        return self.torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])


def check(trainers: dict[str, Trainer]) -> None:
    params = {name: t.params() for name, t in trainers.items() if name != FLOOR}
    for name, p in params.items():
        off = (p - params["torch for-loop"]).abs()
        error, most = (float(off.mean()), NARROW) if name in NARROWER else (float(off.max()), 1e-5)
        if not error <= most:
            raise SystemExit(f"DISAGREES: after {CHECKED} iterations {name} is off torch's for-loop by {error:.3g}")


def run(torch: Any, name: str, rounds: int, patience: float) -> tuple[dict[str, Trainer], dict[str, str]]:
    """Those that were timed, and why others were not; compiling may take `patience` seconds, or 0: no time at all."""
    model, missing = MODELS[name], {}
    torch.manual_seed(1)
    batches = model.batches(torch)
    trainers = {}
    with no_gc():
        for key, make in optimizers(name).items():
            if key == "torch compiled" and not patience:
                missing[key] = "not asked for"
                continue
            try:
                with limited(patience) if key == "torch compiled" else contextlib.nullcontext():
                    trainer = Trainer(torch, model, make)
                    for _ in range(CHECKED):
                        trainer.iterate(batches)
            except Exception as error:
                if key != "torch compiled":
                    raise
                missing[key] = f"failed: {error}".splitlines()[0]  # the compiler has wrapped what was raised in it
                continue
            trainers[key] = trainer
        check(trainers)
        for k in range(rounds):
            for key in rotated(list(trainers), k):
                trainers[key].turn(batches)
    return trainers, missing


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--rounds", type=int, default=51, help=f"turns of each copy, of {TIMED} timed iterations")
    p.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="of those of this file")
    p.add_argument(
        "--patience", type=float, default=300, help="seconds that torch.compile may take, each time; 0: none"
    )
    p.add_argument("--threads", type=int, default=2, help="of torch and of fastlr")
    p.add_argument("--record", action="store_true", help="write it to bench/record/ too")
    a = p.parse_args()
    limit_threads(a.threads)
    os.environ.setdefault("FASTLR_NUM_THREADS", str(a.threads))
    import torch

    import fastlr

    torch.set_num_threads(a.threads)
    fastlr.set_num_threads(a.threads)
    with machine.recorded("torch_loop", a.record):
        print(machine.describe())
        for name in a.models:
            show(name, *run(torch, name, a.rounds, a.patience), a)


def show(model: str, trainers: dict[str, Trainer], missing: dict[str, str], a: argparse.Namespace) -> None:
    ours = trainers["fastlr"].steps
    table = [
        (
            name,
            show_time(t.steps.median),
            show_time(t.steps.min),
            f"{t.steps.median / ours.median:.2f}",
            f"{t.steps.over(ours):.2f}",
            show_time(t.iterations.median),
            f"{100 * t.steps.over(t.iterations):.0f} %",
        )
        for name, t in sorted(trainers.items(), key=lambda item: item[1].steps.median)
    ]
    params = list(trainers["fastlr"].model.parameters())
    size = f"{sum(p.numel() for p in params):,} parameters in {len(params)} tensors"
    print(f"\nthe step right after backward(), {model} of {size}")
    print(f"{a.threads} threads, {a.rounds} rounds of {TIMED} iterations")
    print(render(("optimizer", "step", "min", "x fastlr", "by round", "iteration", "share"), table))
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    if model == "embeddings":
        print(WHY)


if __name__ == "__main__":
    main()
