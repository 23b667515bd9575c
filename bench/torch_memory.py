"""`python -m bench.torch_memory`: the peak of memory, and the time of an iteration, with and without steps in backward.

Each trains the same model, alone in a process of its own: AdamW of torch, fused; of fastlr; of fastlr in backward.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from statistics import median
from time import perf_counter

from bench import machine
from bench.compare import render

OPTIMIZERS = {
    "torch fused": ("torch.optim", {"fused": True}),
    "fastlr": ("fastlr.torch", {}),
    "fastlr in backward": ("fastlr.torch", {"in_backward": True}),
}
WIDTH, LAYERS, BATCH, ITERATIONS = 2048, 12, 64, 8  # 50 million parameters: 200 MB of each of p, g, m and v


def measure(name: str) -> tuple[float, float]:
    """Peak megabytes, and milliseconds of an iteration."""
    import importlib

    import torch

    module, options = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])
    opt = importlib.import_module(module).AdamW(model.parameters(), lr=1e-4, **options)
    x = torch.randn(BATCH, WIDTH)
    times = []
    for _ in range(ITERATIONS):
        start = perf_counter()
        opt.zero_grad()
        model(x).square().mean().backward()
        opt.step()
        times.append(perf_counter() - start)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1e3 * median(times[2:])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", choices=OPTIMIZERS, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.only:
        print(*measure(a.only))
        return
    print(machine.describe())
    size = LAYERS * (WIDTH * WIDTH + WIDTH)
    print(f"\nadamw, {LAYERS} layers of {WIDTH}: {size:,} parameters, whose gradients are {4 * size / 2**20:.0f} MiB")
    rows = []
    for name in OPTIMIZERS:
        command = [sys.executable, "-m", "bench.torch_memory", "--only", name]
        peak, time = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        rows.append((name, f"{peak:.0f} MiB", f"{time:.0f} ms"))
    print(render(("optimizer", "peak", "iteration"), rows))


if __name__ == "__main__":
    main()
