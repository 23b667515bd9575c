"""`python -m bench.torch_loop`: the step where it is used, right after `backward()` in a torch training loop.

There the processors' caches hold activations, the gradients have just been written, and torch's OpenMP threads are
still spinning in wait for more work. Copies of one model train on the same batches, each with its optimizer, in turn:
some iterations each, of which the first are not timed, since the copies before have emptied the caches.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter_ns
from typing import Any

from bench import machine
from bench.clock import Times, no_gc, rotated
from bench.compare import render, show_time
from bench.engines import limit_threads

MODELS = {"wide": (784, 320, 128, 10), "deep": (64, *[128] * 18, 10)}  # of about 300,000 parameters: 6 and 38 tensors
HYPER = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
CHECKED = 20  # iterations after which all copies must hold the same parameters, to 1e-5
WARM, TIMED = 3, 10  # iterations of a turn


def build(torch: Any, layers: Sequence[int]) -> Any:
    torch.manual_seed(0)
    parts = []
    for k, (n_in, n_out) in enumerate(itertools.pairwise(layers)):
        parts += [torch.nn.Tanh()] * (k > 0) + [torch.nn.Linear(n_in, n_out)]
    return torch.nn.Sequential(*parts)


def of_torch(torch: Any, model: Any, **how: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """(step, zero): the optimizer, and what torch does to gradients before backward. Only the first is timed."""
    optimizer = torch.optim.AdamW(model.parameters(), **HYPER, **how)
    return optimizer.step, optimizer.zero_grad


def of_list(torch: Any, model: Any) -> tuple[Callable[[], object], Callable[[], object]]:
    """fastlr on the model's tensors as they are; new gradient tensors at every step."""
    import fastlr

    params = list(model.parameters())
    optimizer = fastlr.AdamW(params, **HYPER)
    return lambda: optimizer.step([p.grad for p in params]), lambda: model.zero_grad()


def of_flat(torch: Any, model: Any, zero: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """fastlr on one flat buffer that the model's tensors are views of; with `zero` the step zeroes gradients too."""
    import fastlr

    buffer = fastlr.FlatBuffer.pack({name: p.detach().numpy() for name, p in model.named_parameters()})
    grads = buffer.like()
    for name, p in model.named_parameters():
        p.data, p.grad = torch.from_numpy(buffer[name]), torch.from_numpy(grads[name])
    optimizer = fastlr.AdamW(buffer, **HYPER)
    return lambda: optimizer.step(grads, zero_grads=zero), lambda: None if zero else grads.data.fill(0)


OPTIMIZERS: dict[str, Callable[[Any, Any], tuple[Callable[[], object], Callable[[], object]]]] = {
    "fastlr flat": lambda torch, model: of_flat(torch, model, zero=False),
    "fastlr flat, zeroing": lambda torch, model: of_flat(torch, model, zero=True),
    "fastlr list": of_list,
    "torch fused": lambda torch, model: of_torch(torch, model, fused=True),
    "torch foreach": lambda torch, model: of_torch(torch, model, foreach=True),
    "torch for-loop": lambda torch, model: of_torch(torch, model, foreach=False),
}


class Trainer:
    def __init__(self, torch: Any, name: str, layers: Sequence[int]) -> None:
        self.torch, self.model = torch, build(torch, layers)
        self.step, self.zero = OPTIMIZERS[name](torch, self.model)
        self.made = 0
        self.steps, self.iterations = Times(), Times()  # medians of turns

    def iterate(self, batches: list[tuple[Any, Any]]) -> tuple[int, int]:
        """Nanoseconds of the step, and of the whole iteration."""
        x, y = batches[self.made % len(batches)]
        self.made += 1
        start = perf_counter_ns()
        self.zero()
        self.torch.nn.functional.cross_entropy(self.model(x), y).backward()
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
    params = {name: t.params() for name, t in trainers.items()}
    reference = params["torch for-loop"]
    for name, p in params.items():
        error = float((p - reference).abs().max())
        if not error <= 1e-5:
            raise SystemExit(f"DISAGREES: after {CHECKED} iterations {name} is off torch's for-loop by {error:.3g}")


def run(torch: Any, layers: Sequence[int], rounds: int, batch: int) -> dict[str, Trainer]:
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(batch, layers[0], generator=generator), torch.randint(layers[-1], (batch,), generator=generator))
        for _ in range(16)
    ]
    trainers = {name: Trainer(torch, name, layers) for name in OPTIMIZERS}
    with no_gc():
        for trainer in trainers.values():
            for _ in range(CHECKED):
                trainer.iterate(batches)
        check(trainers)
        for k in range(rounds):
            for name in rotated(list(trainers), k):
                trainers[name].turn(batches)
    return trainers


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--rounds", type=int, default=51, help=f"turns of each copy, of {TIMED} timed iterations")
    p.add_argument("--batch", type=int, default=64, help="examples")
    p.add_argument("--threads", type=int, default=2, help="of torch and of fastlr")
    a = p.parse_args()
    limit_threads(a.threads)
    os.environ.setdefault("FASTLR_NUM_THREADS", str(a.threads))
    import torch

    import fastlr

    torch.set_num_threads(a.threads)
    fastlr.set_num_threads(a.threads)
    print(machine.describe())
    for name, layers in MODELS.items():
        show(name, run(torch, layers, a.rounds, a.batch), a)


def show(model: str, trainers: dict[str, Trainer], a: argparse.Namespace) -> None:
    ours = trainers["fastlr flat"].steps
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
    params = list(trainers["fastlr flat"].model.parameters())
    size = f"{sum(p.numel() for p in params):,} parameters in {len(params)} tensors"
    print(f"\nadamw right after backward(), {model} model of {size}")
    print(f"batch {a.batch}, {a.threads} threads, {a.rounds} rounds of {TIMED} iterations")
    print(render(("optimizer", "step", "min", "x fastlr", "by round", "iteration", "share"), table))


if __name__ == "__main__":
    main()
