"""`python -m bench.storage`: AdamW with parameters, gradients and state in fewer bits, the chain of what surrounds a
step, and models of many tensors; each against torch's fused float32 in the same rounds, checked, then timed.

Every storage has two floors. One is memory's: fastlr's loop with one addition a buffer, on as many float32 elements as
have its bytes. The other is arithmetic's: the same steps, as many elements in all, on buffers that stay in the cache.
Beside these is what an addition a buffer takes in the loops of that storage, which move its bytes and convert them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastlr
from bench import clock, machine, readme
from bench.cases import Array, parse_size, show_size
from bench.clock import Times
from bench.compare import render, show_time
from bench.engines import limit_threads
from bench.memory import placed, written
from fastlr import _core
from fastlr.buffers import allocate
from fastlr.precision import to_bfloat16, to_float32

Step = Callable[[], object]
HYPER: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
NBYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1 + 4 / 256}
STORAGES = [  # parameters, gradients, state
    ("float32", "float32", "float32"),
    ("float32", "float32", "bfloat16"),
    ("float32", "bfloat16", "bfloat16"),
    ("float32", "bfloat16", "int8"),
    ("bfloat16", "bfloat16", "bfloat16"),
    ("bfloat16", "bfloat16", "int8"),
]
CHECKED = 1 << 16
CACHED = 1 << 19  # elements of buffers that the last cache holds; with fewer it is the calls that show
STEPS = 3
WITHIN = 1e-3 * STEPS * 1e-3  # a thousandth of the way that STEPS steps of lr go


def data(n: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(20240229)
    return 0.1 * rng.standard_normal(n, np.float32), 0.01 * rng.standard_normal(n, np.float32)


def stored(x: Array, dtype: str) -> Array:
    """A copy in that type."""
    return placed(to_bfloat16(x) if dtype == "bfloat16" else x)


def tensor(x: Array) -> torch.Tensor:
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype == np.uint16 else torch.from_numpy(x)


def traffic(p: str, g: str, state: str) -> float:
    """Bytes that a step moves for each element."""
    return 2 * NBYTES[p] + NBYTES[g] + 4 * NBYTES[state]


def ours(p: Array, g: Array, storage: tuple[str, str, str]) -> tuple[Array, Step, Step]:
    """AdamW's step; and what moves the same bytes and converts them, with an addition for each array."""
    param, grad = stored(p, storage[0]), stored(g, storage[1])
    opt = fastlr.AdamW(param, state_dtype=storage[2], dtype="bfloat16", **HYPER)
    plan = opt.plan("floor_stored", opt._structure, opt._entries, opt._pieces, 1)
    opt._precision.govern(plan)
    plan.set_group(0, 0.0, 0.0, 0.0, ())  # leaves the parameters as they are
    return param, lambda: opt.step(grad), lambda: plan.step((grad,), 1.0, False, -1.0, False, _core.PROPAGATE)


def repeated(step: Step, times: int) -> Step:
    def steps() -> None:
        for _ in range(times):
            step()

    return steps


def fused(p: Array, g: Array) -> tuple[Array, Step]:
    param = torch.nn.Parameter(tensor(placed(p)))
    param.grad = tensor(placed(g))
    return param.detach().numpy(), torch.optim.AdamW([param], **HYPER, fused=True).step


def floor(n: int, nbytes: float) -> Step:
    n = int(n * nbytes / 28)
    arrays = [written(n, np.float32) for _ in range(4)]
    plan = _core.Plan("floor_2", "f", arrays[:1], [""], {"a": arrays[1:2], "b": arrays[2:3]}, [(0, 0, n, 0)], 1)
    plan.set_group(0, 0.0, 0.0, 0.0, ())
    return lambda: plan.step((arrays[3],), 1.0, False, -1.0, False, _core.PROPAGATE)


def norm(x: Array) -> Step:
    """The read of gradients that clipping begins with."""
    plan = _core.Plan("floor_0", "f", [x], [""], {}, [(0, 0, x.size, 0)], 1)
    return lambda: plan.norm((x,))


def deepspeed(p: Array, g: Array, dtype: str) -> tuple[Array, Step]:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        param = torch.nn.Parameter(tensor(stored(p, dtype)))
        param.grad = tensor(stored(g, dtype))
        opt = DeepSpeedCPUAdam([param], **HYPER, adamw_mode=True, fp32_optimizer_states=dtype == "float32")
    held = param.detach()
    array = held.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else held.numpy()
    return array, opt.step


