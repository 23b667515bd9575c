"""`python -m bench.torch_memory`: the peak of memory, and the time of an iteration, with and without steps in backward.

Each trains the same model, alone in a process of its own: AdamW of torch, fused; of fastlr; of fastlr in backward.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from bench import machine
from bench.compare import render

OPTIMIZERS = {
    "torch fused": ("torch.optim", {"fused": True}),
    "fastlr": ("fastlr.torch", {}),
    "fastlr in backward": ("fastlr.torch", {"in_backward": True}),
}
WIDTH, LAYERS = 2048, 12  # 50 million parameters: 200 MB of each of p, g, m and v
BATCH, WARM = 64, 2


def measured(name: str, width: int, layers: int, iterations: int) -> tuple[float, float]:
    """Peak mebibytes, and milliseconds of an iteration, of a process of its own."""
    sizes = map(str, (width, layers, iterations))
    command = [sys.executable, "-m", "bench.torch_memory", "--only", name, *sizes]
    peak, time = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    return peak, time


def gradients(width: int, layers: int) -> float:
    """Their mebibytes."""
    return 4 * layers * (width * width + width) / 2**20


def peak() -> float:
    """Mebibytes of this process, so far. In getrusage() are those that its parent had when it was started, too."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, width: int, layers: int, iterations: int) -> tuple[float, float]:
    """What `measured` returns, of this process."""
    import importlib

    import torch

    module, options = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(layers)])
    opt = importlib.import_module(module).AdamW(model.parameters(), lr=1e-4, **options)
    x = torch.randn(BATCH, width)
    times = []
    for _ in range(iterations):
        start = perf_counter()
        opt.zero_grad()
        model(x).square().mean().backward()
        opt.step()
        times.append(perf_counter() - start)
    return peak(), 1e3 * median(times[WARM:])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--width", type=int, default=WIDTH)
    p.add_argument("--layers", type=int, default=LAYERS)
    p.add_argument("--iterations", type=int, default=10, help=f"of which the first {WARM} are not timed")
    p.add_argument("--record", action="store_true", help="write it to bench/record/ too")
    p.add_argument("--only", nargs=4, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.only:
        print(*measure(a.only[0], *map(int, a.only[1:])))
        return
    if a.iterations <= WARM:
        p.error(f"--iterations must be more than {WARM}, got {a.iterations}")
    with machine.recorded("torch_memory", a.record):
        report(a.width, a.layers, a.iterations)


def report(width: int, layers: int, iterations: int) -> None:
    print(machine.describe())
    size, bytes = layers * (width * width + width), gradients(width, layers)
    print(f"\nadamw, {layers} layers of {width}: {size:,} parameters, whose gradients are {bytes:.0f} MiB")
    found = {name: measured(name, width, layers, iterations) for name in OPTIMIZERS}
    rows = [(name, f"{peak:.0f} MiB", f"{time:.0f} ms") for name, (peak, time) in found.items()]
    print(render(("optimizer", "peak", "iteration"), rows))


if __name__ == "__main__":
    main()
