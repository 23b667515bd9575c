"""fastlr's rules as optax transformations, on CPUs.

The step runs on the host, in a callback: XLA hands over its arrays, which must not be written, so parameters and state
are copied once a step. That is the price of running inside ``jax.jit``; where the training loop is Python, arrays of
NumPy and `fastlr.AdamW` have no such copies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlr.extras import need
from fastlr.optimizer import Optimizer
from fastlr.plain import plain

__all__ = ["State", "transform"]


class State(NamedTuple):
    """Updates made, and a tree like the parameters for each state of the rule."""

    step: Any
    states: dict[str, Any]


def transform(rule: type[Optimizer], **hyper: Any) -> Any:
    """An ``optax.GradientTransformation`` that makes the steps of a fastlr class.

    Its updates are the new parameters less the old, so that ``optax.apply_updates`` is within a rounding of what the
    class itself gives. The rate is in it: chain nothing after it that scales.

    Parameters
    ----------
    rule : type
        `fastlr.AdamW`, say. Rules that carry numbers for the whole model, or need a Hessian, are refused.
    **hyper
        Its hyper-parameters; each that is a number may be a schedule of fastlr's.

    Examples
    --------
    >>> import fastlr, fastlr.jax, jax, jax.numpy as jnp, optax
    >>> opt = fastlr.jax.transform(fastlr.Adam, lr=0.1)
    >>> params = {"w": jnp.ones(3)}
    >>> state = opt.init(params)
    >>> @jax.jit
    ... def step(params, state):
    ...     updates, state = opt.update({"w": jnp.array([1.0, -2.0, 0.0])}, state, params)
    ...     return optax.apply_updates(params, updates), state
    >>> [round(float(x), 3) for x in step(params, state)[0]["w"]]
    [0.9, 1.1, 1.0]
    """
    jax, optax = need("jax", "jax", "fastlr.jax"), need("optax", "jax", "fastlr.jax")
    jnp = jax.numpy
    update, hyper, first = plain(rule, hyper)
    keys = tuple(first)

    def init(params: Any) -> State:
        fill = {key: jax.tree.map(lambda p, x=x: jnp.full_like(p, x), params) for key, x in first.items()}
        return State(jnp.zeros((), jnp.int32), fill)

    def run(step: Any, params: Any, grads: Any, *states: Any) -> Any:
        """On the host: lists of arrays, one a leaf."""
        moves, made = [], []
        for p, g, *own in zip(params, grads, *states, strict=True):
            old, new, kept = np.asarray(p), np.array(p), [np.array(s) for s in own]
            update(new, np.array(g), *kept, step=int(step), **hyper)
            moves.append(new - old)
            made.append(kept)
        return moves, *[[kept[j] for kept in made] for j in range(len(keys))]

    def move(grads: Any, state: State, params: Any = None, **_: Any) -> Any:
        if params is None:
            raise ValueError("params must be given to update(grads, state, params): the rule works on them")
        leaves, tree = jax.tree.flatten(params)
        given = [tree.flatten_up_to(grads), *[tree.flatten_up_to(state.states[key]) for key in keys]]
        for k, (p, g) in enumerate(zip(leaves, given[0], strict=True)):
            if p.dtype != g.dtype or p.shape != g.shape or p.dtype not in (np.float32, np.float64):
                raise TypeError(
                    f"leaf {k}: parameter and gradient must be float32 or float64 of one shape, "
                    f"got {p.dtype}{list(p.shape)} and {g.dtype}{list(g.shape)}"
                )
        shapes = [jax.ShapeDtypeStruct(p.shape, p.dtype) for p in leaves]
        step = state.step + 1
        moves, *states = jax.pure_callback(run, [shapes] * (1 + len(keys)), step, leaves, *given)
        unflatten = tree.unflatten
        return unflatten(moves), State(step, {key: unflatten(s) for key, s in zip(keys, states, strict=True)})

    return optax.GradientTransformation(init, move)