def bitsandbytes(p: Array, g: Array) -> tuple[Array, Step]:
    from bitsandbytes.optim import AdamW8bit

    param = torch.nn.Parameter(tensor(placed(p)))
    param.grad = tensor(placed(g))
    return param.detach().numpy(), AdamW8bit([param], **HYPER).step


def expected(p: Array, g: Array) -> Array:
    """What float64 gives after STEPS steps, for the first elements."""
    x, d = p[:CHECKED].astype(np.float64), g[:CHECKED].astype(np.float64)
    m, v, (b1, b2) = np.zeros_like(x), np.zeros_like(x), HYPER["betas"]
    for t in range(1, STEPS + 1):
        m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d * d
        x -= HYPER["lr"] * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + HYPER["eps"]) + HYPER["weight_decay"] * x)
    return x


def check(name: str, param: Array, step: Step, p: Array, g: Array, narrow: bool) -> None:
    """After STEPS steps, against float64: within 1e-3 of the move, or a tenth of it and a unit of bfloat16."""
    for _ in range(STEPS):
        step()
    found = to_float32(param[:CHECKED]).astype(np.float64)
    unit = STEPS * 1e-3
    error = np.abs(found - expected(p, g))
    allowed = np.abs(found) * 2**-7 + 0.1 * unit if narrow else 1e-3 * unit + 1e-6 * np.abs(found)
    if error.mean() > allowed.mean():
        raise ValueError(f"{name} DISAGREES: off by {error.mean():.3g} on average, {allowed.mean():.3g} is allowed")


COLUMNS = ("storage", "median", "bytes", "GB/s", "x faster than torch", "of floor", "in cache", "storage alone")


