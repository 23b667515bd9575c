"""When a second thread pays: `python -m bench.threads`.

A training loop does other work between steps, and the pool's threads go to sleep. For AdamW in float32, the median
time of a step in microseconds, with one thread and with the default, after a pause of so many microseconds in which
the caller computes. kernels/pool.c takes two constants from it: how long a worker looks for work before it sleeps, and
from which size on a sleeping one is woken.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import fastlr

SIZES = (8_192, 16_384, 32_768, 65_536, 102_400, 150_000, 196_608, 300_000, 500_000, 1_000_000)
PAUSES = (0, 20, 100, 300, 2000)


def median_us(opt: fastlr.Optimizer, grads: np.ndarray, pause: int, rounds: int) -> float:
    samples = []
    for _ in range(rounds):
        until = time.perf_counter_ns() + pause * 1000
        while time.perf_counter_ns() < until:
            pass
        start = time.perf_counter_ns()
        opt.step(grads)
        samples.append(time.perf_counter_ns() - start)
    return statistics.median(samples[rounds // 10 :]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    threads = fastlr.get_num_threads()
    print(f"us a step, 1 thread / {threads} threads, after a pause of")
    print(f"{'elements':>9} " + " ".join(f"{f'{pause} us':>15}" for pause in PAUSES))
    rng = np.random.default_rng(0)
    for size in SIZES:
        buffer = fastlr.FlatBuffer({"p": (size,)})
        grads = buffer.like()
        grads.data[:] = rng.standard_normal(size)
        opt = fastlr.AdamW(buffer)
        row = []
        for pause in PAUSES:
            times = {}
            for n in (1, threads):
                with fastlr.num_threads(n):
                    times[n] = median_us(opt, grads.data, pause, rounds)
            row.append(f"{times[1]:6.1f} / {times[threads]:6.1f}")
        print(f"{size:9,} " + " ".join(row), flush=True)


if __name__ == "__main__":
    main()
