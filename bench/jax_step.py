"""Steps in JAX: `python -m bench.jax_step`.

AdamW on float32 parameters under jit: optax's own, as XLA compiles it, and fastlr's in place, each with parameters and
state donated; fastlr's as a transformation of optax; and, as the alternative to a call of XLA's, the same kernel in
``jax.pure_callback``. Medians of interleaved samples, and the ratio to fastlr's in place by round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fastlr
import fastlr.jax
from bench.clock import interleave

SHAPES = {"300 Ki in 6": [(51_200,)] * 6, "10 Mi in 150": [(69_905,)] * 150}
HYPER = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 1e-2}
Jitted = Callable[[Any, Any, Any], Any]


def by_optax(opt: Any) -> Jitted:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def by_callback(params: Any, state: Any, grads: Any) -> Any:
    """The arrays that XLA hands over must not be written."""

    def host(t: Any, params: Any, grads: Any, m: Any, v: Any) -> Any:
        made = [[np.array(x) for x in column] for column in (params, m, v)]
        for p, g, m, v in zip(made[0], grads, *made[1:], strict=True):
            fastlr.functional.adamw(p, np.array(g), m, v, step=int(t))
        return made

    t, m, v = state
    shapes = [[jax.ShapeDtypeStruct(p.shape, p.dtype) for p in params]] * 3
    params, m, v = jax.pure_callback(host, shapes, t + 1, params, grads, m, v)
    return params, (t + 1, m, v)


def runner(step: Jitted, params: Any, state: Any, grads: Any) -> Callable[[], None]:
    jitted = jax.jit(step, donate_argnums=(0, 1))
    values = jax.tree.map(jnp.copy, (params, state))

    def run() -> None:
        nonlocal values
        values = jax.block_until_ready(jitted(*values, grads))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for name, shapes in SHAPES.items():
        rng = np.random.default_rng(0)
        params, grads = ([jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes] for _ in range(2))
        ours, theirs = fastlr.jax.in_place(fastlr.AdamW, lr=1e-3), optax.adamw(1e-3, **HYPER)
        moved = fastlr.jax.transform(fastlr.AdamW, lr=1e-3)
        zeros = jax.tree.map(jnp.zeros_like, params)
        steps = {
            "fastlr.jax.in_place": runner(lambda p, s, g, o=ours: o.step(p, g, s), params, ours.init(params), grads),
            "fastlr.jax.transform": runner(by_optax(moved), params, moved.init(params), grads),
            "optax.adamw": runner(by_optax(theirs), params, theirs.init(params), grads),
            "in a callback": runner(by_callback, params, (jnp.int32(0), zeros, zeros), grads),
        }
        times = interleave(steps, rounds)
        first = times["fastlr.jax.in_place"]
        print(f"{name} tensors, {fastlr.get_num_threads()} threads")
        for engine, t in times.items():
            print(f"  {engine:22} {t.median / 1e6:9.3f} ms   {t.over(first):6.2f}", flush=True)


if __name__ == "__main__":
    main()
