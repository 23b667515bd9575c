"""`python -m bench.torch_memory`: the peak of memory, and the time of an iteration, with and without steps in backward.

Each trains the same model, alone in a process of its own: AdamW of torch, fused; of fastlr; of fastlr in backward.
*tensors* is what the tensors made within one iteration, gradients and activations, had at once, by torch's own account.
*process* is the peak of the whole process, which has what malloc keeps of freed ones: glibc's keeps most below 32 MiB,
in holes where the next may not fit, unless `MALLOC_MMAP_THRESHOLD_` in the environment says from where on not to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from bench import machine
from bench.compare import render

OPTIMIZERS = {
    "torch fused": ("torch.optim", {"fused": True}),
    "fastlr": ("fastlr.torch", {}),
    "fastlr in backward": ("fastlr.torch", {"in_backward": True}),
}
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
WIDTH, LAYERS = 2048, 12  # 50 million parameters: 200 MB of each of p, g, m and v
BATCH, WARM = 64, 2


class Measured(NamedTuple):
    process: float  # mebibytes
    tensors: float  # mebibytes
    time: float  # milliseconds of an iteration


def measured(name: str, width: int, layers: int, iterations: int, given_back: bool = False) -> Measured:
    """Of a process of its own; `given_back`: whose malloc gives back at once what a gradient had."""
    sizes = map(str, (width, layers, iterations))
    command = [sys.executable, "-m", "bench.torch_memory", "--only", name, *sizes]
    env = {**os.environ, **(GIVEN_BACK if given_back else {})}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    return Measured(*map(float, printed.splitlines()[-1].split()))


def gradients(width: int, layers: int) -> float:
    """Their mebibytes."""
    return 4 * layers * (width * width + width) / 2**20


def peak() -> float:
    """Mebibytes of this process, so far. In getrusage() are those that its parent had when it was started, too."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def of_tensors(iteration: Callable[[], None]) -> float:
    """Mebibytes that tensors made within an iteration had at once, by the profiler's account of torch's allocator."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as account:
        iteration()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        account.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    had = most = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        had += event["args"]["Bytes"]
        most = max(most, had)
    return most / 2**20


def measure(name: str, width: int, layers: int, iterations: int) -> Measured:
    """Of this process."""
    import importlib

    import torch

    module, options = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(layers)])
    opt = importlib.import_module(module).AdamW(model.parameters(), lr=1e-4, **options)
    x = torch.randn(BATCH, width)

    def iteration() -> None:
        opt.zero_grad()
        model(x).square().mean().backward()
        opt.step()

    times = []
    for _ in range(iterations):
        start = perf_counter()
        iteration()
        times.append(perf_counter() - start)
    process = peak()  # before there is a profiler, which takes memory of its own
    opt.zero_grad()  # or gradients of the iteration before are freed in that which is looked at
    return Measured(process, of_tensors(iteration), 1e3 * median(times[WARM:]))


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
    for given_back in (False, True):
        if given_back:
            print("\nthe same, with", *(f"{key}={value}" for key, value in GIVEN_BACK.items()))
        found = {name: measured(name, width, layers, iterations, given_back) for name in OPTIMIZERS}
        rows = [(name, f"{m.tensors:.0f} MiB", f"{m.process:.0f} MiB", f"{m.time:.0f} ms") for name, m in found.items()]
        print(render(("optimizer", "tensors", "process", "iteration"), rows))


if __name__ == "__main__":
    main()