def storages(n: int, rounds: int, raw: list[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    """The rows of the table that it prints."""
    p, g = data(n)
    steps: dict[str, Step] = {}
    nbytes: dict[str, float] = {}
    excuses = {}

    def add(name: str, size: float, narrow: bool, make: Callable[[Array, Array], tuple[Any, ...]]) -> None:
        try:
            param, step, *alone = make(p, g)
            check(name, param, step, p, g, narrow)
            steps[name], nbytes[name] = step, size
            if alone:
                (steps[f"alone {name}"],) = alone
            if alone and n > CACHED and n % CACHED == 0:
                few = p[:CACHED], g[:CACHED]
                param, step, _ = make(*few)
                check(name, param, step, *few, narrow)
                steps[f"cached {name}"] = repeated(step, n // CACHED)
        except Exception as error:  # a peer that is missing or wrong must not stop the others
            excuses[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    for s in STORAGES:
        add("/".join(s), traffic(*s), s != STORAGES[0], partial(ours, storage=s))
    add("torch fused float32", 28, False, fused)
    add("deepspeed float32", 28, False, partial(deepspeed, dtype="float32"))
    add("deepspeed bfloat16", 14, True, partial(deepspeed, dtype="bfloat16"))
    add("bitsandbytes AdamW8bit", traffic("float32", "float32", "int8"), True, bitsandbytes)
    for size in sorted({traffic(*s) for s in STORAGES}):
        steps[f"floor of {size:.1f} bytes"] = floor(n, size)
    times = clock.interleave(steps, rounds)
    base, table = times["torch fused float32"], []
    for name, t in times.items():
        if name.startswith(("floor", "alone", "cached")):
            continue
        shares = [times.get(x) for x in (f"floor of {nbytes[name]:.1f} bytes", f"cached {name}", f"alone {name}")]
        table.append(
            (
                name,
                show_time(t.median),
                f"{nbytes[name]:.1f}",
                f"{n * nbytes[name] / t.median:.1f}",
                f"{base.over(t):.2g}" if base.over(t) < 0.1 else f"{base.over(t):.2f}",
                *(f"{x.over(t):.2f}" if x else "–" for x in shares),
            )
        )
    print(f"\nAdamW, {show_size(n)} elements, parameters/gradients/state, {rounds} rounds\n")
    print(render(COLUMNS, table))
    if (peer := "bitsandbytes AdamW8bit") in times:
        print(f"{peer} takes {times[peer].over(times['float32/bfloat16/int8']):.0f} times as long as f32/bf16/int8")
    if (peer := "deepspeed bfloat16") in times:
        same = times["bfloat16/bfloat16/bfloat16"]
        print(f"{peer} takes {times[peer].over(same):.2f} times as long as fastlr's, which is all bfloat16 too")
    for name, why in excuses.items():
        print(f"{name}: {why}")
    raw += [("storage", n, name, k, ns) for name, t in times.items() for k, ns in enumerate(t.samples)]
    return table


def section(table: Sequence[tuple[str, ...]], n: int, threads: int, command: str) -> str:
    """What README.md has of it."""
    return (
        f"{render(COLUMNS, table, markdown=True)}\n\n"
        f"Median time of AdamW's step, parameters/gradients/state, {show_size(n)} elements, {threads} threads; bytes "
        "moved for an element; how many times as fast as torch's fused float32 in the same round (median over the "
        "rounds); of the time, what float32 with as many bytes takes, what as many elements take in steps of "
        f"{show_size(CACHED)} that stay in the cache, and what this storage takes with an addition for each array. All "
        f"were checked against float64 before they were timed.\n{readme.made(command)}"
    )


def chain(n: int, rounds: int, raw: list[tuple[Any, ...]]) -> None:
    """Clip, AdamW, zero the gradients, running mean, copy to bfloat16: one call, against torch's calls in a row."""
    p, g = data(n)
    param, grad, copy = placed(p), placed(g), allocate(n, np.uint16)
    opt = fastlr.AdamW(param, ema=0.999, copy_to=copy, dtype="bfloat16", **HYPER)
    q = torch.nn.Parameter(tensor(placed(p)))
    q.grad, mean, narrow = tensor(placed(g)), tensor(placed(p)), tensor(allocate(n, np.uint16))
    theirs = torch.optim.AdamW([q], **HYPER, fused=True)

    def separate() -> None:
        torch.nn.utils.clip_grad_norm_([q], 1.0)
        theirs.step()
        with torch.no_grad():
            q.grad.zero_()
            mean.lerp_(q, 1e-3)
            narrow.copy_(q)

    steps = {"one call": lambda: opt.step(grad, clip_norm=1.0, zero_grads=True), "torch": separate}
    for _ in range(STEPS):
        grad[:] = g
        q.grad.copy_(torch.from_numpy(g))
        for step in steps.values():
            step()
        # On average: torch's float32 norm is off by 0.4 % at 48 Mi, and Adam forgets a factor but for gradients near ε.
        np.testing.assert_array_less(np.abs(param - q.detach().numpy()).mean(), WITHIN)
        np.testing.assert_array_less(np.abs(opt.ema - mean.numpy()).mean(), WITHIN)
        np.testing.assert_array_equal(to_bfloat16(param), copy)

    def before(name: str) -> None:
        grad[:] = g
        q.grad.copy_(torch.from_numpy(g))

    # The norm reads the gradients; then all but the copy are read and written, five arrays, and that is written.
    read, move = norm(grad), floor(n, 5 * 8 + 2)
    steps["floor"] = lambda: (read(), move())
    times = clock.interleave(steps, rounds, before)
    one, many, least = times["one call"], times["torch"], times["floor"]
    print(
        f"clip, AdamW, zero, mean and copy, {show_size(n)} elements: one call {show_time(one.median)}, "
        f"{least.over(one):.2f} of its floor; torch's five {show_time(many.median)}, "
        f"{many.over(one):.2f} times as long, {many.over(least):.2f} times the floor's"
    )
    raw += [("chain", n, name, k, ns) for name, t in times.items() for k, ns in enumerate(t.samples)]


def transformer() -> list[int]:
    """The tensors of 12 layers of width 768 and an embedding: 85 million in the layers, as GPT-2's are."""
    d = 768
    layer = [d, d, 3 * d * d, 3 * d, d * d, d, d, d, 4 * d * d, 4 * d, 4 * d * d, d]
    return [*(layer * 12), d, d, d, d, d, d]


SMALL = [25_000] * 400


def many_tensors(sizes: Sequence[int], label: str, rounds: int, raw: list[tuple[Any, ...]]) -> None:
    n = sum(sizes)
    p, g = data(n)
    cuts = np.cumsum(sizes)[:-1]
    flat, grad = placed(p), placed(g)
    pieces, grads = np.split(placed(p), cuts), np.split(placed(g), cuts)
    params = [torch.nn.Parameter(tensor(x)) for x in np.split(placed(p), cuts)]
    for q, d in zip(params, np.split(placed(g), cuts), strict=True):
        q.grad = tensor(d)
    one, many = fastlr.AdamW(flat, **HYPER), fastlr.AdamW(pieces, **HYPER)
    theirs = torch.optim.AdamW(params, **HYPER, fused=True)
    steps = {"flat": lambda: one.step(grad), "spans": lambda: many.step(grads), "torch fused": theirs.step}
    for _ in range(STEPS):
        for step in steps.values():
            step()
    np.testing.assert_array_equal(np.concatenate(pieces), flat)
    np.testing.assert_allclose(torch.cat([q.detach() for q in params]).numpy(), flat, rtol=1e-4, atol=WITHIN)
    steps["floor"] = floor(n, 28)
    times: dict[str, Times] = clock.interleave(steps, rounds)
    print(
        f"{label}, {len(sizes)} tensors, {n / 1e6:.0f} million: spans {show_time(times['spans'].median)}, "
        f"{times['spans'].over(times['flat']):.2f} of one flat buffer's time; torch fused "
        f"{times['torch fused'].over(times['spans']):.2f} times the spans', "
        f"{times['torch fused'].over(times['floor']):.2f} times the floor's"
    )
    raw += [(label, n, name, k, ns) for name, t in times.items() for k, ns in enumerate(t.samples)]


def denormals(n: int, rounds: int) -> None:
    """Momentum that has faded below 1e-38, kept and flushed, against momentum that has not."""
    steps = {}
    for name, scale, mode in [("normal", 1.0, "keep"), ("denormal", 1e-41, "keep"), ("flushed", 1e-41, "flush")]:
        p, g = placed(np.zeros(n, np.float32)), placed(np.full(n, scale, np.float32))
        opt = fastlr.AdamW(p, denormals=mode, **HYPER)
        steps[name] = lambda opt=opt, g=g: opt.step(g)
    times = clock.interleave(steps, rounds)
    print(
        f"gradients of 1e-41, {show_size(n)} elements: {times['denormal'].over(times['normal']):.1f} times as long as "
        f"of 1, with denormals='flush' {times['flushed'].over(times['normal']):.1f} times"
    )


PARTS = ("storages", "chain", "tensors", "denormals")


def run(a: argparse.Namespace) -> list[tuple[Any, ...]]:
    print(machine.describe())
    raw: list[tuple[Any, ...]] = []
    if "storages" in a.parts:
        table = storages(a.size, a.rounds, raw)
        if a.readme:
            command = " ".join(["python -m bench.storage", *sys.argv[1:]])
            readme.rewrite(a.readme, section(table, a.size, a.threads, command), "storage")
        gc.collect()
    if "chain" in a.parts:
        for n in (a.size, 1 << 20):
            chain(n, a.rounds, raw)
            gc.collect()
    if "tensors" in a.parts:
        many_tensors(transformer(), "a transformer of 12 layers", a.rounds, raw)
        gc.collect()
        many_tensors(SMALL, "many small tensors", a.rounds, raw)
    if "denormals" in a.parts:
        denormals(1 << 20, a.rounds)
    return raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=parse_size("48Mi"), help="elements")
    parser.add_argument("--threads", type=int, default=2, help="of every engine")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, of " + ", ".join(PARTS))
    parser.add_argument("--csv", type=Path, help="append raw samples to this file")
    parser.add_argument("--record", action="store_true", help="write what is printed to bench/record/, too")
    parser.add_argument("--readme", type=Path, nargs="?", const=readme.README, help="write the first table there")
    a = parser.parse_args()
    if a.readme:
        if "storages" not in a.parts:
            parser.error("--readme writes the table of storages, which --parts must have then")
        readme.split(a.readme, "storage")  # fails before the minutes of measuring, not after
    limit_threads(a.threads)
    fastlr.set_num_threads(a.threads)
    torch.set_num_threads(a.threads)
    with machine.recorded("storage", a.record):
        raw = run(a)
    if a.csv:
        with a.csv.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows((machine.date(), *row) for row in raw)


if __name__ == "__main__":
    main()
